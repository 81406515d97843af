"""What an erasure takes along: pure rules over one user's rows of one view. Rows in, rows out.

Evidence is the unit: turns are erased, and with them what rests on nothing else. A memory that rests on other
turns too loses the erased ones from its evidence and stays, unless its text uses a word that only erased text
accounts for; then that revision goes, and what it had taken the place of is open again. A memory that was
closed because of erased ones alone is open again as well: the view is to be as if they had never been said.

The latent memory of an evolvable embedder has read everything of its user: it goes, whatever of the user is
erased, and so do the vectors that were made with erased turns in it. The next backfill reads what is left.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.evolvable.turns import session_order

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


def erase(subject: Subject, rows: dict[str, list[dict]], *, evolvable: bool = False) -> dict[str, Erasure]:
    """The erasure for each table. `rows`: the user's rows of every table, but all rows of `rejections`.

    `evolvable`: the view's turns were embedded by an evolvable model.
    """
    found = {name: Erasure() for name in rows}
    for row in rows["turns"]:
        if subject.has_turn(row["session_id"], row["turn_index"]):
            found["turns"].deleted.append(row)
    found["states"].deleted = list(rows["states"])
    if evolvable:
        found["turns"].changed = list(_without_vectors(subject, rows["turns"]))
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
    for row in rows["rejections"]:
        own = row["user_id"] == subject.user_id and subject.has_session(row["session_id"])
        text = f"{row['raw']} {row['detail']}"
        # A row without a usable user may still have been this user's: then it shows the id, or the words.
        own |= subject.kind == "user" and row["user_id"] is None and repr(subject.user_id) in text
        if own or row["source"] in hurt or quotes(text, said):
            found["rejections"].deleted.append(row)
    return found


def _without_vectors(subject: Subject, turns: list[dict]) -> Iterator[dict]:
    """Turns that stay, but were read with erased ones, or behind them."""
    gone = [subject.has_turn(row["session_id"], row["turn_index"]) for row in turns]
    read = [session_order(row) for row in turns]
    first = min((order for order, is_gone in zip(read, gone, strict=True) if is_gone), default=None)
    for row, order, is_gone in zip(turns, read, gone, strict=True):
        if first is not None and not is_gone and order >= first:
            yield row | {"vector": None}


def quotes(text: str, said: list[str]) -> bool:
    """Whether a text contains one of these, of those that are long enough to tell."""
    return any(len(one) >= 16 and one in text for one in said)


def words(text: str) -> set[str]:
    """Words that can tell something: numbers, and words of three letters or more."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2 or word.isdigit()}


# --- records ------------------------------------------------------------------------------------------


def _records(subject: Subject, rows: dict[str, list[dict]]) -> Erasure:
    turns = {(row["session_id"], row["turn_index"]): row for row in rows["turns"]}
    split = {_key(row): _split(subject, row) for row in rows["records"]}
    gone_words, kept_words = set(), {}
    for place, turn in turns.items():
        if subject.has_turn(*place):
            gone_words |= words(turn["content"])
        else:
            kept_words[place] = words(turn["content"])
    for row in rows["records"]:
        gone, kept = split[_key(row)]
        if not kept:
            gone_words |= words(row["semantic_text"])
        elif not gone:
            for place in kept:
                kept_words[place] = kept_words.get(place, set()) | words(row["semantic_text"])
    result, standing = Erasure(), {}
    for row in rows["records"]:
        gone, kept = split[_key(row)]
        accounted = set().union(*(kept_words.get(place, set()) for place in kept))
        if not kept or (gone and words(row["semantic_text"]) & gone_words - accounted):
            result.deleted.append(row)
        else:
            standing[_key(row)] = _without(subject, row, kept, turns) if gone else row
    for key in _reopened(rows, result.deleted, standing):
        life = {"active": True, "closed_run_id": None, "closed_reason": None}
        standing[key] = standing[key] | life
    before = {_key(row): row for row in rows["records"]}
    result.changed = [row for key, row in standing.items() if row != before[key]]
    return result


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


def _without(subject: Subject, row: dict, kept: list, turns: dict) -> dict:
    """A record without the erased part of its evidence, at home where the rest of it was said."""
    text = row["semantic_text"].casefold()
    row = row | {
        "evidence": [{"session_id": session_id, "turn_index": index} for session_id, index in kept],
        "entities": [name for name in row["entities"] or [] if name.casefold() in text],
        "tags": [],
    }
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
        if closed_by_it and sources <= deleted_ids - newest.keys() and key[0] not in open_ids:
            reopened.add(key)
    return reopened
