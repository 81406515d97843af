"""A language model behind an OpenAI-compatible endpoint, as an engine.

The client library backs off on 429, 5xx, time-outs and lost connections, and waits as long as a Retry-After
says.
"""

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.models.asking import TOO_LONG, Answer, Request
from cluster.store.crash_markers import WorkerSick
from schemas.endpoint import EndpointConfig

if TYPE_CHECKING:
    import httpx
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

CHARS_A_TOKEN = 3
"""For reserving a prompt's price before it is known; English has about four."""

_FILTERED = re.compile(r"content.?(?:filter|policy|management)|safety|moderation", re.IGNORECASE)
"""How endpoints say that they do not like what a prompt is about."""


def is_odd(answer: Answer) -> bool:
    """Whether what was refused is not this request but the way in which all are made."""
    return answer.is_unread and not (TOO_LONG.search(answer.refusal) or _FILTERED.search(answer.refusal))


class EndpointError(WorkerSick):
    """The endpoint cannot be used as configured, or is gone. What it answered before is kept."""


class Unanswered(RuntimeError):
    """The endpoint fails at a request, while it may answer others.

    `is_gone`: nobody can have an answer now, for there is no connection, no time, 429, 502 and the like; a
    500 may be the fault of the one request. `is_in_doubt`: the server may have answered, and charged it.
    """

    def __init__(self, text: str, *, is_gone: bool = False, is_in_doubt: bool = False):
        super().__init__(text)
        self.is_gone, self.is_in_doubt = is_gone, is_in_doubt


class Endpoint:
    """A model behind an endpoint, which several threads may ask at a time. Its requests have chat messages.

    `on_retry` is called for each 429 and 5xx that is seen.
    """

    tokenizer = None

    def __init__(self, config: EndpointConfig):
        self.config = config
        self.on_retry: Callable[[], None] = lambda: None

    @functools.cached_property
    def client(self) -> "OpenAI":
        import openai

        return openai.OpenAI(
            base_url=self.config.base_url,
            api_key=os.environ.get(self.config.api_key_env) or "none",
            timeout=self.config.timeout_s,
            max_retries=self.config.max_retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [self._see]}),
        )

    def _see(self, response: "httpx.Response") -> None:
        if response.status_code == 429 or response.status_code >= 500:
            self.on_retry()
        response.read()
        check_whole(response)

    def generate(self, requests: list[Request]) -> list[Answer]:
        """Answers in order, one asked for after the other; refusals among them.

        Unanswered when it fails at one; EndpointError when it refuses the key or the model, or is not an
        endpoint.
        """
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Answer:
        import openai

        where = f"{self.config.base_url}, model {self.config.model!r}"
        try:
            # A server that knows such keys charges a repeated request once.
            done = self.client.chat.completions.create(
                **self.body(request),
                extra_body=self.config.extra_body or None,
                extra_headers={"Idempotency-Key": request.key},
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Answer("", refusal=short(error))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise EndpointError(
                f"{where}: {short(error)}; check base_url, model and the key in {self.config.api_key_env}; "
                "workers of a running cluster have it where pass_env of [cluster] names it"
            ) from None
        except openai.OpenAIError as error:
            raise Unanswered(
                short(error),
                is_gone=getattr(error, "status_code", None) != 500,
                # After a time-out or a lost connection the server may have answered all the same.
                is_in_doubt=isinstance(error, openai.APIConnectionError),
            ) from None
        if answer := read_completion(done, estimated_tokens(request.messages)):
            return answer
        raise EndpointError(
            f"{self.config.base_url}: it answers, but not with a chat completion; check base_url, which "
            "often ends in /v1"
        )

    def at_most(self, request: Request, *, in_batch: bool = False) -> tuple[int, float]:
        """Tokens and money that a request may cost."""
        most = (estimated_tokens(request.messages), request.max_tokens)
        return sum(most), self.config.cost(*most, in_batch=in_batch)

    def refuses_all(self, refusal: str) -> EndpointError:
        """What a refusal says of the settings, where no request was answered."""
        return EndpointError(
            f"{self.config.base_url}, model {self.config.model!r}: it refuses what is asked, with {refusal}; "
            "check model, response_format, schema_bounds, token_limit_field and extra_body of its table, as "
            "[endpoint]"
        )

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent, without the fields that only this endpoint knows."""
        sent: dict[str, Any] = {
            "model": self.config.model,
            "messages": request.messages,
            "temperature": self.config.temperature,
            self.config.token_limit_field: request.max_tokens,
        }
        if request.schema and self.config.response_format != "none":
            sent["response_format"] = self._format(json.loads(request.schema))
        return sent

    def _format(self, schema: dict) -> dict:
        if self.config.response_format == "json_object":
            return {"type": "json_object"}
        schema = schema if self.config.schema_bounds else without_bounds(schema)
        return {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }


def read_completion(done: "ChatCompletion", prompt_tokens: int) -> Answer | None:
    """The answer in what came; None where that is no chat completion. `prompt_tokens` is believed where the
    server does not say what it counts, so that a cap holds there, too."""
    if not getattr(done, "choices", None):
        return None
    choice, usage = done.choices[0], done.usage
    text = choice.message.content or ""
    return Answer(
        text=text,
        complete=choice.finish_reason != "length",
        prompt_tokens=usage.prompt_tokens if usage else prompt_tokens,
        output_tokens=usage.completion_tokens if usage else len(text) // CHARS_A_TOKEN + 1,
        refusal=choice.message.refusal or "",
    )


def check_whole(response: "httpx.Response") -> None:
    """Raise, as for a lost connection, where the answer that was read ends too early. Where a server or a
    proxy closes the connection to end an answer, nothing else tells that from a whole one."""
    if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
        return
    try:
        json.loads(response.content)
    except ValueError:
        # The client library tries again after errors of its own HTTP library, of which there are two.
        library = sys.modules[type(response).__module__.partition(".")[0]]
        raise library.RemoteProtocolError("the answer ends too early", request=response.request) from None


BOUNDS = frozenset(
    ("minLength", "maxLength", "pattern", "minItems", "maxItems", "minimum", "maximum", "default")
)
"""Keywords of a JSON schema that strict endpoints may not know."""


def without_bounds(schema: Any) -> Any:
    """A JSON schema with BOUNDS left out and a type beside every enum, as such endpoints want it."""
    if isinstance(schema, list):
        return [without_bounds(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: without_bounds(item) for name, item in value.items()}
        elif key not in BOUNDS:
            found[key] = value if key in ("enum", "const") else without_bounds(value)
    if "enum" in found and all(isinstance(item, float | int) for item in found["enum"]):
        found.setdefault("type", "number")
    return found


def estimated_tokens(messages: list[dict]) -> int:
    """Tokens of a prompt whose tokenizer is not here."""
    return sum(len(message["content"]) for message in messages) // CHARS_A_TOKEN


def short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
