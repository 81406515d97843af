"""What an erasure takes along: pure rules over one user's rows of one view. Rows in, rows out.

Evidence is the unit: turns are erased, and with them what rests on nothing else. A memory that rests on other
turns too loses the erased ones from its evidence and stays, unless its text uses a word that only erased text
accounts for; then that revision goes, and what it had taken the place of is open again. So does a memory that
rests on other turns of the session, where the encoder took such a word from the erased ones before them. A
memory that was closed because of erased ones alone is open again as well: the view is to be as if they had
never been said.

The latent memory of an evolvable embedder has read everything of its user: it goes, whatever of the user is
erased, and so do the vectors that were made with erased turns in it. The next backfill reads what is left.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cluster.embed.turn_embedder import EACH_ALONE, TurnEmbedder
from cluster.forget.words import Vocabulary, has_no_spaces, words
from schemas.record import extra_of

NO_DATES = {"t_ref": "", "t_valid_from": "", "t_valid_to": ""}


@dataclass(frozen=True)
class Subject:
    """What is to be forgotten: all of a user, one session, or one memory with the turns behind it."""

    user_id: str
    session_id: str | None = None
    record_id: str | None = None
    turns: frozenset[tuple[str, int]] = frozenset()
    """(session_id, turn_index) behind the memory."""

    @property
    def kind(self) -> str:
        return "memory" if self.record_id else "session" if self.session_id else "user"

    @property
    def option(self) -> str:
        """Name of the setting that names it."""
        return {"user": "user_id", "session": "session_id", "memory": "memory"}[self.kind]

    @property
    def id(self) -> str:
        return self.record_id or self.session_id or self.user_id

    def has_turn(self, session_id: str, turn_index: int) -> bool:
        if self.kind == "memory":
            return (session_id, turn_index) in self.turns
        return self.has_session(session_id)

    def has_session(self, session_id: str | None) -> bool:
        """Whether all of the session is to go."""
        return self.kind == "user" or (self.kind == "session" and session_id == self.session_id)


@dataclass
class Erasure:
    """Rows of one table in one view: keys to delete, and rows as they are to stand."""

    deleted: list[dict] = field(default_factory=list)
    changed: list[dict] = field(default_factory=list)


def erase(
    subject: Subject, rows: dict[str, list[dict]], embedder: TurnEmbedder = EACH_ALONE
) -> dict[str, Erasure]:
    """The erasure for each table. `rows`: the user's rows of every table, but all rows of `rejections`.

    `embedder` made the vectors of the view's turns.
    """
    found = {name: Erasure() for name in rows}
    is_gone = [subject.has_turn(row["session_id"], row["turn_index"]) for row in rows["turns"]]
    found["turns"].deleted = [row for row, gone in zip(rows["turns"], is_gone, strict=True) if gone]
    # A session that was never read has left nothing in a memory.
    if subject.kind == "user" or found["turns"].deleted:
        found["states"].deleted = list(rows["states"])
    touched = embedder.dependents(rows["turns"], is_gone)
    found["turns"].changed = [row | {"vector": None} for row in touched]
    found["records"] = _records(subject, rows)
    gone = {(row["record_id"], row["revision"]) for row in found["records"].deleted}
    made = {row["decision_id"] for row in found["records"].deleted} - {None}
    for row in rows["decisions"]:
        parties = [(row["target_id"], row["target_revision"])]
        parties += zip(row["source_ids"], row["source_revisions"], strict=True)
        if subject.kind == "user" or gone & set(parties) or row["decision_id"] in made:
            found["decisions"].deleted.append(row)
    hurt = {
        row["segment_id"]
        for row in rows["segments"]
        if any(
            row["session_id"] == s and row["first_turn"] <= i <= row["last_turn"] for s, i in subject.turns
        )
    }
    for row in rows["segments"]:
        if subject.has_session(row["session_id"]):
            found["segments"].deleted.append(row)
            hurt.add(row["segment_id"])
    said = [row["content"] for row in found["turns"].deleted]
    said += [row["semantic_text"] for row in found["records"].deleted]
    quotes = Quotes(said)
    for row in rows["rejections"]:
        if row["source"] in hurt or _is_own(subject, row) or _shows(subject, row, quotes):
            found["rejections"].deleted.append(row)
    return found


# --- rejections ---------------------------------------------------------------------------------------


def _is_own(subject: Subject, row: dict) -> bool:
    """Whether a rejection names the erased, in its columns or in what it shows: ids may be damaged."""
    if row["user_id"] not in (subject.user_id, None):
        return False
    shown = f"{row['raw']} {row['detail']}"
    if subject.kind == "user":
        return row["user_id"] is not None or _names(shown, "user_id", subject.user_id)
    if subject.kind == "session":
        return row["session_id"] == subject.session_id or (
            row["session_id"] is None and _names(shown, "session_id", subject.id)
        )
    return False


def _names(shown: str, column: str, value: str) -> bool:
    # An id that is a number in the archive is one without quotes.
    return repr(value) in shown or re.search(rf"'{column}': {re.escape(value)}[,}}]", shown) is not None


def _shows(subject: Subject, row: dict, quotes: "Quotes") -> bool:
    """Whether a rejection shows erased text. Of another user's, only what is long enough to tell counts."""
    shown = f"{row['raw']} {row['detail']}"
    is_of_another = row["user_id"] not in (subject.user_id, None)
    return quotes.whole_in(shown) if is_of_another else quotes.part_in(shown)


_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
_NUM_WORDS = 4
"""Consecutive words that tell a text from another one."""
_NUM_CHARS = 6
"""The same of a script without spaces, in characters."""
_MIN_CHARS = 16


class Quotes:
    """Erased texts, to be found in rows as Python shows them: escaped, redacted, cut off somewhere."""

    def __init__(self, said: list[str]):
        self._long = [text for text in map(_plain, said) if len(text) >= _MIN_CHARS]
        self._parts = {part for text in said for part in _parts(_plain(text))}

    def whole_in(self, shown: str) -> bool:
        """Whether one of the longer texts stands there whole."""
        plain = _plain(shown)
        return any(text in plain for text in self._long)

    def part_in(self, shown: str) -> bool:
        """Whether some consecutive words of one stand there; all of one that has fewer."""
        plain = f" {_plain(shown)} "
        return any(part in plain for part in self._parts)


def _plain(text: str) -> str:
    """Lower case, one space between words, escapes of a repr undone."""
    return " ".join(re.findall(r"\w+", _ESCAPE.sub(_unescaped, text).casefold()))


def _unescaped(match: re.Match) -> str:
    escape = match.group()[1:]
    if escape[0] in "xuU" and len(escape) > 1:
        code = int(escape[1:], 16)
        return chr(code) if code < 0x110000 else " "
    return " " if escape in "nrtvf" else escape


def _parts(plain: str) -> Iterator[str]:
    """What must stand in a text for it to quote this one. None of what is too short to tell anything."""
    listed = plain.split()
    if len(listed) >= _NUM_WORDS:
        for start in range(len(listed) - _NUM_WORDS + 1):
            yield f" {' '.join(listed[start : start + _NUM_WORDS])} "
    elif len(listed) > 1 and words(plain):
        yield f" {plain} "
    for word in listed:
        if has_no_spaces(word):
            yield from (word[start : start + _NUM_CHARS] for start in range(len(word) - _NUM_CHARS + 1))


# --- records ------------------------------------------------------------------------------------------


def _records(subject: Subject, rows: dict[str, list[dict]]) -> Erasure:
    turns = {(row["session_id"], row["turn_index"]): row for row in rows["turns"]}
    split = {_key(row): _split(subject, row) for row in rows["records"]}
    gone_words, kept_words = Vocabulary(), {}
    for place, turn in turns.items():
        if subject.has_turn(*place):
            gone_words.add(words(turn["content"]))
        else:
            kept_words[place] = words(turn["content"])
    overheard = Overheard(subject, rows)
    told = {_key(row): overheard.in_record(row) for row in rows["records"] if not split[_key(row)][0]}
    for row in rows["records"]:
        gone, kept = split[_key(row)]
        if not kept:
            gone_words.add(words(row["semantic_text"]))
        elif not gone and not told[_key(row)]:
            for place in kept:
                kept_words[place] = kept_words.get(place, set()) | words(row["semantic_text"])
    result, standing = Erasure(), {}
    for row in rows["records"]:
        gone, kept = split[_key(row)]
        own = words(row["semantic_text"])
        if gone:
            accounted = Vocabulary(word for place in kept for word in kept_words.get(place, ()))
            is_telling = any(word in gone_words and word not in accounted for word in own)
        else:
            is_telling = bool(told[_key(row)] & own)
        if is_telling or not kept:
            result.deleted.append(row)
        else:
            standing[_key(row)] = (
                _without(subject, row, kept, turns, accounted) if gone else overheard.without(row)
            )
    for key in _reopened(rows, result.deleted, standing):
        life = {"active": True, "closed_run_id": None, "closed_reason": None}
        standing[key] = standing[key] | life
    before = {_key(row): row for row in rows["records"]}
    result.changed = [row for key, row in standing.items() if row != before[key]]
    return result


class Overheard:
    """What an encoder may have taken from erased turns into memories that rest on other turns.

    It reads the turns of a session up to the end of a segment, and so does a memory of that segment: a word
    there that only erased ones of these turns say comes from them. Whole sessions leave nothing to overhear.
    """

    def __init__(self, subject: Subject, rows: dict[str, list[dict]]):
        self._gone: dict[str, list[tuple[int, set[str]]]] = {}
        self._kept: dict[str, Vocabulary] = {}
        if subject.kind == "memory":
            for row in rows["turns"]:
                session_id, index = place = row["session_id"], row["turn_index"]
                if subject.has_turn(*place):
                    self._gone.setdefault(session_id, []).append((index, words(row["content"])))
                else:
                    self._kept.setdefault(session_id, Vocabulary()).add(words(row["content"]))
        self._last_turns = {row["segment_id"]: row["last_turn"] for row in rows["segments"]}

    def in_record(self, row: dict) -> set[str]:
        """Words of a record that it can only have from erased turns."""
        values = extra_of(row.get("extra")).values()
        text = " ".join([row["semantic_text"], *(row["entities"] or []), *(row["tags"] or []), *values])
        sessions = {item["session_id"] for item in row["evidence"] or []} | {row["session_id"]}
        if not sessions & self._gone.keys():
            return set()
        last = self._last_turns.get(row["segment_id"], math.inf)
        gone = Vocabulary(
            word
            for session_id in sessions
            for index, said in self._gone.get(session_id, ())
            if index <= last or session_id != row["session_id"]
            for word in said
        )
        kept = [self._kept[session_id] for session_id in sessions & self._kept.keys()]
        return {
            word
            for word in words(text)
            if word in gone and not any(word in vocabulary for vocabulary in kept)
        }

    def without(self, row: dict) -> dict:
        """A record that stays, without entities, tags and values of extra fields that use such words."""
        if not (told := self.in_record(row)):
            return row
        row = row | {
            name: [one for one in row[name] or [] if not told & words(one)] for name in ("entities", "tags")
        }
        return _with_values(row, lambda value: not told & words(value))


def _key(row: dict) -> tuple[str, int]:
    return row["record_id"], row["revision"]


def _split(subject: Subject, row: dict) -> tuple[list, list]:
    """Evidence that is to go, and that stays. What names no evidence rests on its whole session."""
    if row["record_id"] == subject.record_id or subject.kind == "user":
        return [None], []
    places = [(item["session_id"], item["turn_index"]) for item in row["evidence"] or []]
    if not places:
        return ([None], []) if subject.has_session(row["session_id"]) else ([], [(row["session_id"], -1)])
    gone = [place for place in places if subject.has_turn(*place)]
    return gone, [place for place in places if place not in gone]


def _with_values(row: dict, is_kept: Callable[[str], bool]) -> dict:
    """A record with those values of extra fields alone."""
    if not (values := extra_of(row.get("extra"))):
        return row
    return row | {"extra": [(name, value) for name, value in values.items() if is_kept(value)] or None}


def _without(subject: Subject, row: dict, kept: list, turns: dict, accounted: Vocabulary) -> dict:
    """A record without the erased part of its evidence, at home where the rest of it was said. Of its extra
    fields those stay whose words are `accounted` for."""
    text = row["semantic_text"].casefold()
    row = row | {
        "evidence": [{"session_id": session_id, "turn_index": index} for session_id, index in kept],
        "entities": [name for name in row["entities"] or [] if name.casefold() in text],
        "tags": [],
    }
    row = _with_values(row, lambda value: accounted.tells(words(value)))
    home = turns.get(kept[-1])
    if subject.has_session(row["session_id"]):
        # Dates and place may have come from the erased session; a vector of the same text did not.
        names = ("segment_id", "conversation_id", "session_time")
        row |= {name: home[name] if home else None for name in names}
        row |= {"session_id": kept[-1][0], "temporal": NO_DATES}
    return row


def _reopened(rows: dict[str, list[dict]], deleted: list[dict], standing: dict) -> set[tuple[str, int]]:
    """Keys of closed records that stand again."""
    newest: dict[str, int] = {}
    for record_id, revision in standing:
        newest[record_id] = max(revision, newest.get(record_id, 0))
    open_ids = {row["record_id"] for row in standing.values() if row["active"]}
    lost = {row["record_id"] for row in deleted if row["active"]}
    reopened = {(record_id, newest[record_id]) for record_id in lost & newest.keys()}
    deleted_ids = {row["record_id"] for row in deleted}
    for row in rows["decisions"]:
        key = (row["target_id"], row["target_revision"])
        closed_by_it = (
            row["outcome"] == "applied"
            and key in standing
            and newest[key[0]] == key[1]
            and not standing[key]["active"]
            and standing[key]["closed_reason"] in ("delete", "unite")
        )
        sources = set(row["source_ids"])
        # A person needs none to close a memory: it stays closed, whatever else goes.
        if closed_by_it and sources and sources <= deleted_ids - newest.keys() and key[0] not in open_ids:
            reopened.add(key)
    return reopened
