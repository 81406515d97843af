"""Forget: erase a user, a session, or a memory with what was said about it, from everything a store keeps.

    python -m jobs.forget --store URI --user-id U
    python -m jobs.forget --store URI --session-id S --user-id U
    python -m jobs.forget --store URI --memory ID

Rows go from every table and every older version of it, from tags, indexes, staged files, rejections,
decisions and manifests, and with them the memories that rest on nothing else. Other users keep their history.
Afterwards everything that is left is searched, row by row and byte by byte; the receipt in
`_slowwave/receipts/` tells what was removed and what the search found, in counts and hashes. This cannot be
undone.

Later backfills leave out what was forgotten, though the archive may still hold it: delete it there as well.
"""

from pydantic import model_validator

from jobs.cli import JobConfig, JobError, main, say
from jobs.run import Run, absolute, writing


class ForgetConfig(JobConfig):
    """Settings of a forgetting."""

    store: str
    """Folder or object-store URI of the store."""
    user_id: str | None = None
    """Forget this user; with `session_id`, whose session is meant."""
    session_id: str | None = None
    """Forget this session."""
    memory: str | None = None
    """Forget the memory with this id, and the turns that it rests on."""

    @model_validator(mode="after")
    def _check(self):
        if not (self.user_id or self.session_id or self.memory):
            raise ValueError("nothing to forget: give one of user_id, session_id and memory")
        if self.memory and (self.user_id or self.session_id):
            raise ValueError(f"memory={self.memory!r}: give it alone, without user_id and session_id")
        return self


def run(config: ForgetConfig) -> dict:
    """Erase, search, and return the summary. Safe to repeat; the next writer finishes a killed one."""
    from cluster.erasure.forget import find, forget, shown
    from cluster.erasure.forgotten import Forgotten

    with writing(config.store, "jobs.forget") as (store, lease):
        subject = find(store, user_id=config.user_id, session_id=config.session_id, record_id=config.memory)
        if subject is None:
            say("[forget] nothing to do: it is forgotten already")
            return {"status": "unchanged", "store": store.uri}
        forgotten = Forgotten.of_store(store.uri)
        # Not even the run of the forgetting may remember whom it forgot.
        forgotten.save(store.uri)
        anonymous = ForgetConfig(store=config.store, **{subject.option: shown(forgotten, subject)})
        newest = store.run()
        this = Run("forget", anonymous, encoder=newest["encoder"], embedder=newest["embedder"])
        lease.check()
        with this.stage("erase"):
            receipt = forget(store, this.row(newest["embedder_profile"]), subject)
    this.counts = {
        f"num_{name}_removed": counts["num_rows"] for name, counts in receipt["removed"].items()
    } | {name: receipt["proof"][name] for name in ("num_versions", "num_files", "num_bytes", "is_clean")}
    path = f"{absolute(config.store)}/_slowwave/receipts/{this.run_id}.json"
    say(f"[forget] receipt: {path}")
    summary = this.finish("done" if receipt["proof"]["is_clean"] else "failed")
    if found := receipt["proof"]["found"]:
        raise JobError(
            f"erased, but the search still found traces in {found}; remove what it names if another program "
            f"wrote it, and run the same command again (receipt: {path})"
        )
    return summary | {"receipt": path}


if __name__ == "__main__":
    main(ForgetConfig, run, __doc__)
