"""A provider's batch API, in OpenAI's format: files of requests, batches of them, files of answers."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cluster.models.asking import Answer
from cluster.models.endpoint import Endpoint, read_completion

if TYPE_CHECKING:
    from openai.types import Batch

URL: Final = "/v1/chat/completions"
"""What every request of a batch is for."""

ENDED = frozenset(("completed", "expired", "cancelled", "failed"))
"""What a batch stays in. The others are validating, in_progress, finalizing and cancelling."""

A_DAY_S = 86_400.0
"""How far the clocks of provider and run may be apart."""


@dataclass(frozen=True)
class SentBatch:
    """The note on a batch that is, or may be, at the provider."""

    name: str
    """Ours: of its file, and in its metadata."""
    noted_at: float
    """Seconds since 1970."""
    requests: dict[str, int]
    """Key -> tokens of its prompt, estimated."""
    tokens: int
    cost: float
    """What it may cost at most."""
    file_id: str = ""
    """Of its requests at the provider."""
    batch_id: str = ""
    left: list[str] | None = None
    """Files at the provider that are to be deleted; None as long as answers may be missing in the ledger."""

    @property
    def file_name(self) -> str:
        return f"slowwave-{self.name}.jsonl"


class Provider:
    """The batch API. Its methods try again as the client library does, but `upload` and `create`, which send
    once. What fails raises an error of that library."""

    def __init__(self, endpoint: Endpoint):
        self._window = endpoint.config.batch_window
        self._client = endpoint.client
        self._once = self._client.with_options(max_retries=0)

    def upload(self, sent: SentBatch, data: bytes) -> str:
        """Id of the file of requests."""
        return self._once.files.create(file=(sent.file_name, data), purpose="batch").id

    def uploaded(self, sent: SentBatch) -> list[str]:
        """Ids of files that were uploaded for this batch."""
        found = []
        for file in self._client.files.list(purpose="batch"):
            if file.filename == sent.file_name:
                found.append(file.id)
            if file.created_at < sent.noted_at - A_DAY_S:
                break
        return found

    def create(self, sent: SentBatch) -> str:
        """Id of the batch."""
        window: Any = self._window
        return self._once.batches.create(
            input_file_id=sent.file_id,
            endpoint=URL,
            completion_window=window,
            metadata={"slowwave": sent.name},
            extra_headers={"Idempotency-Key": sent.name},
        ).id

    def created(self, sent: SentBatch) -> str:
        """Id of the batch that was created of the file; empty where there is none."""
        for batch in self._client.batches.list():
            if batch.input_file_id == sent.file_id or (batch.metadata or {}).get("slowwave") == sent.name:
                return batch.id
            if batch.created_at < sent.noted_at - A_DAY_S:
                break
        return ""

    def look(self, sent: SentBatch) -> "Batch":
        return self._client.batches.retrieve(sent.batch_id)

    def cancel(self, sent: SentBatch) -> None:
        import openai

        # One that has ended cannot be cancelled.
        with contextlib.suppress(openai.BadRequestError, openai.ConflictError):
            self._client.batches.cancel(sent.batch_id)

    def lines(self, file_id: str) -> Iterator[dict]:
        """The JSON objects of a file; other lines are left out."""
        for line in self._client.files.content(file_id).content.splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(found := json.loads(line), dict):
                    yield found

    def delete(self, file_id: str) -> None:
        """Delete a file; one that is gone is no error."""
        import openai

        with contextlib.suppress(openai.NotFoundError):
            self._client.files.delete(file_id)


def read_line(line: dict, prompt_tokens: int) -> tuple[Answer | None, str]:
    """The answer or the refusal in a line of a batch's output; None, and why, where there is neither."""
    from openai.types.chat import ChatCompletion

    response = line.get("response") or {}
    status, body = response.get("status_code"), response.get("body")
    body = body if isinstance(body, dict) else {}
    if status == 200:
        return read_completion(ChatCompletion.construct(**body), prompt_tokens), "no chat completion"
    error = body.get("error") or line.get("error") or {}
    said = error.get("message") or error.get("code") if isinstance(error, dict) else str(error)
    if status in (400, 422):
        return Answer("", refusal=f"{status}: {said}"), ""
    return None, f"{status or 'no answer'}: {said}"


def may_pass(error: Exception) -> bool:
    """Whether the same may succeed later: no connection, no time, 408, 409, 429 and 5xx."""
    import openai

    status = getattr(error, "status_code", None)
    return isinstance(error, openai.APIConnectionError) or status in (408, 409, 429) or (status or 0) >= 500


def retry_after(error: Exception, attempt: int) -> float:
    """Seconds until the next attempt: what the provider says, else more each time."""
    response = getattr(error, "response", None)
    said = response.headers.get("retry-after", "") if response is not None else ""
    try:
        return min(float(said), 60.0)
    except ValueError:
        return min(0.5 * 2.0**attempt, 60.0)
