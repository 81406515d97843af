"""One writer per store at a time.

A lease is a numbered file: whoever creates number N + 1 (a put that only one of two can win) holds it until
it expires, is released, or its process is known to be dead. The holder renews it from a thread; `check` tells
right before a commit whether it is still held, so that a writer that slept too long does not publish.
"""

import json
import os
import socket
import threading
import time

import psutil

from cluster.files import Files

TTL_S = 60.0
"""Seconds that a silent holder keeps its lease. Clocks of two hosts may differ by less than half of this."""


class LeaseHeld(Exception):
    """Somebody else writes to this store. The message names the holder and when the lease ends."""


class LeaseLost(Exception):
    """This process held the lease and no longer does; nothing may be published."""


class Lease:
    """Use as a context manager around everything that writes to the store."""

    def __init__(self, uri: str, job: str, ttl_s: float = TTL_S):
        self._files = Files(uri, "lease")
        self._uri, self._job, self._ttl_s = uri, job, ttl_s
        self._number = 0
        self._stop = threading.Event()
        self._lost: str | None = None

    def __enter__(self) -> "Lease":
        number, holder = self._newest()
        if holder is not None and not _is_free(holder):
            raise LeaseHeld(_busy(self._uri, holder))
        self._number = number + 1
        won = self._files.create(_path(self._number), self._content())
        # Between the look and the put others may have taken and left the store, and tidied this number away.
        newest, winner = self._newest()
        if not won or newest != self._number:
            raise LeaseHeld(_busy(self._uri, winner or {}))
        self._files.delete([path for path in self._files.paths() if path < _path(self._number)])
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost and self._newest()[0] == self._number:
            self._files.put(_path(self._number), self._content(released=True))

    def check(self) -> None:
        """Raise LeaseLost unless this process still holds the lease."""
        number, holder = self._newest()
        if self._lost or number != self._number or holder["expires_at"] < time.time():
            raise LeaseLost(
                f"store {self._uri}: the lease was lost ({self._lost or 'it expired or was taken over'}); "
                "nothing was published, run the same command again"
            )

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            try:
                if self._newest()[0] != self._number:
                    self._lost = "another job took it over"
                    return
                self._files.put(_path(self._number), self._content())
            except Exception as error:  # a hiccup of the object store; `check` sees whether it lasted
                print(f"lease: cannot renew ({error}); trying again", flush=True)

    def _newest(self) -> tuple[int, dict | None]:
        for path in reversed(self._files.paths()):
            if path.endswith(".json") and (content := self._files.get(path)):
                return int(path.removesuffix(".json")), json.loads(content)
        return 0, None

    def _content(self, released: bool = False) -> bytes:
        process = psutil.Process()
        return json.dumps(
            {
                "job": self._job,
                "host": socket.gethostname(),
                "pid_namespace": _pid_namespace(),
                "pid": process.pid,
                "process_started": process.create_time(),
                "expires_at": time.time() + self._ttl_s,
                "released": released,
            }
        ).encode()


def _path(number: int) -> str:
    return f"{number:012d}.json"


def _is_free(holder: dict) -> bool:
    return holder["released"] or holder["expires_at"] < time.time() or _is_dead(holder)


def _is_dead(holder: dict) -> bool:
    # Only a process of this host can be looked at; of another host, only the clock tells. Containers that
    # share a host's name do not see each other's processes.
    if holder["host"] != socket.gethostname() or holder["pid_namespace"] != _pid_namespace():
        return False
    try:
        process = psutil.Process(holder["pid"])
        is_another = abs(process.create_time() - holder["process_started"]) > 1.0
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""


def _busy(uri: str, holder: dict) -> str:
    left_s = max(0, round(holder.get("expires_at", 0) - time.time()))
    return (
        f"store {uri} is being written by {holder.get('job', 'another job')} (host {holder.get('host')}, "
        f"pid {holder.get('pid')}); wait for it to end, or {left_s} s after it was killed, and run again"
    )
