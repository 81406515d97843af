"""Users' turns through an evolvable embedder: one memory a user, which the store keeps from run to run.

All sessions of a user, in the order of their time, are one conversation: questions are asked of a user, so
one memory has to serve them, whichever session the answer stands in. A turn has the vector of the exchange
that it is a part of, made with the memory of what was said before. Turns at the end go on from the stored
memory; where a turn was edited, removed, or came late, everything behind it is embedded again. A user whose
turns cannot be embedded costs that user: the turns are stored without vectors, and tried again by the next
backfill.
"""

import functools
import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cluster.evolvable.state import State
from cluster.evolvable.tokens import Exchange, exchanges_of
from cluster.models.sources import model_folder
from cluster.store.crash_markers import Attempts
from cluster.store.files import Files
from cluster.store.sql import in_lists
from cluster.store.staging import Sealed, key_of, known_columns
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile, EvolvableProfile
from schemas.stage_items import UnreadUser, UsersRead, UsersToRead
from schemas.store import STATES_SCHEMA, turns_schema

if TYPE_CHECKING:
    from cluster.evolvable.embedder import EvolvableEmbedder

_FAILED = pa.schema([("user_id", pa.string()), ("detail", pa.string())])
"""Users whose turns could not be embedded, and why."""

_COLUMNS = [name for name in turns_schema(1).names if name not in ("vector", "embedder")]
_LIFE = ("active", "run_id", "closed_run_id")


def load_evolvable(profile: EvolvableProfile) -> "EvolvableEmbedder":
    """The loaded model."""
    from cluster.evolvable.embedder import EvolvableEmbedder

    batching = profile.model_dump(include={"max_active", "memory_tokens", "retriever_tokens"})
    return EvolvableEmbedder.load(
        model_folder(profile.model, profile.revision), base=profile.base, **batching
    )


def read_states(store: Store, user_ids: Sequence[str], as_of: str | None = None) -> dict[str, State]:
    """Memories of these users in a view; a user whose turns have not been read has none."""
    states = {}
    for where in in_lists("user_id", user_ids):
        table = store.rows("states", STATES_SCHEMA.names, f"num_turns > 0 AND {where}", as_of)
        if table.num_rows:
            # Latents are too many numbers for Python's.
            latents = table.column("latents")
            for index, row in enumerate(table.drop_columns("latents").to_pylist()):
                row["latents"] = latents[index].values.to_numpy()
                states[row["user_id"]] = State.from_row(row)
    return states


# --- a user's conversation ----------------------------------------------------------------------------


def session_order(row: dict) -> tuple[float, str]:
    """Sort key of sessions as they are read: by time, undated ones first, then by id."""
    moment = row["session_time"]
    return (moment.timestamp() if moment else float("-inf"), row["session_id"])


def in_order(rows: Iterable[dict]) -> list[dict]:
    """One user's turns as they are read."""
    return sorted(rows, key=lambda row: (*session_order(row), row["turn_index"]))


def exchanges_of_turns(turns: Sequence[dict]) -> tuple[list[Exchange], list[int]]:
    """A user's turns in order -> exchanges, none across sessions, and for each turn the number of its own."""
    exchanges: list[Exchange] = []
    numbers: list[int] = []
    for _, session in itertools.groupby(turns, key=session_order):
        found, within = exchanges_of(session)
        numbers += [len(exchanges) + number for number in within]
        exchanges += found
    return exchanges, numbers


@dataclass(frozen=True)
class UserTurns:
    """One user's turns as they are to stand after the run, in order, and what the store has of them."""

    user_id: str
    turns: list[dict]
    """Rows without what the commit fills in, and without vectors."""
    new_ids: frozenset[str]
    """Turns among them that this run brings."""
    state: State | None
    """As the store has it."""

    @functools.cached_property
    def exchanges(self) -> tuple[list[Exchange], list[int]]:
        return exchanges_of_turns(self.turns)

    @property
    def true_state(self) -> State | None:
        """The stored state if everything that it has read still stands as it was."""
        unchanged = self.state.num_unchanged(self.exchanges[0]) if self.state else -1
        return self.state if self.state and unchanged == self.state.num_turns else None


# --- the stage ----------------------------------------------------------------------------------------


MAX_DETAIL_CHARS = 500
"""Of what went wrong with a user, this much is kept."""


class TurnStage:
    """Actor: users -> `turns/EMBEDDER/HASH/`: turns with new vectors, changed memories, who failed.

    HASH is of all that they are made from: what a killed run has staged is good for any later one that wants
    the same.

    With `anew`, all rows of the users are read out of the store and staged
    complete, closed ones without vectors, since no memory has seen these; stored memories count for nothing.
    """

    def __init__(self, uri: str, profile: EmbedderProfile, files: Files, attempt: str, *, anew: bool = False):
        self._store, self._profile, self._files = Store(uri, must_exist=False), profile, files
        self._attempt = attempt
        self._sealed = Sealed(files, f"turns/{profile.fingerprint}")
        self._anew, self._columns = anew, [name for name in _COLUMNS if anew or name not in _LIFE]

    @functools.cached_property
    def _embedder(self) -> "EvolvableEmbedder":
        """Loading waits for work."""
        assert self._profile.turns is not None
        return load_evolvable(self._profile.turns)

    def __call__(self, wanted: UsersToRead) -> UsersRead:
        started_s = time.monotonic()
        users, closed = self._users(wanted)
        key, num_now = self._key(users, closed), 0
        sealed = self._sealed.find(key)
        # What has failed is tried again.
        if sealed is None or "rejections" in sealed["tables"]:
            # The model is loaded here, before an attempt at any user is counted.
            sealed = self._stage(key, users, closed, self._embedder.dim)
            num_now = sealed["num_turns_embedded"]
        failed = sealed["tables"].pop("rejections", None)
        rejections = self._files.get_table(failed).to_pylist() if failed else []
        return UsersRead(
            key=key,
            **sealed,
            rejections=tuple(UnreadUser(**row) for row in rejections),
            num_turns_embedded_now=num_now,
            embed_s=time.monotonic() - started_s,
        )

    def _stage(self, key: str, users: list[UserTurns], closed: list[dict], dim: int) -> dict:
        turns, states, rejections = [row | {"vector": None} for row in closed], [], []
        embedded = self._embed(key, users)
        for user in users:
            found, state = embedded[user.user_id], user.true_state
            if found.error:
                rejections.append({"user_id": user.user_id, "detail": found.error[:MAX_DETAIL_CHARS]})
                turns += self._with_vectors(user, state.num_turns if state else 0, [])
                if user.state and not state:
                    states.append({"user_id": user.user_id} | self._empty_state().to_row())
            else:
                turns += self._with_vectors(user, found.first, found.vectors)
                states.append({"user_id": user.user_id} | found.state.to_row())
        new_ids = frozenset().union(*(user.new_ids for user in users))
        return self._sealed.put(
            key,
            {
                "turns": known_columns(turns, turns_schema(dim)),
                "states": known_columns(states, STATES_SCHEMA),
                "rejections": known_columns(rejections, _FAILED),
            },
            dim=dim,
            num_users=len(users),
            num_turns=len(turns),
            num_turns_embedded=sum(row["vector"] is not None for row in turns),
            num_states=len(states),
            replaces=any(row["turn_id"] not in new_ids for row in turns),
        )

    def _embed(self, key: str, users: list[UserTurns]) -> dict:
        """user id -> cluster.evolvable.stream.Embedded; one by one where a process has died at them."""
        from cluster.evolvable.stream import Embedded

        attempts = Attempts(self._files, self._attempt, key)
        if attempts.first():
            return self._run(users)
        found: dict[str, Embedded] = {}
        for user in users:
            with attempts.alone(hashlib.sha256(user.user_id.encode()).hexdigest()) as is_harmless:
                if is_harmless:
                    found |= self._run([user])
                else:
                    detail = "the embedder's process died on this user's turns"
                    found[user.user_id] = Embedded(user.user_id, error=detail)
        return found

    def _run(self, users: list[UserTurns]) -> dict:
        from cluster.evolvable.stream import Conversation

        conversations = [Conversation(user.user_id, user.exchanges[0], user.state) for user in users]
        found = {}
        try:
            for one in self._embedder.wavefront.run(conversations):
                found[one.key] = one
        except RuntimeError:
            # All have failed: what that means is judged by the run, which knows how many others did not.
            if len(found) < len(users):
                raise
        return found

    def _with_vectors(self, user: UserTurns, first: int, vectors: Sequence) -> Iterator[dict]:
        """Rows to be written: those that are new, and those whose vector is. `vectors` [exchanges - first, E]
        are of the exchanges from `first` on, none at all where these could not be embedded."""
        known: dict[int, list[float]] | None = None
        for row, number in zip(user.turns, user.exchanges[1], strict=True):
            if number >= first and len(vectors):
                yield row | {"vector": vectors[number - first]}
            elif row["turn_id"] in user.new_ids:
                if known is None and number < first:
                    # The same was said before, in a segment or a session whose place this one takes.
                    known = self._vectors(user.user_id)
                yield row | {"vector": known.get(number) if known is not None and number < first else None}

    def _vectors(self, user_id: str) -> dict[int, list[float]]:
        """Number of an exchange -> its vector in the store, as it stands before this run."""
        (where,) = in_lists("user_id", [user_id])
        rows = in_order(self._rows("turns", [*self._columns, "vector"], f"active AND {where}"))
        numbers = exchanges_of_turns(rows)[1]
        return {number: row["vector"] for number, row in zip(numbers, rows, strict=True)}

    # --- what is read ---------------------------------------------------------------------------------

    def _users(self, wanted: UsersToRead) -> tuple[list[UserTurns], list[dict]]:
        """These users, and closed rows of theirs that are to be staged as well."""
        of_user: dict[str, dict[str, dict]] = {user_id: {} for user_id in wanted.users}
        gone, closed = set(wanted.closed), []
        for where in in_lists("user_id", wanted.users):
            for row in self._rows("turns", self._columns, where if self._anew else f"active AND {where}"):
                if self._anew and not row["active"]:
                    closed.append(row)
                elif row["segment_id"] not in gone:
                    of_user[row["user_id"]][row["turn_id"]] = row
        states = {} if self._anew else read_states(self._store, wanted.users)
        new_ids = {user_id: set(turns) if self._anew else set() for user_id, turns in of_user.items()}
        for path in wanted.turns:
            for row in self._files.get_table(path).to_pylist():
                if row["user_id"] in of_user:
                    of_user[row["user_id"]][row["turn_id"]] = row
                    new_ids[row["user_id"]].add(row["turn_id"])
        users = [
            UserTurns(user_id, in_order(turns.values()), frozenset(new_ids[user_id]), states.get(user_id))
            for user_id, turns in of_user.items()
        ]
        return users, closed

    def _rows(self, name: str, columns: list[str], where: str) -> list[dict]:
        return self._store.rows(name, columns, where).to_pylist()

    def _key(self, users: list[UserTurns], closed: list[dict]) -> str:
        read = [user.state.hashes.hex() if user.state else "" for user in users]
        stand = [[user.user_id, user.turns, sorted(user.new_ids)] for user in users]
        return key_of(closed, stand, read)

    def _empty_state(self) -> State:
        return State(b"", (), np.zeros((0, self._embedder.model.hidden_size), np.float32))
