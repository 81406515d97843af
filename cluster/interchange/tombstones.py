"""Tombstones: what a receiver has to delete of an export because it was erased here, in its own terms.

A line of JSON each. Formats with ids of their own get the lines of `closed.jsonl`; the others say which file,
folder or document it is:

    jsonl, parquet, mem0, cogx, langgraph, lychee, lightmem
                                             {"user_id", "record_id", "id", "closed_reason": "forgotten"}
    markdown, letta                          {"path"}, of one memory also its "line"
    hindsight                                {"bank"}, of a session or memory also its "document_id"
"""

from collections.abc import Callable, Iterable, Iterator

from cluster.forget.exports import FORGOTTEN, Erased, Exported, plain_lines, tombstone
from cluster.interchange.export import memory_of_row
from cluster.interchange.files import name_of_user
from cluster.interchange.formats import WRITERS
from cluster.interchange.letta import FOLDER
from cluster.interchange.markdown import line_of
from cluster.runtime.entry_points import EntryPointError
from schemas.exchange import Memory

Lines = Callable[[Erased, Exported], Iterable[dict]]


def tombstones(erased: Erased, sent: Iterable[Exported], run_id: str, folder: str | None) -> list[dict]:
    """Those of all exports that may hold anything of what is erased, as an intent has them. They go beside
    each export, or into `folder`."""
    found = []
    for one in sent:
        if one.has(erased.subject.user_id):
            lines = list(LINES.get(one.format, _by_id)(erased, one))
            if lines:
                found.append(tombstone(one, run_id, folder, lines))
    return found


def _memories(erased: Erased, one: Exported) -> list[Memory]:
    """Revisions of erased memories that were in an export, each once."""
    rows = {(row["record_id"], row["semantic_text"]): row for row in erased.records_as_of(one.as_of)}
    return [memory_of_row(row) for _, row in sorted(rows.items())]


def _by_id(erased: Erased, one: Exported) -> Iterator[dict]:
    try:
        writer = WRITERS.get(one.format)
    except EntryPointError:
        # What another distribution no longer adds as it should holds up no erasure.
        writer = None
    memories, seen = _memories(erased, one), set[str]()
    if writer is None or writer.identify is None:
        yield from plain_lines(erased.subject, {memory.identity for memory in memories})
        return
    for memory in memories:
        if (own_id := writer.identify(memory)) not in seen:
            seen.add(own_id)
            names = {"user_id": memory.user_id, "record_id": memory.record_id, "id": own_id}
            yield names | {"closed_reason": FORGOTTEN}


def _by_line(path_of: Callable[[Memory], str], of_user: Callable[[str], str]) -> Lines:
    def lines(erased: Erased, one: Exported) -> Iterator[dict]:
        memories = _memories(erased, one)
        if erased.subject.kind == "user":
            if memories:
                yield {"path": of_user(erased.subject.user_id), "closed_reason": FORGOTTEN}
            return
        for memory in memories:
            line = line_of(memory).removesuffix("\n")
            yield {"path": path_of(memory), "line": line, "closed_reason": FORGOTTEN}

    return lines


def _hindsight(erased: Erased, one: Exported) -> Iterator[dict]:
    bank, memories = erased.subject.user_id, _memories(erased, one)
    # A document holds what was said in its session, too.
    documents = {memory.session_id or memory.identity for memory in memories}
    documents |= {turn["session_id"] for turn in erased.turns_as_of(one.as_of)}
    if erased.subject.kind == "user":
        if documents:
            yield {"bank": bank, "closed_reason": FORGOTTEN}
        return
    for document in sorted(documents):
        yield {"bank": bank, "document_id": document, "closed_reason": FORGOTTEN}


def _letta_file(memory: Memory) -> str:
    return f"{name_of_user(memory.user_id)}/{FOLDER}/{memory.memory_type}.md"


LINES: dict[str, Lines] = {
    "markdown": _by_line(
        lambda memory: f"{name_of_user(memory.user_id)}.md", lambda user: f"{name_of_user(user)}.md"
    ),
    "letta": _by_line(_letta_file, lambda user: f"{name_of_user(user)}/"),
    "hindsight": _hindsight,
}
"""Formats whose receivers have no ids of memories."""
