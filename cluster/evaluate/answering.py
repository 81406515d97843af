"""Chat messages in, answers out: a model as it is served, for measuring it."""

import functools
import json
import time

from cluster.models.engine import Reply, Request, VllmEngine
from cluster.models.prompt import as_prompt
from schemas.profile import ModelProfile


class Answering:
    """Actor: {batch} -> {replies, seconds} as JSON. The model is loaded with the first batch.

    `conversations` is a Ray reference to batches of conversations, each a list of `{role, content}` or, where
    a prompt may be too long, several of them, longest first: the first that fits is asked. None fits: the
    reply is empty and not complete.
    """

    def __init__(self, profile: ModelProfile, schema: str | None, engine: dict, conversations):
        self._profile, self._schema, self._conversations = profile, schema, conversations
        # Loading waits for work.
        self._load = functools.cache(functools.partial(VllmEngine, profile, **engine))

    def __call__(self, row: dict) -> dict:
        import ray

        engine = self._load()
        limit = self._profile.max_model_len - self._profile.max_tokens
        replies, asked, requests = [], [], []
        for candidates in ray.get(self._conversations)[row["batch"]]:
            ids = fitting(candidates, engine.tokenizer, limit)
            replies.append(Reply("", False, 0, 0, 0))
            if ids is not None:
                asked.append(len(replies) - 1)
                requests.append(Request(ids, self._schema))
        started_s = time.monotonic()
        for number, reply in zip(asked, engine.generate(requests) if requests else [], strict=True):
            replies[number] = reply
        result = {"replies": [vars(reply) for reply in replies], "seconds": time.monotonic() - started_s}
        return {"batch": row["batch"], "result": json.dumps(result)}


def fitting(candidates: list[list[dict]], tokenizer, limit: int) -> list[int] | None:
    """Token ids of the first conversation of at most `limit` tokens; None where all are longer."""
    for messages in candidates:
        ids = as_prompt(messages, tokenizer)
        if len(ids) <= limit:
            return ids
    return None
