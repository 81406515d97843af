"""The stage `encode`: batches of segments become staged answers; failures are traced to their cause.

A batch is encoded as a whole. If that fails, or killed its process before, its segments are encoded one by
one, to find out which segment, or whether the worker, is to blame (see cluster.store.crash_markers).
"""

import contextlib
import functools
import json
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.backfill.encoder import EXTRA_VALUE, OTHER_LANGUAGE, Encoder, Encoding, skipped
from cluster.backfill.staged import answers, encoded_folder, plan_path
from cluster.models.paid_answers import CapReached
from cluster.runtime.sharing import SharedLock, SharedSeconds
from cluster.store.crash_markers import Attempts, WorkerSick
from cluster.store.files import Files
from cluster.store.staging import put_as_content
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import Batch, EncodedBatch
from schemas.store import encoded_schema

OUTCOMES = ("complete", "split", "partial", "rejected", "skipped")

MAX_WAIT_S = 300
"""A worker that has given batches back waits no longer than this before it takes the next one."""


@dataclass(frozen=True)
class EncodedRows:
    """A batch's answers, rows of `encoded_schema()`."""

    path: str = ""
    """Where they are staged."""
    rows: list[dict] = field(default_factory=list)
    """In the order of the plan."""
    paid_now: list[dict] = field(default_factory=list)
    """Those that were not staged before."""


@dataclass
class _Work:
    """A batch in work."""

    batch: Batch
    attempts: Attempts
    load_s: float = 0.0
    """What the encoder took to load, where it was loaded for this batch."""


class EncodeStage:
    """Actor: plan/BATCH -> encoded/ENCODER/BATCH/, one file of answers.

    `paid` maps ids of segments that an earlier, differently cut batch has encoded to the path of the answer.
    A worker that cannot encode gives the batch back: the result's `failure` says why. Before that it waits
    `patience_s`, twice as long each time, so that other workers get the next batches. If a cap is reached,
    the result `is_stopped`, and `failure` says so.

    If the engine is one of SHARED, several threads may call it, each with its own batch. Whole batches are
    encoded side by side. What may kill the process is run with nothing beside it: loading, the run's probe,
    and each segment of a batch that failed or killed its process. So a death can be blamed on one thing.
    """

    def __init__(
        self,
        profile: EncoderProfile,
        files: Files,
        attempt: str,
        paid: dict[str, str],
        engine: dict,
        patience_s: float = 0.0,
    ):
        self._files, self._attempt, self._paid = files, attempt, paid
        self._folder = functools.partial(encoded_folder, profile.fingerprint)
        self._encoder: Encoder | None = None
        self._sides, self._seconds = SharedLock(), SharedSeconds()
        self._skipped = functools.partial(skipped, profile=profile)
        self._load = functools.partial(Encoder, profile, **engine)
        self._cap_reached = ""
        self._worker, self._patience_s, self._num_given_back = uuid.uuid4().hex, patience_s, 0

    def __call__(self, batch: Batch) -> EncodedBatch:
        work = _Work(batch, Attempts(self._files, self._attempt, batch.batch_id))
        begun_s = self._seconds.begin()
        # After a cap is reached nothing new is begun, and batches in flight are finished.
        done, failure, is_stopped, is_sick = EncodedRows(), self._cap_reached, bool(self._cap_reached), False
        try:
            if not is_stopped:
                done = self._encoded(work)
            self._num_given_back = 0
        except CapReached as cap:
            failure = self._cap_reached = str(cap)
            is_stopped = True
        except WorkerSick as sick:
            failure, is_sick = str(sick), True
        finally:
            encode_s = self._seconds.end(begun_s)
        if is_sick:
            time.sleep(min(self._patience_s * 2**self._num_given_back, MAX_WAIT_S))
            self._num_given_back += 1
        outcomes = [row["outcome"] for row in done.rows]
        refusals = [refusal for row in done.rows for refusal in row.get("refusals") or []]
        counted = ("prompt_tokens", "cached_tokens", "output_tokens", "num_calls")
        return EncodedBatch(
            batch_id=batch.batch_id,
            encoded=done.path,
            failure=failure,
            is_stopped=is_stopped,
            worker=self._worker,
            num_segments=len(done.rows),
            num_segments_encoded=len(done.paid_now),
            num_segments_rejected=sum(outcome in ("partial", "rejected") for outcome in outcomes),
            **{f"num_{name}": outcomes.count(name) for name in OUTCOMES},
            num_refused=sum(one["reason"] not in (OTHER_LANGUAGE, EXTRA_VALUE) for one in refusals),
            num_values_left_out=sum(
                len(json.loads(one["raw"])) for one in refusals if one["reason"] == EXTRA_VALUE
            ),
            **{name: sum(row[name] for row in done.paid_now) for name in counted},
            encode_load_s=work.load_s,
            encode_s=encode_s,
        )

    def _encoded(self, work: _Work) -> EncodedRows:
        folder = self._folder(work.batch.batch_id)
        plan = self._planned(work.batch.parts)
        rows = self._staged([segment["segment_id"] for segment in plan], self._files.paths(folder))
        missing = [segment for segment in plan if segment["segment_id"] not in rows]
        for segment, encoding in self._encode(work, missing):
            rows[segment["segment_id"]] = encoded_row(segment, encoding)
        ordered = [rows[segment["segment_id"]] for segment in plan]
        table = pa.Table.from_pylist(ordered, schema=encoded_schema())
        path = put_as_content(self._files, f"{folder}/rows", table)
        # The file replaces failures of an earlier attempt, single answers, and what a forgetting left.
        self._files.delete([old for old in self._files.paths(folder) if old != path])
        return EncodedRows(path, ordered, [rows[segment["segment_id"]] for segment in missing])

    def _planned(self, parts: Iterable[str]) -> list[dict]:
        """Segments that are staged under these ids."""
        return [row for part in parts for row in self._files.get_table(plan_path(part)).to_pylist()]

    def _staged(self, segment_ids: list[str], paths: list[str]) -> dict[str, dict]:
        """Answers to these segments out of the batch's own staged files, and out of other batches."""
        elsewhere = dict.fromkeys(self._paid[one] for one in segment_ids if one in self._paid)
        found: dict[str, dict] = {}
        wanted = set(segment_ids)
        for path in [*paths, *elsewhere]:
            found |= {key: row for key, row in answers(self._files, path).items() if key in wanted}
        return found

    def _encode(self, work: _Work, segments: list[dict]) -> list[tuple[dict, Encoding]]:
        """Encode as one batch; if that fails, or killed this actor before, segment by segment."""
        found = [(segment, self._skipped(segment)) for segment in segments]
        unasked = [(segment, encoding) for segment, encoding in found if encoding]
        asked = [segment for segment, encoding in found if not encoding]
        if not asked:
            return unasked
        # Loading waits for work: a run with nothing to encode never loads a model.
        encodings = self._encode_whole(work, asked)
        if encodings is not None:
            return unasked + list(zip(asked, encodings, strict=True))
        try:
            with self._alone(work) as encoder:
                return unasked + self._encode_each(work, asked, encoder)
        except (CapReached, WorkerSick):
            work.attempts.give_back()
            raise

    def _encode_whole(self, work: _Work, segments: list[dict]) -> list[Encoding] | None:
        """Encode all of them, beside other batches. None if that fails, or was tried before."""
        with self._together(work) as encoder:
            # Only now: a batch that waited while another one killed the process has not been tried.
            if not work.attempts.first():
                return None
            try:
                encodings = encoder.encode(segments)
                work.attempts.offer_probe(" ".join(work.batch.parts))
                return encodings
            except (CapReached, WorkerSick):
                work.attempts.give_back()
                raise
            except Exception as error:
                name = f"batch {work.batch.batch_id}"
                print(f"encoder: {name} failed ({error}); going on segment by segment", flush=True)
                return None

    @contextlib.contextmanager
    def _together(self, work: _Work) -> Iterator[Encoder]:
        """The encoder, shared with other batches."""
        while True:
            with self._sides.together(), self._dropped_if_sick():
                if self._encoder is not None:
                    yield self._encoder
                    return
            with self._alone(work):
                pass

    @contextlib.contextmanager
    def _alone(self, work: _Work) -> Iterator[Encoder]:
        """The encoder, with no other batch in work; loaded if it is not yet."""
        with self._sides.alone(), self._dropped_if_sick():
            if self._encoder is None:
                self._encoder = self._loaded(work)
            yield self._encoder

    @contextlib.contextmanager
    def _dropped_if_sick(self) -> Iterator[None]:
        try:
            yield
        except WorkerSick:
            # A newly loaded encoder may work.
            self._encoder = None
            raise

    def _loaded(self, work: _Work) -> Encoder:
        attempts = work.attempts
        with attempts.alone(f"load-{attempts.node}") as is_harmless:
            if not is_harmless:
                raise WorkerSick("its processes died while they loaded the encoder")
            try:
                with self._seconds.stopped():
                    encoder = self._load()
            except Exception as error:
                traceback.print_exc()
                detail = f"{type(error).__name__}: {error}"
                raise WorkerSick(f"it cannot load the encoder: {detail}") from error
        work.load_s += encoder.load_s
        return encoder

    def _encode_each(
        self, work: _Work, segments: list[dict], encoder: Encoder
    ) -> list[tuple[dict, Encoding]]:
        """Encode one by one, each answer staged at once: the next segment may kill this process."""
        attempts = work.attempts
        is_well, encodings, errors = self._passes_probe(encoder, attempts), [], []
        # Segments on which no process died come first: they show whether the worker is well.
        for segment in sorted(segments, key=lambda one: attempts.num_deaths(one["segment_id"])):
            attempts.check_worker()
            with attempts.alone(segment["segment_id"]) as is_harmless:
                if not is_harmless:
                    detail = "processes of the encoder died on this segment, again and again"
                    encodings.append((segment, _failed(segment, "encoder_crashed", detail)))
                    continue
                try:
                    (encoding,) = encoder.encode([segment])
                except (CapReached, WorkerSick):
                    raise
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")
                    encodings.append((segment, _failed(segment, "encoder_error", errors[-1])))
                    continue
            attempts.done()
            encodings.append((segment, encoding))
            table = pa.Table.from_pylist([encoded_row(segment, encoding)], schema=encoded_schema())
            put_as_content(self._files, f"{self._folder(work.batch.batch_id)}/one", table)
        if len(errors) == len(segments) > 1 and not is_well:
            # It is more likely that the worker is sick than that all segments are bad.
            raise WorkerSick(
                f"all {len(errors)} segments of batch {work.batch.batch_id} failed, the last with "
                f"{errors[-1]}"
            )
        return encodings

    def _passes_probe(self, encoder: Encoder, attempts: Attempts) -> bool:
        """Whether this worker can encode the run's probe, a segment that some worker has encoded in this run;
        False if there is no probe yet.

        WorkerSick if it cannot, or if its processes died on it.
        """
        if (probe := attempts.probe()) is None:
            return False
        plan = self._planned(probe.split())
        with attempts.alone(f"probe-{attempts.node}") as is_harmless:
            if not is_harmless:
                raise WorkerSick("its processes died on what had been encoded before")
            try:
                encoder.encode([next(segment for segment in plan if not self._skipped(segment))])
            except CapReached:
                raise
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"
                raise WorkerSick(f"it fails on what had been encoded before, with {detail}") from error
        attempts.done()
        return True


def _failed(segment: dict, reason: str, raw: str) -> Encoding:
    turns = sorted({part["turn_index"] for part in segment["current"]})
    return Encoding(outcome="rejected", rejections=[{"reason": reason, "turns": turns, "raw": raw}])


def encoded_row(segment: dict, encoding: Encoding) -> dict:
    """A row of `encoded_schema()`."""
    names = [
        "segment_id",
        "user_id",
        "conversation_id",
        "session_id",
        "session_time",
        "first_turn",
        "last_turn",
        "start_char",
        "end_char",
        "turns",
    ]
    return {name: segment[name] for name in names} | vars(encoding)
