"""The encoding of batches: answers are staged as they come, and whatever fails or dies is told apart."""

import functools
import time
import traceback
import uuid
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.backfill.encoder import OTHER_LANGUAGE, Encoder, Encoding, skipped
from cluster.backfill.staged import answers, encoded_folder, plan_path
from cluster.models.endpoint import CapReached
from cluster.store.attempts import Attempts, WorkerSick
from cluster.store.files import Files
from cluster.store.staging import put_as_content
from schemas.carriers import Batch, EncodedBatch
from schemas.profile import EncoderProfile
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


class EncodeStage:
    """Actor: plan/BATCH -> encoded/ENCODER/BATCH/, one file of answers.

    `paid` maps ids of segments that an earlier, differently cut batch has encoded to the path of the answer.
    A worker that cannot encode gives the batch back: the result's `failure` says why. First it waits
    `patience_s`, twice as long each time, so that others get the next batches. Where a cap is reached, the
    result `is_stopped` and `failure` says so.
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
        self._load_s = 0.0
        self._skipped = functools.partial(skipped, profile=profile)
        self._load = functools.partial(Encoder, profile, **engine)
        self._cap_reached = ""
        self._worker, self._patience_s, self._num_given_back = uuid.uuid4().hex, patience_s, 0

    def __call__(self, batch: Batch) -> EncodedBatch:
        started_s, self._load_s, failure = time.monotonic(), 0.0, self._cap_reached
        done = EncodedRows()
        try:
            # Behind a cap nothing is begun, and what is in flight comes to its end.
            if not self._cap_reached:
                done = self._encoded(batch.batch_id)
            self._num_given_back = 0
        except CapReached as cap:
            failure = self._cap_reached = str(cap)
        except WorkerSick as sick:
            failure = str(sick)
            # Whatever is wrong with it, a new one may be well.
            self._encoder = None
            time.sleep(min(self._patience_s * 2**self._num_given_back, MAX_WAIT_S))
            self._num_given_back += 1
        outcomes = [row["outcome"] for row in done.rows]
        counted = ("prompt_tokens", "cached_tokens", "output_tokens", "num_calls")
        return EncodedBatch(
            batch_id=batch.batch_id,
            encoded=done.path,
            failure=failure,
            is_stopped=bool(self._cap_reached),
            worker=self._worker,
            num_segments=len(done.rows),
            num_segments_encoded=len(done.paid_now),
            num_segments_rejected=sum(outcome in ("partial", "rejected") for outcome in outcomes),
            **{f"num_{name}": outcomes.count(name) for name in OUTCOMES},
            num_refused=sum(
                refusal["reason"] != OTHER_LANGUAGE
                for row in done.rows
                for refusal in row.get("refusals") or []
            ),
            **{name: sum(row[name] for row in done.paid_now) for name in counted},
            encode_load_s=self._load_s,
            encode_s=time.monotonic() - started_s - self._load_s,
        )

    def _encoded(self, batch_id: str) -> EncodedRows:
        folder = self._folder(batch_id)
        plan = self._files.get_table(plan_path(batch_id)).to_pylist()
        rows = self._staged([segment["segment_id"] for segment in plan], self._files.paths(folder))
        missing = [segment for segment in plan if segment["segment_id"] not in rows]
        for segment, encoding in self._encode(batch_id, missing):
            rows[segment["segment_id"]] = encoded_row(segment, encoding)
        ordered = [rows[segment["segment_id"]] for segment in plan]
        table = pa.Table.from_pylist(ordered, schema=encoded_schema())
        path = put_as_content(self._files, f"{folder}/rows", table)
        # What it takes the place of: failures of an earlier attempt, single answers, what a forgetting left.
        self._files.delete([old for old in self._files.paths(folder) if old != path])
        return EncodedRows(path, ordered, [rows[segment["segment_id"]] for segment in missing])

    def _staged(self, segment_ids: list[str], paths: list[str]) -> dict[str, dict]:
        """Answers to these segments out of the batch's own staged files, and out of other batches."""
        elsewhere = dict.fromkeys(self._paid[one] for one in segment_ids if one in self._paid)
        found: dict[str, dict] = {}
        wanted = set(segment_ids)
        for path in [*paths, *elsewhere]:
            found |= {key: row for key, row in answers(self._files, path).items() if key in wanted}
        return found

    def _encode(self, batch_id: str, segments: list[dict]) -> list[tuple[dict, Encoding]]:
        """Encode as one batch; where that fails, or killed this actor before, find out who is to blame."""
        found = [(segment, self._skipped(segment)) for segment in segments]
        unasked = [(segment, encoding) for segment, encoding in found if encoding]
        asked = [segment for segment, encoding in found if not encoding]
        if not asked:
            return unasked
        attempts = Attempts(self._files, self._attempt, batch_id)
        # Loading waits for work: a run with nothing to encode never loads a model.
        encoder = self._loaded(attempts)
        if attempts.first():
            try:
                encodings = encoder.encode(asked)
                attempts.offer_probe(batch_id)
                return unasked + list(zip(asked, encodings, strict=True))
            except (CapReached, WorkerSick):
                attempts.give_back()
                raise
            except Exception as error:
                print(f"encoder: batch {batch_id} failed ({error}); going on segment by segment", flush=True)
        try:
            return unasked + self._encode_each(batch_id, asked, encoder, attempts)
        except (CapReached, WorkerSick):
            attempts.give_back()
            raise

    def _loaded(self, attempts: Attempts) -> Encoder:
        if self._encoder is None:
            with attempts.alone(f"load-{attempts.node}") as is_harmless:
                if not is_harmless:
                    raise WorkerSick("its processes died while they loaded the encoder")
                try:
                    self._encoder = self._load()
                except Exception as error:
                    traceback.print_exc()
                    detail = f"{type(error).__name__}: {error}"
                    raise WorkerSick(f"it cannot load the encoder: {detail}") from error
            self._load_s = self._encoder.load_s
        return self._encoder

    def _encode_each(
        self, batch_id: str, segments: list[dict], encoder: Encoder, attempts: Attempts
    ) -> list[tuple[dict, Encoding]]:
        """Encode one by one, each answer staged at once: the next segment may kill this process."""
        is_well, encodings, errors = self._passes_probe(encoder, attempts), [], []
        # First those at which nobody died, which tell whether the worker is well.
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
            put_as_content(self._files, f"{self._folder(batch_id)}/one", table)
        if len(errors) == len(segments) > 1 and not is_well:
            # Rather than reject everybody's data.
            raise WorkerSick(
                f"all {len(errors)} segments of batch {batch_id} failed, the last with {errors[-1]}"
            )
        return encodings

    def _passes_probe(self, encoder: Encoder, attempts: Attempts) -> bool:
        """Whether this worker can encode what one has encoded in this run; False where there is nothing yet.

        WorkerSick where it cannot, or its processes died when they tried.
        """
        if (probe := attempts.probe()) is None:
            return False
        plan = self._files.get_table(plan_path(probe)).to_pylist()
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
