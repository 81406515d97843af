"""The judge: scores records on four dimensions, by a model on this cluster or behind an endpoint.

judge = make_judge("openai", profile, endpoint, files, engine, budget)       # or "vllm"
judge.score([(segment, records), ...]) -> [Scores, "why there are none", or None where it was not asked]
"""

import functools
import json
import re
from collections.abc import Callable, Sequence

import pyarrow as pa

from cluster.backfill.staged import plan_path
from cluster.distill.asked import in_one_call
from cluster.models.asking import Answer, Request, request_key
from cluster.models.batches import BatchEndpoint
from cluster.models.engine import Later, VllmEngine
from cluster.models.paid_answers import Budget, Paid, Responses
from cluster.models.prompt import Chat, control_pattern
from cluster.models.sources import model_folder
from cluster.store.files import Files
from schemas.endpoint import EndpointConfig
from schemas.judge import InvalidScores, Scores, parse_scores, scores_schema
from schemas.profiles.judge import JudgeProfile
from schemas.stage_items import CheckedPart, JudgedPart

JUDGED_SCHEMA = pa.schema([(name, pa.string()) for name in ("segment_id", "reason", "detail", "scores")])
"""`reason`: empty where the records passed, `judge` where they scored too low, `judge_failed` where no scores
could be read; `scores` is JSON."""


class Judge:
    """A rubric and a model that applies it."""

    def __init__(self, profile: JudgeProfile, model: Paid):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model_folder(profile.base, profile.base_revision))
        self._profile, self._model = profile, model
        self._control = control_pattern(tokenizer, profile.user_template + "<TURNS>")
        self.counts = model.counts

    def score(self, answers: list[tuple[dict, list[dict]]]) -> list[Scores | str | None]:
        """(segment, its records with local evidence) -> scores; a text says why there are none."""
        requests = [self._request(segment, records) for segment, records in answers]
        return [None if answer is None else _read(answer) for answer in self._model.ask(requests)]

    def _request(self, segment: dict, records: list[dict]) -> Request:
        messages = self.messages(segment, records)
        key = request_key(self._profile.fingerprint, messages)
        return Request(Chat(messages), scores_schema(), self._profile.max_tokens, key)

    def messages(self, segment: dict, records: list[dict]) -> list[dict]:
        """The prompt as chat messages."""
        turns = [f"[{i}] {part['role']}: {part['text']}" for i, part in enumerate(segment["current"])]
        shown = [json.dumps(as_written(record), ensure_ascii=False) for record in records]
        values = {"{current}": self._data("\n".join(turns)), "{records}": self._data("\n".join(shown))}
        template = self._profile.user_template
        # One pass: a brace in somebody's text is no field.
        user = re.sub(r"\{current\}|\{records\}", lambda match: values[match[0]], template)
        return [
            {"role": "system", "content": self._profile.system_prompt},
            {"role": "user", "content": user},
        ]

    def _data(self, text: str) -> str:
        return (
            self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) if self._control else text
        )


def as_written(record: dict) -> dict:
    """A staged record without the key of extra fields, where it has none: prompts find paid answers."""
    extra = dict(record.get("extra") or {})
    others = {name: value for name, value in record.items() if name != "extra"}
    return others | ({"extra": extra} if extra else {})


def _read(answer: Answer) -> Scores | str:
    if answer.refusal:
        return answer.refusal
    try:
        return parse_scores(answer.text)
    except InvalidScores as error:
        return f"{'invalid' if answer.complete else 'cut'} answer: {error}"


def make_judge(
    kind: str,
    profile: JudgeProfile,
    endpoint: EndpointConfig,
    files: Files,
    engine: dict,
    budget: Callable[[], Budget],
) -> Judge:
    """A judge of a kind, `vllm` or `openai`, made where it works.

    What it answers is kept in the ledger of `files`; the prompt is in each request's key. `budget` says what
    an endpoint may still be paid.
    """
    if kind == "vllm":
        responses = Responses(files, "judge", profile.fingerprint)
        return Judge(profile, Paid(Later(functools.partial(VllmEngine, profile, **engine)), responses))
    responses = Responses(files, "judge", endpoint.fingerprint)
    return Judge(profile, BatchEndpoint(endpoint, responses, budget()))


class JudgeStage:
    """Actor: checked/PART -> judged/PART, one row of JUDGED_SCHEMA for each segment with records.

    What a cap or a failure left open has no row. `make` makes the judge inside the actor.
    """

    def __init__(self, files: Files, min_score: float, make: Callable[[], Judge]):
        self._files, self._min_score, self._make = files, min_score, make
        self._judge: Judge | None = None

    def __call__(self, part: CheckedPart) -> JudgedPart:
        return self.together([part])[0]

    def together(self, parts: Sequence[CheckedPart]) -> list[JudgedPart]:
        """The same of several parts, about whose records the judge is asked in one call. What was asked and
        what became of it stands with the first."""
        judge = self._judge = self._judge or self._make()
        answers = [self._answers(part) for part in parts]
        asked = [answer for some in answers for answer in some]
        found, counts, error = in_one_call(judge.score, asked, judge)
        scores_of = dict(zip((segment["segment_id"] for segment, _ in asked), found, strict=True))
        judged: list[JudgedPart] = []
        for part, some in zip(parts, answers, strict=True):
            rows = [
                {"segment_id": segment["segment_id"], **self._judged(scores)}
                for segment, _ in some
                if (scores := scores_of[segment["segment_id"]]) is not None
            ]
            self._files.put_rows(path := f"judged/{part.part_id}.parquet", rows, JUDGED_SCHEMA)
            known = vars(part) | {"error": part.error or error}
            judged.append(JudgedPart(**known, judged=path, judge_counts={} if judged else counts))
        return judged

    def _answers(self, part: CheckedPart) -> list[tuple[dict, list[dict]]]:
        """Segments of a part with records that the verifier accepted, and these."""
        columns = ["segment_id", "verdict", "records"]
        checked = self._files.get_table(part.checked, columns=columns).to_pylist()
        records = {one["segment_id"]: one["records"] for one in checked if one["verdict"] == "records"}
        plan = self._files.get_table(plan_path(part.batch_id)).to_pylist()
        return [(segment, records[name]) for segment in plan if (name := segment["segment_id"]) in records]

    def _judged(self, scores: Scores | str) -> dict:
        if isinstance(scores, str):
            return {"reason": "judge_failed", "detail": scores, "scores": None}
        passed = scores.weighted >= self._min_score
        detail = "" if passed else f"weighted mean {scores.weighted:.2f} is below {self._min_score}"
        return {"reason": "" if passed else "judge", "detail": detail, "scores": scores.model_dump_json()}
