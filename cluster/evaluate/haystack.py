"""One user's turns and records as matrices, to be ranked for any number of questions."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.evaluate.scoring import NEVER, ranks_of_turns
from cluster.store.ranking import DEFAULT, reciprocal_ranks
from cluster.store.sql import quote
from cluster.store.store import Store

MAX_TURN_INDEX = 1 << 31


@dataclass(frozen=True)
class Ranked:
    """Where one ranking finds the turns of a haystack. NEVER where it does not."""

    haystack: "Haystack"
    ranks: np.ndarray
    """Rank of the first hit that stands for a turn, float64 [num_turns]."""

    def turns(self, wanted: Collection[tuple[str, int]]) -> np.ndarray:
        """Ranks of the wanted (session id, turn index), float64 [len(wanted)]."""
        found = (self.haystack.turn_number(*key) for key in wanted)
        return np.array([NEVER if number is None else self.ranks[number] for number in found], np.float64)

    def sessions(self, wanted: Collection[str]) -> np.ndarray:
        """Ranks of the first hits in the wanted sessions, float64 [len(wanted)]."""
        first = np.full(len(self.haystack.session_codes), NEVER)
        np.minimum.at(first, self.haystack.session_of_turn, self.ranks)
        codes = (self.haystack.session_codes.get(session_id) for session_id in wanted)
        return np.array([NEVER if code is None else first[code] for code in codes], np.float64)


class Haystack:
    """The active rows of a user in a view of the store, read once.

    `turn_vectors` float32 [num_turn_rows, dim], `record_vectors` float32 [num_records, dim]. Turns are
    numbered from 0, over all that are stored or cited; `rows` and `cited` say which hit stands for which.
    """

    def __init__(self, store: Store, user_id: str, as_of: str | None = None):
        where = f"user_id = {quote(user_id)} AND active"
        turns = store.rows("turns", ["session_id", "turn_index", "vector"], where, as_of)
        records = store.rows("records", ["evidence", "vector"], where, as_of)
        evidence = records.column("evidence").combine_chunks()
        cited = evidence.flatten()
        sessions = pa.concat_arrays(
            [turns.column("session_id").combine_chunks(), cited.field("session_id")]
        ).dictionary_encode()
        indexes = pa.concat_arrays([turns.column("turn_index").combine_chunks(), cited.field("turn_index")])
        keys = sessions.indices.to_numpy().astype(np.int64) * MAX_TURN_INDEX + indexes.to_numpy()
        self._keys, numbers = np.unique(keys, return_inverse=True)
        self.session_codes = {name: code for code, name in enumerate(sessions.dictionary.to_pylist())}
        self.session_of_turn = self._keys // MAX_TURN_INDEX
        self.turn_vectors, self.record_vectors = _vectors(turns), _vectors(records)
        self.rows, self.cited = numbers[: turns.num_rows], numbers[turns.num_rows :]
        self.citing = np.repeat(np.arange(len(evidence)), evidence.value_lengths().to_numpy())
        """Record of each citation, int [num_citations], as `cited` is its turn."""

    @property
    def num_hits(self) -> int:
        """Turns and records that there are to find."""
        return len(self.turn_vectors) + len(self.record_vectors)

    def turn_number(self, session_id: str, turn_index: int) -> int | None:
        """The number of a turn; None when it is neither stored nor cited."""
        key = self.session_codes.get(session_id, -1) * MAX_TURN_INDEX + turn_index
        position = int(np.searchsorted(self._keys, key))
        return position if position < len(self._keys) and self._keys[position] == key else None

    def rankings(self, query: np.ndarray, turn_query: np.ndarray | None = None) -> dict[str, Ranked]:
        """`turns`, `records` and `both`, each ranked by cosine with the query, float32 [dim] of norm 1.

        `turn_query` float32 [turn_dim] is the query for turns, where another model embeds them. In `both`,
        records and turns are one list. Cosines alone count, and for records what cluster.store.ranking
        prefers them by; a hit that stands for no new turn takes no place.
        """
        num_turns = len(self._keys)
        of_turns = self.turn_vectors @ (query if turn_query is None else turn_query)
        of_records = self.record_vectors @ query
        merged = of_records + DEFAULT.record, of_turns
        if turn_query is not None:
            by_rank = [np.array(reciprocal_ranks(scores.tolist())) for scores in (of_records, of_turns)]
            merged = by_rank[0], by_rank[1]
        own, rows = np.arange(len(of_turns)), self.rows
        lists = {
            "turns": (of_turns, own, rows),
            "records": (of_records, self.citing, self.cited),
            "both": (
                np.concatenate(merged),
                np.concatenate([self.citing, own + len(of_records)]),
                np.concatenate([self.cited, rows]),
            ),
        }
        rankings = {}
        for name, hits in lists.items():
            ranks = ranks_of_turns(*hits, num_turns)
            found = ranks < NEVER
            ranks[found] = np.unique(ranks[found], return_inverse=True)[1]
            rankings[name] = Ranked(self, ranks)
        return rankings

    def ranking_of_hits(self, hits: list[dict]) -> Ranked:
        """The ranking that a result of Store.search is: `hits`, best first."""
        found = [
            (position, number)
            for position, hit in enumerate(hits)
            for key in (hit["evidence"] if hit["kind"] == "record" else [hit])
            if (number := self.turn_number(key["session_id"], key["turn_index"])) is not None
        ]
        positions, turns = np.array(found, np.int64).reshape(-1, 2).T
        scores = -np.arange(len(hits), dtype=np.float64)
        return Ranked(self, ranks_of_turns(scores, positions, turns, len(self._keys)))


def _vectors(rows: pa.Table) -> np.ndarray:
    """float32 [num_rows, dim], zeros where there is none."""
    column = rows.column("vector").combine_chunks()
    vectors = np.zeros((len(column), column.type.list_size), np.float32)
    # Flattening leaves the missing ones out.
    flat = column.flatten().to_numpy(zero_copy_only=False)
    vectors[column.is_valid().to_numpy(zero_copy_only=False)] = flat.reshape(-1, column.type.list_size)
    return vectors
