"""What a store has paid for already: membership tests over millions of segments, shared by all workers.

Two sorted byte arrays that Ray hands to every process of a node without copying: 32 bytes a segment.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.backfill.archive import session_key
from schemas.store import RESTORED, ROLLED_BACK


@dataclass(frozen=True)
class Ledger:
    """Active segments of a store, sorted by session. All arrays have one entry a segment."""

    session_keys: np.ndarray
    """S16, sorted."""
    segment_ids: np.ndarray
    """S32, hex."""
    is_done: np.ndarray
    """bool: need not be encoded again."""
    is_rolled_back: np.ndarray
    """bool: taken out by a rollback; known, but without records and turns."""
    is_restored: np.ndarray
    """bool: brought back by a rollback, which the archive may no longer have."""

    @classmethod
    def of(
        cls,
        rows: pa.Table,
        *,
        encoder: str | None = None,
        retry_rejected: bool = False,
        include_rolled_back: bool = False,
    ) -> "Ledger":
        """From columns user_id, session_id, segment_id, encoder, outcome of the active segments.

        With `encoder` given, only what that encoder wrote is done; with `retry_rejected`, what was rejected
        in part or whole is not; with `include_rolled_back`, no rollback is remembered.
        """
        if not rows.num_rows:
            none = np.zeros(0, bool)
            return cls(np.zeros(0, "S16"), np.zeros(0, "S32"), none, none, none)
        columns = {name: rows.column(name).to_pylist() for name in rows.column_names}
        keys = np.array(
            [session_key(*pair) for pair in zip(columns["user_id"], columns["session_id"], strict=True)],
            "S16",
        )
        done = np.ones(len(keys), bool)
        if encoder is not None:
            done &= np.array(columns["encoder"]) == encoder
        if retry_rejected:
            done &= ~np.isin(np.array(columns["outcome"]), ["partial", "rejected"])
        outcomes = np.array(columns["outcome"], str)
        rolled_back, restored = outcomes == ROLLED_BACK, outcomes == RESTORED
        if include_rolled_back:
            done &= ~rolled_back
            rolled_back, restored = np.zeros_like(done), np.zeros_like(done)
        else:
            done |= rolled_back
        order = np.argsort(keys, kind="stable")
        ids = np.array(columns["segment_id"], "S32")
        return cls(*(column[order] for column in (keys, ids, done, rolled_back, restored)))

    def of_session(self, user_id: str, session_id: str) -> dict[str, bool]:
        """segment id -> whether it is done, of one session."""
        return self._of_session(user_id, session_id, self.is_done)

    def gone(self, user_id: str, session_id: str, current_ids: set[str]) -> list[str]:
        """Known segments of a session that the archive, which has `current_ids`, has no longer.

        After a rollback the archive is ahead of the store. While the session stands there as it did when it
        was rolled back, or still has a segment that was taken out, what was brought back in its place stays.
        """
        known = self.of_session(user_id, session_id)
        rolled_back = self._of_session(user_id, session_id, self.is_rolled_back)
        restored = self._of_session(user_id, session_id, self.is_restored)
        is_ahead = current_ids <= known.keys() or any(rolled_back.get(item) for item in current_ids)
        return [item for item in known if item not in current_ids and not (is_ahead and restored[item])]

    def _of_session(self, user_id: str, session_id: str, values: np.ndarray) -> dict[str, bool]:
        key = np.array([session_key(user_id, session_id)], "S16")
        low, high = (
            np.searchsorted(self.session_keys, key, "left")[0],
            np.searchsorted(self.session_keys, key, "right")[0],
        )
        ids = (segment_id.decode() for segment_id in self.segment_ids[low:high])
        return dict(zip(ids, values[low:high].tolist(), strict=True))
