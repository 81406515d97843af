"""Memories as the fold takes them."""

from cluster.consolidate.fold import Memory


def memory(record_id: str, day: int, text: str, user: str = "u", **fields) -> Memory:
    session = f"{user}-{day:02}"
    return Memory(
        record_id=record_id,
        revision=1,
        user_id=user,
        session_time=f"2026-01-{day:02}T12:00:00+00:00",
        session_id=session,
        turn=0,
        text=text,
        evidence=((session, 0),),
        **fields,
    )
