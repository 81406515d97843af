"""What must not be learned from: sessions of evaluation sets, and sessions that a file names.

A session leaks when an evaluation set has its id, or any of its turns word for word. Ids alone would miss a
set that was ingested under other names; text alone would miss an edited turn.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.common.cli import UsageError
from jobs.common.input_items import read_all_items

MIN_CHARS = 40
"""Shorter turns ("Thanks, that helps!") are everybody's and prove nothing."""

_REPEATED = re.compile(r"#\d+$")
"""What jobs.ingest appends to a session id that is twice in one history."""


@dataclass(frozen=True)
class Leaks:
    """Callable on an archive row: the reason why the session is left out, empty where it is not."""

    ids: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    """(user, session), where a session's id means nothing without its user."""
    texts: frozenset[bytes]
    excluded: frozenset[str]

    def __call__(self, session: dict) -> str:
        session_id = session["session_id"]
        names = {session_id, _REPEATED.sub("", session_id)}
        if names & self.excluded:
            return "excluded"
        if names & self.ids or (session["user_id"], session_id) in self.pairs:
            return "leaked_session_id"
        if self.texts and any(text_key(turn["content"]) in self.texts for turn in session["turns"]):
            return "leaked_turn_text"
        return ""


def text_key(text: str) -> bytes:
    """16 bytes for a turn's words; no key, which no set has, for a turn that is too short."""
    plain = " ".join(text.casefold().split())
    return (
        hashlib.blake2b(plain.encode(errors="replace"), digest_size=16).digest()
        if len(plain) >= MIN_CHARS
        else b""
    )


def read_leaks(evaluation_sets: tuple[str, ...], excluded: str | None) -> Leaks:
    """LongMemEval or LoCoMo files (JSON or JSON lines, plain or gzip), archives; UsageError names others."""
    ids: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    texts: set[bytes] = set()
    for given in evaluation_sets:
        for user_id, session_id, contents in _sessions(given):
            if user_id is None:
                ids.add(session_id)
            else:
                pairs.add((user_id, session_id))
            texts.update(map(text_key, contents))
    names = set()
    if excluded:
        try:
            lines = Path(excluded).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--exclude-sessions {excluded}: {error}; give a text file, one session id a line"
            ) from None
        names = {line.strip() for line in lines if line.strip()}
    return Leaks(frozenset(ids), frozenset(pairs), frozenset(texts - {b""}), frozenset(names))


def _sessions(given: str) -> Iterator[tuple[str | None, str, list[str]]]:
    """(user or None, session id, texts of its turns) of an evaluation set."""
    if "://" in given or Path(given).is_dir():
        yield from _archive(given)
        return
    known = False
    for item in read_all_items(given, "--leak-check"):
        if isinstance(item.get("haystack_sessions"), list):
            known = True
            for session_id, turns in zip(
                item["haystack_session_ids"], item["haystack_sessions"], strict=True
            ):
                yield None, str(session_id), [str(turn.get("content", "")) for turn in turns]
        elif isinstance(item.get("conversation"), dict):
            known = True
            for name, turns in item["conversation"].items():
                if isinstance(turns, list):
                    yield str(item.get("sample_id")), name, [str(turn.get("text", "")) for turn in turns]
        else:
            raise UsageError(
                f"--leak-check {given}: an item has neither haystack_sessions nor conversation; give a "
                "LongMemEval or LoCoMo file, or an archive"
            )
    if not known:
        raise UsageError(f"--leak-check {given}: holds no items; a check against nothing would prove nothing")


def _archive(uri: str) -> Iterator[tuple[str, str, list[str]]]:
    from cluster.backfill.archive import ArchiveError, read_sessions

    try:
        for row in read_sessions(uri):
            yield row["user_id"], row["session_id"], [turn["content"] for turn in row["turns"]]
    except ArchiveError as error:
        raise UsageError(str(error).replace("--archive", "--leak-check")) from None
