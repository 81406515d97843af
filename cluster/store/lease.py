"""One writer per store at a time.

A lease is a numbered file: whoever creates number N + 1 (a put that only one of two can win) holds it until
it is released, its process is known to be dead, or it was not renewed for as long as it says. The holder
renews it from a thread.

No clock is compared with another host's. Who finds a lease of another host watches the file on a clock of
its own: renewed meanwhile, it is held; the same for the whole time, its holder is gone. On one host, which
its boot id tells and not its name, the clock since the boot is the same for all, and a dead process is seen.

A holder can be stopped at any moment and go on after others have taken over. So `check` tells whether the
lease is still held, and is asked before each step; but it proves nothing of the moment after. That two never
publish over each other is the business of the commit (see cluster.store.heads).
"""

import datetime as dt
import json
import math
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from cluster.runtime.log import say
from cluster.store.exclusion import check_exclusive
from cluster.store.files import Files, Numbered, json_object

_NAMES = Numbered()

TTL_S = 60.0
"""Seconds that a silent holder keeps its lease."""


_LOOK_S = 2.0
"""Seconds between two tries of one who waits for a lease."""

_TOLD_S = 30.0
"""Seconds between two lines that say for what it waits."""


class LeaseHeld(Exception):
    """Somebody else writes to this store. The message names the holder and the remedy, `what` no remedy."""

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}; {remedy}")
        self.what = what


class LeaseLost(Exception):
    """This process held the lease and no longer does; nothing may be published."""


@dataclass(frozen=True)
class Holder:
    """Who has the lease of a store and has not released it, as its file says."""

    job: str
    host: str
    pid: int | None
    taken_at: dt.datetime | None
    """By the clock of its host, for people to read; None of a release that did not say it."""
    is_alive: bool | None
    """None where that cannot be known from here."""


def holder(uri: str) -> Holder | None:
    """Who has the lease of a store; None where nobody has. Only reads."""
    content = json_object(_newest(Files(uri, "lease"))[1] or b"")
    if not content or content.get("released"):
        return None
    is_free = _is_free(content) if content.keys() >= _TELLING else None
    return Holder(
        str(content.get("job", "unknown")),
        str(content.get("host", "unknown")),
        content.get("pid"),
        _time(content.get("taken_at")),
        None if is_free is None else not is_free,
    )


_TELLING = {"renewed_boot_s", "ttl_s", "pid", "pid_namespace", "process_started"}
"""What a lease has to say for its holder to be looked at."""


def _time(text: object) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None


class Lease:
    """Use as a context manager around everything that writes to the store."""

    def __init__(self, uri: str, job: str, ttl_s: float = TTL_S, wait_s: float = 0):
        """`wait_s`: seconds to wait for a store that another job writes, before LeaseHeld is raised."""
        self._files = Files(uri, "lease")
        self._uri, self._job, self._ttl_s, self._wait_s = uri, job, ttl_s, wait_s
        self._number, self._token, self._here = 0, uuid.uuid4().hex, here()
        self._taken_at: dt.datetime | None = None
        self._stop = threading.Event()
        self._lost: str | None = None
        self._has_watched = False

    def __enter__(self) -> "Lease":
        check_exclusive(self._uri)
        end_s, told_s = time.monotonic() + self._wait_s, -math.inf
        while True:
            try:
                return self._enter()
            except LeaseHeld as held:
                now_s = time.monotonic()
                if now_s >= end_s:
                    raise
                if now_s - told_s >= _TOLD_S:
                    told_s = now_s
                    say(f"lease: {held.what}; waiting for it, {end_s - now_s:.0f} s at most")
                time.sleep(min(end_s - now_s, _LOOK_S))

    def _enter(self) -> "Lease":
        """Take the lease. LeaseHeld when somebody has it."""
        number, content = self._newest()
        if content is not None:
            number = self._wait_until_free(number, content)
        self._number, self._taken_at = number + 1, dt.datetime.now(dt.UTC)
        self._take()
        # Between the look and the put others may have taken and left the store, and tidied this number away.
        newest, winner = self._newest()
        if newest != self._number:
            raise self._held(json_object(winner or b"") or {})
        self._files.delete([path for path in self._files.paths() if path < _NAMES.path(self._number)])
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost and self._newest()[0] == self._number:
            self._files.put(_NAMES.path(self._number), self._content(released=True))

    def check(self) -> None:
        """Raise LeaseLost unless this process still holds the lease."""
        is_silent = time.monotonic() - self._renewed_s > self._ttl_s
        if self._lost or is_silent or self._newest()[0] != self._number:
            raise LeaseLost(
                f"store {self._uri}: the lease was lost ({self._lost or 'it expired or was taken'}), and "
                "with it the right to publish; run the same command again"
            )

    def _take(self) -> None:
        """Create the file of this lease's number. LeaseHeld when somebody else did."""
        path, content = _NAMES.path(self._number), self._content()
        if not self._files.claim(path, content):
            raise self._held(json_object(self._newest()[1] or b"") or {})
        self._renewed_s = time.monotonic()

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            try:
                if self._newest()[0] != self._number:
                    self._lost = "another job took it over"
                    return
                begun_s = time.monotonic()
                self._files.put(_NAMES.path(self._number), self._content())
                # What others have seen of this renewal is not younger than its begin.
                self._renewed_s = begun_s
            except Exception as error:  # a hiccup of the object store; `check` sees whether it lasted
                say(f"lease: cannot renew ({error}); trying again")

    def _newest(self) -> tuple[int, bytes | None]:
        return _newest(self._files)

    def _wait_until_free(self, number: int, content: bytes) -> int:
        """The number of the newest lease, once nobody holds it. LeaseHeld when somebody does."""
        holder = json_object(content) or {}
        is_free = _is_free(holder)
        if is_free is None:
            # Nobody can ask a process of another host, nor trust its clock: only see whether it renews.
            ttl_s = _ttl_s(holder, self._ttl_s)
            if not self._has_watched:
                say(
                    f"lease: {self._uri} was left by {_name(holder)}; watching for up to {ttl_s:g} s whether "
                    "it is still renewed"
                )
            self._has_watched = True
            end_s = time.monotonic() + ttl_s
            while (left_s := end_s - time.monotonic()) > 0:
                time.sleep(min(left_s, ttl_s / 12))
                found = self._newest()
                if found != (number, content):
                    number, holder = found[0], json_object(found[1] or b"") or {}
                    is_free = bool(holder.get("released"))
                    break
            else:
                is_free = True
        if not is_free:
            raise self._held(holder)
        return number

    def _content(self, released: bool = False) -> bytes:
        return json.dumps(
            {
                "job": self._job,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_started": _process(os.getpid())[1],
                **self._here,
                "taken_at": str(self._taken_at),
                "renewed_boot_s": _boot_s(),
                "ttl_s": self._ttl_s,
                "token": self._token,
                "released": released,
            }
        ).encode()

    def _held(self, holder: dict) -> LeaseHeld:
        return LeaseHeld(
            f"store {self._uri} is being written by {_name(holder)}",
            f"wait for it to end, or {_ttl_s(holder, self._ttl_s):g} s after it was killed, and run again",
        )


def _newest(files: Files) -> tuple[int, bytes | None]:
    """Number and content of the newest lease; 0 and None where there is none."""
    for path in reversed(files.paths()):
        number = _NAMES.number(path)
        if number is not None and (content := files.get(path)) is not None:
            return number, content
    return 0, None


def here() -> dict[str, str]:
    """Which boot of which machine this is, and whose clock and processes are seen from here.

    Empty where the system does not tell: then nothing is known of other processes but what they put.
    """
    names = {"pid_namespace": "/proc/self/ns/pid", "time_namespace": "/proc/self/ns/time"}
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot} | {name: os.readlink(path) for name, path in names.items()}
    except OSError:
        return {"boot": "", "pid_namespace": "", "time_namespace": ""}


def _is_free(holder: dict) -> bool | None:
    """Whether nobody holds this lease; None where that cannot be known from here."""
    if holder.get("released"):
        return True
    mine = here()
    if not mine["boot"] or any(holder.get(name) != mine[name] for name in ("boot", "time_namespace")):
        return None
    if _boot_s() - holder["renewed_boot_s"] > holder["ttl_s"]:
        return True
    # Containers of one host have the same clock, but do not see each other's processes.
    return holder["pid_namespace"] == mine["pid_namespace"] and _is_dead(holder)


def _is_dead(holder: dict) -> bool:
    try:
        state, started = _process(holder["pid"])
    except OSError:
        return not _exists(holder["pid"])
    # A pid may have been given to another process since. A zombie only waits for its parent.
    return started != holder["process_started"] or state in "ZX"


def _exists(pid: int) -> bool:
    """Whether there is such a process, be it hidden: /proc may show every user their own ones only."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _process(pid: int) -> tuple[str, int | None]:
    """A process' state and when it started, in ticks since the boot: no clock that can be set. OSError where
    there is no such process."""
    if not here()["boot"]:
        return "", None
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _boot_s() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _ttl_s(holder: dict, default_s: float) -> float:
    ttl_s = holder.get("ttl_s")
    return ttl_s if isinstance(ttl_s, int | float) else default_s


def _name(holder: dict) -> str:
    job, host, pid = (holder.get(name, "unknown") for name in ("job", "host", "pid"))
    return f"{job} (host {host}, pid {pid})" if holder else "a job that left no name"
