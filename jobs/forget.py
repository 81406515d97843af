"""Forget: erase a user, a session, or a memory with what was said about it, from everything a store keeps.

    python -m jobs.forget --store URI --user-id U
    python -m jobs.forget --store URI --session-id S --user-id U
    python -m jobs.forget --store URI --memory ID
    python -m jobs.forget --store URI --user-id U --in-advance    # a user of whom nothing is stored yet

Erases rows from every table and all its older versions, from tags, indexes, staged files, rejections,
decisions and manifests, and also memories without other evidence. Other users keep their history. Then it
searches everything that is left, row by row and byte by byte. The receipt in `_slowwave/receipts/` says, in
counts and hashes, what was removed, what the search found, and what it could not search. This cannot be
undone. In a versioned S3 bucket, older versions of the store's objects are deleted too.

If the store has nothing of the user, session or memory, the status is `nothing_found` and the exit code 1:
the id may be mistyped, and is not put on the list. If it was forgotten before, the status is `unchanged`.

For each earlier export it writes a tombstone, which says what the receiver has to delete, beside the export
as `OUTPUT.tombstones/RUN.jsonl`, or in the folder that --tombstones names.

Later backfills leave out what was forgotten, but the archive may still hold it: delete it there as well. The
list of what was forgotten holds hashes, keyed with the operator's secret if there is one (forget_key_env,
forget_key_file); give the secret to jobs.backfill too. Later rejections of damaged rows show no content if it
is unknown whose they are.
"""

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from jobs.common.cli import JobError, UsageError, main, say
from jobs.common.forgotten import ForgetKeyConfig, read_forgotten
from jobs.common.run import Run, WriterConfig, absolute, writing
from schemas.exchange import is_encodable

if TYPE_CHECKING:
    from cluster.forget.exports import Erased, Exported
    from cluster.store.store import Store


class ForgetConfig(ForgetKeyConfig, WriterConfig):
    """Settings of a forgetting."""

    user_id: str | None = None
    """Forget this user; with `session_id`, the user of that session."""
    session_id: str | None = None
    """Forget this session."""
    memory: str | None = None
    """Forget the memory with this id, and the turns that it rests on."""
    in_advance: bool = False
    """Put the user, or the user's session, on the list even if the store has nothing of it yet."""

    tombstones: str | None = None
    """Folder for the tombstones of earlier exports; not given: beside each export. They name what was erased,
    so deliver and delete them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.user_id or self.session_id or self.memory):
            raise ValueError("nothing to forget: give one of user_id, session_id and memory")
        if self.memory and (self.user_id or self.session_id):
            raise ValueError(f"memory={self.memory!r}: give it alone, without user_id and session_id")
        if self.in_advance and not self.user_id:
            raise ValueError("in_advance: give user_id, alone or with session_id; other ids say nobody's")
        for name in ("user_id", "session_id", "memory"):
            if not is_encodable(value := getattr(self, name) or ""):
                raise ValueError(f"{name}={value!r}: is no UTF-8; no store has such an id")
        return self


def run(config: ForgetConfig) -> dict:
    """Erase, search, and return the summary. Safe to repeat; the next writer finishes a killed one."""
    from cluster.forget.erase import find, forget, holds, last_proof, shown
    from cluster.interchange.tombstones import tombstones

    with writing(config.store, "jobs.forget", wait_s=config.lease_wait) as store:
        forgotten = read_forgotten(config, store.uri, may_begin=True)
        subject = find(store, user_id=config.user_id, session_id=config.session_id, record_id=config.memory)
        if subject is None:
            asked = ("records", config.memory) if config.memory else ("turns", config.session_id or "")
            return absent(config, store, forgotten.has_asked(*asked))
        if not holds(store, subject):
            is_on_list = forgotten.has(subject.user_id, subject.session_id, subject.record_id)
            if is_on_list:
                # After a search that found something the same command searches again.
                proof = last_proof(store, shown(forgotten, subject))
                is_settled = proof is None or proof["is_clean"]
            else:
                is_settled = not config.in_advance
            if is_settled:
                return absent(config, store, is_on_list)
        # Not even the run of the forgetting may remember whom it forgot.
        forgotten.save(store.uri)
        anonymous = ForgetConfig(store=config.store, **{subject.option: shown(forgotten, subject)})
        newest = store.view()
        with Run("forget", anonymous, encoder=newest.encoder, embedder=newest.embedder) as this:
            store.fence()
            folder, buried = absolute(config.tombstones) if config.tombstones else None, list[dict]()

            def bury(erased: "Erased", sent: "list[Exported]") -> list[dict]:
                buried.extend(tombstones(erased, sent, this.run_id, folder))
                check_writable(buried)
                return buried

            with this.stage("erase"):
                receipt = forget(store, this.row(newest.embedder_profile), subject, forgotten, bury)
            this.counts = {
                f"num_{name}_removed": counts["num_rows"] for name, counts in receipt["removed"].items()
            } | {
                name: receipt["proof"][name]
                for name in ("num_versions", "num_files", "num_bytes", "is_clean")
            }
            this.counts["num_tombstones"] = len(receipt["tombstones"])
            for one in buried:
                say(f"[forget] {one['format']} export {one['export']}: tombstone {one['path']}")
            for unseen in receipt["proof"]["not_searched"]:
                say(f"[forget] not searched: {unseen}")
            path = f"{absolute(config.store)}/_slowwave/receipts/{this.run_id}.json"
            say(f"[forget] receipt: {path}")
            summary = this.finish("done" if receipt["proof"]["is_clean"] else "failed")
            if found := receipt["proof"]["found"]:
                raise JobError(
                    f"erased, but the search still found traces in {found}; remove what it names if another "
                    f"program wrote it, and run the same command again (receipt: {path})"
                )
            paths = [one["path"] for one in buried]
            not_searched = receipt["proof"]["not_searched"]
            return summary | {"receipt": path, "tombstones": paths, "not_searched": not_searched}


def check_writable(buried: list[dict]) -> None:
    """UsageError where a tombstone cannot be written; nothing is erased then."""
    for folder in dict.fromkeys(Path(one["path"]).parent for one in buried):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise UsageError(
                f"tombstones: {folder}, beside an earlier export, cannot be written ({error.strerror}); name "
                "another folder with --tombstones. Nothing was erased"
            ) from None


def absent(config: ForgetConfig, store: "Store", is_on_list: bool) -> dict:
    """The summary where there is nothing to erase."""
    if is_on_list:
        say("[forget] nothing to do: it is forgotten already")
        return {"status": "unchanged", "store": store.uri}
    given = " ".join(
        f"--{name.replace('_', '-')} {value}"
        for name in ("user_id", "session_id", "memory")
        if (value := getattr(config, name))
    )
    remedy = "check the id" + ("" if config.memory else ", or keep it out with --user-id and --in-advance")
    say(f"error: {given}: no run of this store has it, and nothing staged; {remedy}. Nothing was changed")
    return {"status": "nothing_found", "store": store.uri}


if __name__ == "__main__":
    main(ForgetConfig, run, __doc__)
