"""The ledger: which segments a store has already paid for. It is made from the table `segments` for each run.

One sorted array in memory, of 37 bytes per segment, in which all workers look up millions of segments; Ray
shares it with every process of a node without copying.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.backfill.archive import session_key
from schemas.store import RESTORED, ROLLED_BACK

COLUMNS = ["user_id", "session_id", "segment_id", "encoder", "outcome"]
"""Columns of the table `segments` that a ledger is made from."""

KEY, PLACE, ID = slice(0, 16), slice(16, 20), slice(20, 36)
"""Bytes of a row: the session's key, the segment's place in the store, its id. The last one has the marks."""

ROW_BYTES = 37

DONE, TAKEN_OUT, BROUGHT_BACK = 1, 2, 4
"""Marks: it need not be encoded again; it was taken out by a rollback (known, but without records and turns);
it was brought back by one, and the archive may no longer have it."""


@dataclass(frozen=True)
class Ledger:
    """Active segments of a store."""

    rows: np.ndarray
    """S37 [num_segments], sorted: the segments of a session stand together, in the order of the store."""
    names: Mapping[bytes, str] = field(default_factory=dict)
    """Segments' ids that are not 32 hex digits, by the 16 bytes that stand for them."""
    secret: bytes = field(default=b"", repr=False)
    """What the keys of sessions are keyed with, see cluster.backfill.archive.session_key."""

    @classmethod
    def of(
        cls,
        rows: pa.Table | Iterable[pa.RecordBatch],
        *,
        encoder: str | None = None,
        retry_rejected: bool = False,
        include_rolled_back: bool = False,
        secret: bytes = b"",
    ) -> "Ledger":
        """From COLUMNS of the active segments; batches are taken one by one, and none is kept.

        With `encoder` given, only what that encoder wrote is done; with `retry_rejected`, what was rejected
        in part or whole is not; with `include_rolled_back`, no rollback is remembered.
        """
        # It grows where it is: two copies of a large one never stand side by side.
        packed, num_rows = bytearray(), 0
        names: dict[bytes, str] = {}
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows:
            if not batch.num_rows:
                continue
            ids = batch.column("segment_id")
            part = np.empty((batch.num_rows, ROW_BYTES), np.uint8)
            part[:, KEY] = _session_keys(batch.column("user_id"), batch.column("session_id"), secret)
            places = np.arange(num_rows, num_rows := num_rows + batch.num_rows, dtype=">u4")
            part[:, PLACE] = places.view(np.uint8).reshape(-1, 4)
            part[:, ID] = _packed_ids(ids, names)
            outcome = batch.column("outcome")
            taken_out, brought_back = _equal(outcome, ROLLED_BACK), _equal(outcome, RESTORED)
            done = np.ones(batch.num_rows, bool)
            if encoder is not None:
                done &= _equal(batch.column("encoder"), encoder)
            if retry_rejected:
                done &= ~(_equal(outcome, "partial") | _equal(outcome, "rejected"))
            if include_rolled_back:
                done &= ~taken_out
                taken_out = brought_back = np.zeros_like(done)
            part[:, -1] = DONE * (done | taken_out) + TAKEN_OUT * taken_out + BROUGHT_BACK * brought_back
            packed += part.tobytes()
        sorted_rows = np.frombuffer(packed, f"S{ROW_BYTES}")
        sorted_rows.sort()
        return cls(sorted_rows, names, secret)

    @property
    def _bytes(self) -> np.ndarray:
        return self.rows.view(np.uint8).reshape(-1, ROW_BYTES)

    def of_session(self, user_id: str, session_id: str) -> dict[str, bool]:
        """segment id -> whether it is done, of one session."""
        return {name: bool(marks & DONE) for name, marks in self._of_session(user_id, session_id).items()}

    def gone(self, user_id: str, session_id: str, current_ids: set[str]) -> list[str]:
        """Known segments of a session that the archive, which has `current_ids`, has no longer.

        After a rollback the archive is ahead of the store. While the session stands there as it did when it
        was rolled back, or still has a segment that was taken out, what was brought back in its place stays.
        """
        known = self._of_session(user_id, session_id)
        is_ahead = current_ids <= known.keys() or any(known.get(item, 0) & TAKEN_OUT for item in current_ids)
        return [
            item
            for item, marks in known.items()
            if item not in current_ids and not (is_ahead and marks & BROUGHT_BACK)
        ]

    def has_just(self, keys: np.ndarray, digests: np.ndarray, nums: np.ndarray) -> np.ndarray:
        """bool [n]: whether the store has of each session the segments that these are digests of, no others,
        and all are done. Of such a session there is nothing to encode and nothing to close.

        `keys` S16 [n] of the sessions; `digests` uint64 [n, 2], see `digest_of`, of `nums` segments each.
        """
        lows, highs = self._range(keys)
        counts = highs - lows
        ends = np.cumsum(counts)
        # Places of all these segments, session after session.
        places = np.repeat(lows - (ends - counts), counts) + np.arange(counts.sum())
        found = self._bytes[places]
        lanes = np.ascontiguousarray(found[:, ID]).view("<u8")
        sums = _between(lanes, ends - counts, ends)
        num_done = _between((found[:, -1:] & DONE).astype(np.uint64), ends - counts, ends)[:, 0]
        return (counts == nums) & (num_done == counts) & (sums == digests).all(axis=1)

    def _of_session(self, user_id: str, session_id: str) -> dict[str, int]:
        """segment id -> marks."""
        (low,), (high,) = self._range(np.array([session_key(user_id, session_id, self.secret)], "S16"))
        found = self._bytes[low:high]
        ids = (row.tobytes() for row in found[:, ID])
        return {self.names.get(one) or one.hex(): int(row[-1]) for one, row in zip(ids, found, strict=True)}

    def _range(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] each: first place of a session's segments, and the one behind the last."""
        wanted = np.zeros((len(keys), ROW_BYTES), np.uint8)
        wanted[:, KEY] = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)
        low = np.searchsorted(self.rows, wanted.view(self.rows.dtype)[:, 0], "left")
        # No place is as high.
        wanted[:, KEY.stop :] = 255
        return low, np.searchsorted(self.rows, wanted.view(self.rows.dtype)[:, 0], "left")


def digest_of(segment_ids: Iterable[str]) -> np.ndarray:
    """uint64 [2] of a set of segments, in whatever order: the sum of their ids, which are hashes."""
    packed = b"".join(map(_packed_id, segment_ids))
    return np.frombuffer(packed, "<u8").reshape(-1, 2).sum(axis=0, dtype=np.uint64)


def _between(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """uint64 [n, k]: sums of the rows of `values` [m, k] from each start to its end; they may run over."""
    sums = np.zeros((len(values) + 1, values.shape[1]), np.uint64)
    np.cumsum(values, axis=0, out=sums[1:])
    return sums[ends] - sums[starts]


def _equal(column: pa.Array, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False)


def _session_keys(users: pa.Array, sessions: pa.Array, secret: bytes) -> np.ndarray:
    """uint8 [n, 16]: of each pair its `session_key`, which is computed once a session."""
    codes = [pc.dictionary_encode(one, null_encoding="encode") for one in (users, sessions)]
    user, session = (one.indices.to_numpy().astype(np.int64) for one in codes)
    pairs, places = np.unique(user * len(codes[1].dictionary) + session, return_inverse=True)
    known = [one.dictionary for one in codes]
    of_pairs = zip(
        *(
            one.take(pa.array(place))
            for one, place in zip(known, np.divmod(pairs, len(known[1])), strict=True)
        ),
        strict=True,
    )
    keys = [session_key(user_id.as_py(), session_id.as_py(), secret) for user_id, session_id in of_pairs]
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)[places]


_NIBBLES = np.full(256, 255, np.uint8)
"""Byte of a hex digit -> its value; 255 of every other byte."""
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def _packed_ids(ids: pa.Array, names: dict[bytes, str]) -> np.ndarray:
    """uint8 [n, 16]: the bytes that 32 hex digits stand for, or a hash of any other id, which goes into
    `names`."""
    digits = _NIBBLES[_text_bytes(ids)] if pc.all(pc.equal(pc.binary_length(ids), 32)).as_py() else None
    if digits is not None and (digits < 16).all():
        pairs = digits.reshape(-1, 16, 2)
        return pairs[:, :, 0] << 4 | pairs[:, :, 1]
    packed = [(one, _packed_id(one)) for one in ids.to_pylist()]
    names.update({key: one for one, key in packed if key.hex() != one})
    return np.frombuffer(b"".join(key for _, key in packed), np.uint8).reshape(-1, 16)


def _text_bytes(texts: pa.Array) -> np.ndarray:
    """uint8: all texts of a column without nulls, one behind the other."""
    wide = texts.cast(pa.large_string())
    _, offsets, data = wide.buffers()
    bounds = np.frombuffer(offsets, np.int64)[[wide.offset, wide.offset + len(wide)]]
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[1]]


_HEX = re.compile("[0-9a-f]{32}")


def _packed_id(segment_id: str) -> bytes:
    return bytes.fromhex(segment_id) if _HEX.fullmatch(segment_id) else session_key(segment_id, None)
