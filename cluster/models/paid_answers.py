"""The ledger of paid answers: one durable file an answer, so that a killed run pays for nothing twice.

A request's key is a hash of all that decides its answer. Before it is sent, `asked/.../KEY` is put; when its
answer is there, `answers/.../KEY-PROMPT-OUTPUT.json`, whose name holds the tokens, so that one listing tells
what was spent. A request that was asked and has no answer was in flight when its run was killed: it is *in
doubt*, the server may have answered and charged it. Nothing that a client can do tells the two apart; what is
in doubt is bounded by the requests in flight, counted, and asked again under the same idempotency key.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from cluster.store.files import Files


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

    `spent` holds the tokens of all answers of the role, those of other models and prompts included.
    """

    def __init__(self, files: Files, role: str, fingerprint: str):
        self._files, self._role = files, role
        self._asked, self._answered = f"asked/{role}/{fingerprint}", f"answers/{role}/{fingerprint}"
        self.spent = (0, 0)
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
        prompt_tokens = output_tokens = 0
        for path in self._files.paths(f"answers/{self._role}"):
            folder, _, name = path.rpartition("/")
            key, *tokens = name.removesuffix(".json").split("-")
            prompt_tokens, output_tokens = prompt_tokens + int(tokens[0]), output_tokens + int(tokens[1])
            if folder == self._answered:
                self._paths[key] = path
        self.spent = (prompt_tokens, output_tokens)

    def get(self, key: str) -> Answer | None:
        path = self._paths.get(key)
        found = self._files.get_json(path) if path else None
        return Answer(**found) if found else None

    def asking(self, key: str) -> None:
        """Note that the request is about to be sent."""
        self._files.put(f"{self._asked}/{key}", b"")

    def put(self, key: str, answer: Answer) -> None:
        """Keep the answer; when this returns, it is paid for the last time."""
        path = f"{self._answered}/{key}-{answer.prompt_tokens}-{answer.output_tokens}.json"
        self._files.put_json(path, asdict(answer))
        self._paths[key] = path
        self.not_answered(key)

    def not_answered(self, key: str) -> None:
        """The request ended, so it is no longer in doubt."""
        self._files.delete([f"{self._asked}/{key}"])
