"""What a conversation leaves behind: enough to go on where it stopped, and to notice that it changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.evolvable.tokens import Exchange

_HASH_BYTES = 8


@dataclass(frozen=True)
class State:
    """A conversation's memory after its last exchange.

    With C = `queue_capacity` and K = `num_latents`: the queue at the time when the open chunk began is
    `latents` without its last K * len(open_ids) rows, and the queue of now is its last C rows.
    """

    hashes: bytes
    """8 bytes for each exchange so far, oldest first."""
    open_ids: tuple[tuple[int, ...], ...]
    """Token ids of the exchanges in the open chunk."""
    latents: np.ndarray
    """float32 [<= C + K * len(open_ids), H], oldest first."""

    @property
    def num_turns(self) -> int:
        """Exchanges that the memory has seen."""
        return len(self.hashes) // _HASH_BYTES

    @property
    def num_bytes(self) -> int:
        """Size in memory and, uncompressed, in the store."""
        return len(self.hashes) + 4 * sum(map(len, self.open_ids)) + self.latents.nbytes

    def num_unchanged(self, exchanges: Sequence[Exchange]) -> int:
        """How many of the exchanges so far stand at the beginning of `exchanges` as they were."""
        now = hash_exchanges(exchanges[: self.num_turns])
        for start in range(0, len(self.hashes), _HASH_BYTES):
            if now[start : start + _HASH_BYTES] != self.hashes[start : start + _HASH_BYTES]:
                return start // _HASH_BYTES
        return self.num_turns

    def to_row(self) -> dict:
        """Columns `num_turns`, `hashes`, `open_ids`, `hidden_size`, `latents` (flat)."""
        return {
            "num_turns": self.num_turns,
            "hashes": self.hashes,
            "open_ids": [list(ids) for ids in self.open_ids],
            "hidden_size": self.latents.shape[1],
            "latents": self.latents.reshape(-1),
        }

    @classmethod
    def from_row(cls, row: dict) -> "State":
        """The reverse of `to_row`; lists may be Python's or numpy's."""
        latents = np.asarray(row["latents"], np.float32).reshape(-1, row["hidden_size"])
        return cls(row["hashes"], tuple(tuple(map(int, ids)) for ids in row["open_ids"]), latents)


def hash_exchanges(exchanges: Sequence[Exchange]) -> bytes:
    """8 bytes for each exchange."""
    return b"".join(
        hashlib.blake2b(f"{len(user)}\0{user}{assistant}".encode(), digest_size=_HASH_BYTES).digest()
        for user, assistant in exchanges
    )
