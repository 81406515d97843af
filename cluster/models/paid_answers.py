"""The ledger of paid answers: one durable file an answer, so that a killed run pays for nothing twice.

A request's key is a hash of all that decides its answer. Before it is sent, `asked/.../KEY` is put; when its
answer is there, `answers/.../KEY-PROMPT-OUTPUT.json`, whose name holds the tokens, so that one listing tells
what was spent. A request that was asked and has no answer was in flight when its run was killed: it is *in
doubt*, the server may have answered and charged it. Nothing that a client can do tells the two apart; what is
in doubt is bounded by the requests in flight, counted, and asked again under the same idempotency key.

Answers out of a provider's batch (cluster.models.batches) have another price. They lie beside the others, as
`KEY-PROMPT-OUTPUT-batch.json`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from cluster.store.files import Files
from schemas.endpoint import EndpointConfig

IN_BATCH = "batch"
"""Marks the name of an answer that came in a batch."""


@dataclass(frozen=True)
class Answer:
    """What a model answered. `complete` is False where a token limit cut the text."""

    text: str
    complete: bool = True
    prompt_tokens: int = 0
    output_tokens: int = 0
    refusal: str = ""
    """Why the request itself was refused; then there is no text, and asking again is of no use."""


def request_key(*parts: object) -> str:
    """32 hex digits over whatever decides an answer."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Responses:
    """Answers of one model in one role (`teacher`, `judge`), of an output folder.

    `spent` holds the tokens of all answers of the role, those of other models and prompts included;
    `spent_in_batches` those of them that came in batches.
    """

    def __init__(self, files: Files, role: str, fingerprint: str):
        self.files, self.role, self.fingerprint = files, role, fingerprint
        self._asked, self._answered = f"asked/{role}/{fingerprint}", f"answers/{role}/{fingerprint}"
        self.spent = self.spent_in_batches = (0, 0)
        self._paths: dict[str, str] = {}
        self.refresh()
        asked = {path.rpartition("/")[2] for path in files.paths(self._asked)}
        self.in_doubt = asked - self._paths.keys()
        """Keys of requests that were in flight when an earlier run was killed."""

    @property
    def num_answers(self) -> int:
        """Answers of this fingerprint."""
        return len(self._paths)

    def refresh(self) -> None:
        """List the ledger again: workers of a killed run may have kept an answer meanwhile."""
        direct, in_batches = [0, 0], [0, 0]
        for path in self.files.paths(f"answers/{self.role}"):
            folder, _, name = path.rpartition("/")
            key, *tokens = name.removesuffix(".json").split("-")
            spent = in_batches if tokens[2:] == [IN_BATCH] else direct
            spent[0], spent[1] = spent[0] + int(tokens[0]), spent[1] + int(tokens[1])
            if folder == self._answered:
                self._paths[key] = path
        self.spent = (direct[0] + in_batches[0], direct[1] + in_batches[1])
        self.spent_in_batches = (in_batches[0], in_batches[1])

    def cost(self, config: EndpointConfig) -> float:
        """What all answers of the role cost, at this endpoint's prices."""
        in_batches = self.spent_in_batches
        direct = (self.spent[0] - in_batches[0], self.spent[1] - in_batches[1])
        return config.cost(*direct) + config.cost(*in_batches, in_batch=True)

    def has(self, key: str) -> bool:
        return key in self._paths

    def get(self, key: str) -> Answer | None:
        path = self._paths.get(key)
        found = self.files.get_json(path) if path else None
        return Answer(**found) if found else None

    def asking(self, key: str) -> None:
        """Note that the request is about to be sent."""
        self.files.put(f"{self._asked}/{key}", b"")

    def put(self, key: str, answer: Answer, *, in_batch: bool = False) -> None:
        """Keep the answer; when this returns, it is paid for the last time."""
        tokens = f"{answer.prompt_tokens}-{answer.output_tokens}" + (f"-{IN_BATCH}" if in_batch else "")
        path = f"{self._answered}/{key}-{tokens}.json"
        self.files.put_json(path, asdict(answer))
        self._paths[key] = path
        self.not_answered(key)

    def not_answered(self, key: str) -> None:
        """The request ended, so it is no longer in doubt."""
        self.files.delete([f"{self._asked}/{key}"])
