"""What a store has paid for already: membership tests over millions of segments, shared by all workers.

Two sorted byte arrays that Ray hands to every process of a node without copying: 32 bytes a segment.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.archive import session_key


@dataclass(frozen=True)
class Ledger:
    """Active segments of a store, sorted by session. All arrays have one entry a segment."""

    session_keys: np.ndarray
    """S16, sorted."""
    segment_ids: np.ndarray
    """S32, hex."""
    is_done: np.ndarray
    """bool: need not be encoded again."""

    @classmethod
    def of(cls, rows: pa.Table, *, encoder: str | None = None, retry_rejected: bool = False) -> "Ledger":
        """From columns user_id, session_id, segment_id, encoder, outcome of the active segments.

        With `encoder` given, only what that encoder wrote is done; with `retry_rejected`, what was rejected
        in part or whole is not.
        """
        if not rows.num_rows:
            return cls(np.zeros(0, "S16"), np.zeros(0, "S32"), np.zeros(0, bool))
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
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], np.array(columns["segment_id"], "S32")[order], done[order])

    def of_session(self, user_id: str, session_id: str) -> dict[str, bool]:
        """segment id -> whether it is done, of one session."""
        key = np.array([session_key(user_id, session_id)], "S16")
        low, high = (
            np.searchsorted(self.session_keys, key, "left")[0],
            np.searchsorted(self.session_keys, key, "right")[0],
        )
        ids = (segment_id.decode() for segment_id in self.segment_ids[low:high])
        return dict(zip(ids, self.is_done[low:high].tolist(), strict=True))
