"""Query: finds the memories of a user that answer a question.

    python -m jobs.query --store URI --user-id U --text "where do I live?" -k 10
    python -m jobs.query --store URI --user-id U --text "..." --kind record
    python -m jobs.query --store URI --user-id U --text "..." --at 2025-03-01
    python -m jobs.query --store URI --user-id U --text "..." --as-of RUN --json

Searches a user's memory records and raw turns by vectors and full text; each hit names the session and turn
that it comes from. `--kind` restricts the search to one of the two. `--at` answers by what was true on a day,
`--as-of` by what was known when a run had ended. A question about the past ("where did I live before?") also
finds memories that were replaced. Needs no Ray. Only the named user's rows are read.
"""

import datetime as dt
from typing import Any, Literal

from pydantic import Field

from cluster.runtime.shown import one_line
from jobs.common.cli import JobError, main, show
from jobs.common.run import StoreConfig, absolute, named_embedder, reranker_of
from schemas.archive import who
from schemas.record import shown_extra


class QueryConfig(StoreConfig):
    """Settings of a query."""

    user_id: str
    """Whose memories."""
    text: str = Field(min_length=1)
    """The question."""
    k: int = Field(10, ge=1, le=1000, json_schema_extra={"short": "-k"})
    """How many hits."""
    kind: Literal["record", "turn"] | None = None
    """Restrict the search to records or to turns. Not given: both."""
    as_of: str | None = None
    """Search the store as this run left it; the beginning of its id is enough."""
    at: dt.date | None = None
    """The day that the answer is about (YYYY-MM-DD): what was true then, and what had been said by then. Not
    given: now."""
    asked_on: dt.date | None = None
    """The day that "last week" and the like refer to. Not given: the day of --at, or today."""
    reranker: str | None = None
    """A cross-encoder of sentence-transformers (hub id or folder) that reads the best hits once more. Not
    given: none."""
    embedder: str | None = None
    """Load the store's embedder from this profile, if it is no longer where the store says: a name in
    cluster/profiles/embedders, or a TOML file."""
    as_json: bool = Field(False, json_schema_extra={"short": "--json"})
    """Put the hits with all columns into the summary."""


SHOWN_ID = 12
"""Characters of a memory's id in a hit: jobs.history takes the beginning of an id."""


def run(config: QueryConfig) -> dict:
    """Print the hits on stdout, best first, and return the summary."""
    from cluster.backfill.redact import shown_rows
    from cluster.memory import Memories
    from cluster.models.sources import ModelError
    from cluster.store.errors import StoreError

    models: dict[str, Any] = {
        "embedder": named_embedder(config.embedder),
        "reranker": reranker_of(config.reranker),
    }
    asked = config.model_dump(include={"text", "k", "kind", "at", "asked_on"})
    try:
        with Memories(absolute(config.store), **models) as memories:
            as_of = memories.known_run(config.as_of)
            found = memories.search(config.user_id, **asked, as_of=as_of)
    except (ModelError, StoreError) as error:
        raise JobError(str(error)) from error
    hits = shown_rows([dict(hit.row) for hit in found])
    if not config.as_json:
        for hit in hits:
            show(one_line(line(hit)))
    return {
        "status": "done",
        "store": config.store,
        "as_of": as_of,
        "num_hits": len(hits),
        **({"hits": hits} if config.as_json else {}),
    }


def line(hit: dict) -> str:
    """One hit for a person: what, from where, and of a record as much of its id as jobs.history needs."""
    day = hit["session_time"].date().isoformat() if hit["session_time"] else "no date"
    if hit["kind"] == "record":
        turns = ", ".join(f"{item['session_id']}#{item['turn_index']}" for item in hit["evidence"])
        day += f", until {hit['until']}" if hit.get("until") and hit.get("replaced_by") else ""
        before = f"  (before: {hit['replaces'][0]['text']})" if hit.get("replaces") else ""
        extra = f"  ({shown_extra(hit['extra'])})" if hit.get("extra") else ""
        said = f"{hit['memory_type']:12} {hit['semantic_text']}{extra}{before}"
        name = f"  {hit['record_id'][:SHOWN_ID]}" if "record_id" in hit else ""
        return f"{hit['score']:.4f}  {said}  [{day}, from {turns}]{name}"
    text = " ".join(hit["content"].split())
    text = text if len(text) <= 160 else text[:157] + "..."
    place = f"{hit['session_id']}#{hit['turn_index']}"
    return f"{hit['score']:.4f}  {'turn':12} {who(hit)}: {text}  [{day}, {place}]"


if __name__ == "__main__":
    main(QueryConfig, run, __doc__)
