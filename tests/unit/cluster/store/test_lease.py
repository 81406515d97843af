"""One writer per store: who holds it, when it ends, and that a race has one winner."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.store.files import Files
from cluster.store.lease import Lease, LeaseHeld, LeaseLost
from tests.unit.cluster.store.stores import FOREIGN

ROOT = Path(__file__).parents[4]
HOLD = """
import sys, time
from cluster.store.lease import Lease
with Lease(sys.argv[1], "jobs.killed", ttl_s=600):
    print("held", flush=True)
    time.sleep(60)
"""
RACE = """
import sys, time
from cluster.store.lease import Lease, LeaseHeld
lease = Lease(sys.argv[1], sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease:
        print("won", flush=True)
        sys.stdin.readline()
except LeaseHeld:
    print("lost", flush=True)
"""


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def no_heartbeat(monkeypatch):
    """A holder that sleeps: its lease is not renewed."""
    monkeypatch.setattr(Lease, "_renew", lambda self: None)


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def held_by(uri, **changes):
    """A lease as another process would have left it."""
    with Lease(uri, "jobs.other", ttl_s=0.3):
        files = Files(uri, "lease")
        content = files.get_json("000000000001.json")
    files.put_json("000000000001.json", content | {"released": False} | changes)


ELSEWHERE = {"boot": "another boot"}


def is_free(uri):
    try:
        with Lease(uri, "jobs.probe"):
            return True
    except LeaseHeld:
        return False


def test_the_second_is_told_who_holds_it(uri):
    with Lease(uri, "jobs.backfill") as lease:
        with pytest.raises(LeaseHeld) as held, Lease(uri, "jobs.other"):
            pass
        lease.check()
    message = str(held.value)
    for part in (uri, "jobs.backfill", socket.gethostname(), f"pid {os.getpid()}", "60 s"):
        assert part in message


def test_a_released_lease_is_free_at_once(uri):
    for _ in range(3):
        with Lease(uri, "jobs.backfill") as lease:
            lease.check()
    with pytest.raises(KeyError), Lease(uri, "jobs.backfill"):
        raise KeyError
    assert is_free(uri)
    assert len(Files(uri, "lease").paths()) == 1


def test_stores_do_not_share_a_lease(uri):
    with Lease(uri, "jobs.backfill"):
        assert is_free(uri + "2")


def test_a_silent_holder_loses_it_after_a_while(uri, no_heartbeat):
    with Lease(uri, "jobs.sleeper", ttl_s=0.6) as sleeper:
        assert not is_free(uri)
        time.sleep(0.65)
        with pytest.raises(LeaseLost, match="expired"):
            sleeper.check()
        with Lease(uri, "jobs.next", ttl_s=60) as following:
            with pytest.raises(LeaseLost, match=r"run the same command again"):
                sleeper.check()
            following.check()
            # What the sleeper does when it wakes up and leaves must not free the other's lease.
            sleeper.__exit__()
            following.check()
            assert not is_free(uri)


def test_a_holder_that_wakes_up_late_sees_the_takeover(uri):
    with Lease(uri, "jobs.late", ttl_s=0.3) as late:
        files = Files(uri, "lease")
        files.put_json("000000000002.json", files.get_json("000000000001.json") | {"job": "jobs.next"})
        time.sleep(0.25)
        with pytest.raises(LeaseLost, match="another job took it over"):
            late.check()
    assert files.get_json("000000000002.json")["released"] is False


def test_the_heartbeat_renews(uri):
    with Lease(uri, "jobs.backfill", ttl_s=0.9) as lease:
        for _ in range(4):
            time.sleep(0.4)
            lease.check()
            assert not is_free(uri)


def test_a_hiccup_of_the_store_does_not_end_the_heartbeat(uri, monkeypatch, capsys):
    put, failures = Files.put, iter([OSError("503 slow down"), OSError("503 slow down")])

    def hiccup(self, path, data):
        for error in failures:
            raise error
        put(self, path, data)

    monkeypatch.setattr(Files, "put", hiccup)
    with Lease(uri, "jobs.backfill", ttl_s=0.9) as lease:
        time.sleep(1.4)
        lease.check()
    assert capsys.readouterr().out.count("503 slow down") == 2


@pytest.mark.parametrize("reaped", [False, True])
def test_a_killed_process_frees_it_at_once(uri, reaped):
    """Regression: a zombie, which no parent has waited for, still has a pid and a start time."""
    holder = python(HOLD, uri)
    try:
        assert holder.stdout.readline() == "held\n"
        assert not is_free(uri)
        holder.send_signal(signal.SIGKILL)
        if reaped:
            holder.wait()
        else:
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert is_free(uri)
    finally:
        holder.kill()
        holder.communicate()


def test_a_pid_that_was_given_anew_is_not_the_holder(uri):
    """Regression: a container that starts again has its old host name and its old pid."""
    held_by(uri, process_started=1, ttl_s=600)
    assert is_free(uri)


def dead_pid() -> int:
    dead = subprocess.Popen(["true"])
    dead.wait()
    return dead.pid


def test_a_holder_whose_process_another_user_cannot_see_is_not_dead(uri, monkeypatch):
    """A host may mount /proc such that it shows every user their own processes only."""
    with Lease(uri, "jobs.other"), monkeypatch.context() as patch:
        patch.setattr("cluster.store.lease._process", lambda pid: Path("/proc/0/hidden").read_text())
        with pytest.raises(LeaseHeld, match=r"jobs\.other"):
            Lease(uri, "jobs.next").__enter__()
    assert is_free(uri)


def test_in_another_container_of_this_host_only_the_clock_tells(uri):
    """One host, one name, two namespaces: a pid means nothing there, the clock since the boot does."""
    held_by(uri, pid=dead_pid(), pid_namespace="pid:[1]", ttl_s=600)
    assert not is_free(uri)
    held_by(uri + "2", pid=os.getpid(), pid_namespace="pid:[1]", ttl_s=0.05)
    time.sleep(0.06)
    assert is_free(uri + "2")


@pytest.mark.parametrize(
    "elsewhere", [ELSEWHERE, {"boot": ""}, {"time_namespace": "time:[1]"}], ids=lambda item: next(iter(item))
)
def test_a_silent_lease_of_another_host_is_free_when_it_was_watched_long_enough(uri, elsewhere):
    """Also where that host has this one's name, and a living process under that pid."""
    held_by(uri, host=socket.gethostname(), **elsewhere)
    begun_s = time.monotonic()
    assert is_free(uri)
    assert time.monotonic() - begun_s >= 0.3


@pytest.mark.parametrize("offset_s", [-600, 0, 600], ids=["behind", "alike", "ahead"])
def test_clocks_that_are_minutes_apart_change_nothing(uri, monkeypatch, offset_s):
    """What another host's clock shows says nothing of its lease: neither that it ended, nor that it holds."""
    monkeypatch.setattr(
        "cluster.store.lease.here", lambda: {"boot": "a", "pid_namespace": "", "time_namespace": ""}
    )
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.7e9 + offset_s)
        patch.setattr("cluster.store.lease._boot_s", lambda: 1e6 + offset_s)
        holder = Lease(uri, "jobs.elsewhere", ttl_s=0.3).__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(
            "cluster.store.lease.here", lambda: {"boot": "b", "pid_namespace": "", "time_namespace": ""}
        )
        assert not is_free(uri)
        holder.check()
        holder._stop.set()
        holder._thread.join()
        assert is_free(uri)
    with pytest.raises(LeaseLost):
        holder.check()


@pytest.mark.parametrize("content", [b"", b"{", b'{"job": "jobs.oth', b"[]", b"\0" * 300])
def test_an_empty_or_half_written_lease_is_free_when_nobody_renews_it(uri, content):
    """Regression: a power cut left such a file, and every later job ended in a JSONDecodeError."""
    held_by(uri)
    Files(uri, "lease").put("000000000004.json", content)
    with Lease(uri, "jobs.next", ttl_s=0.3) as lease:
        lease.check()
        assert Files(uri, "lease").paths() == ["000000000005.json"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_among_leases_blocks_nobody(uri, name):
    assert is_free(uri)
    Path(uri, "_slowwave", "lease", name).write_bytes(b"\0")
    with Lease(uri, "jobs.next") as lease:
        lease.check()
        assert not is_free(uri)


def test_a_lease_of_an_earlier_release_is_watched(uri):
    Files(uri, "lease").put_json(
        "000000000003.json",
        {"job": "jobs.backfill", "host": socket.gethostname(), "pid_namespace": "pid:[1]", "pid": 1}
        | {"process_started": 1.7e9, "expires_at": time.time() + 600, "released": False},
    )
    with Lease(uri, "jobs.next", ttl_s=0.2) as lease:
        lease.check()


def test_a_lost_answer_to_the_winning_put_is_no_other_holder(uri, monkeypatch):
    create = Files.create
    monkeypatch.setattr(Files, "create", lambda self, *put: create(self, *put) and create(self, *put))
    with Lease(uri, "jobs.backfill") as lease:
        lease.check()


@pytest.mark.parametrize("before", ["none", "released", "expired"])
def test_of_many_threads_one_wins(uri, before):
    if before == "released":
        assert is_free(uri)
    if before == "expired":
        held_by(uri, **ELSEWHERE)
    start, tried = threading.Barrier(16), threading.Barrier(16)

    def take(number):
        lease = Lease(uri, f"jobs.thread{number}")
        start.wait()
        try:
            with lease:
                tried.wait()
                lease.check()
                return True
        except LeaseHeld:
            tried.wait()
            return False

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(take, range(16))).count(True) == 1


def test_threads_that_come_and_go_never_hold_it_together(uri):
    inside, most, entered = [], [], []

    def work(number):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                with Lease(uri, f"jobs.thread{number}"):
                    inside.append(number)
                    most.append(len(inside))
                    entered.append(number)
                    inside.remove(number)
            except LeaseHeld:
                continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert max(most) == 1
    assert len(entered) > 10


def last_line_of(racer) -> str:
    """Its answer, behind the line which says that it watches the lease."""
    return next(line for line in racer.stdout if not line.startswith("lease: "))


def test_of_many_processes_one_takes_over(uri):
    held_by(uri, **ELSEWHERE)
    racers = [python(RACE, uri, f"jobs.process{number}") for number in range(4)]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert sorted(map(last_line_of, racers)) == ["lost\n"] * 3 + ["won\n"]
    finally:
        for racer in racers:
            racer.communicate("leave\n")


def test_a_number_that_was_tidied_away_wins_nothing(uri, monkeypatch):
    """Regression: between a job's look and its put, one took that number and left, another holds the next."""
    late, create, holders = Lease(uri, "jobs.late"), Files.create, []

    def slow_create(self, path, data):
        monkeypatch.setattr(Files, "create", create)
        with Lease(uri, "jobs.quick"):
            pass
        holders.append(Lease(uri, "jobs.holder").__enter__())
        return create(self, path, data)

    monkeypatch.setattr(Files, "create", slow_create)
    with pytest.raises(LeaseHeld, match=r"jobs\.holder"):
        late.__enter__()
    (holder,) = holders
    holder.check()
    holder.__exit__()
    assert is_free(uri)


def test_the_lease_file_tells_an_operator_what_is_going_on(uri):
    with Lease(uri, "jobs.backfill"):
        content = json.loads(Path(uri, "_slowwave", "lease", "000000000001.json").read_text())
    assert content["job"] == "jobs.backfill"
    assert content["pid"] == os.getpid()
    assert content["host"] == socket.gethostname()


# --- waiting --------------------------------------------------------------------------------------------


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self):
        self.now_s, self.slept = 0.0, lambda now_s: None

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds
        self.slept(self.now_s)

    def __getattr__(self, name):
        return getattr(time, name)


def test_who_waits_says_for_whom_every_30_s_and_gives_up(uri, monkeypatch, capsys):
    with Lease(uri, "jobs.holder"):
        monkeypatch.setattr("cluster.store.lease.time", clock := Clock())
        with pytest.raises(LeaseHeld, match=r"jobs\.holder .* run again"):
            Lease(uri, "jobs.late", wait_s=70).__enter__()
    assert clock.now_s == 70
    told = [line for line in capsys.readouterr().out.splitlines() if "waiting" in line]
    assert [line.rpartition("; ")[2] for line in told] == [
        f"waiting for it, {left_s} s at most" for left_s in (70, 40, 10)
    ]
    assert all(f"store {uri} is being written by jobs.holder" in line for line in told)


def test_who_waits_takes_the_lease_when_its_holder_has_ended(uri, monkeypatch):
    holder = Lease(uri, "jobs.holder").__enter__()
    monkeypatch.setattr("cluster.store.lease.time", clock := Clock())
    clock.slept = lambda now_s: holder.__exit__() if now_s == 4 else None
    with Lease(uri, "jobs.late", wait_s=70) as late:
        late.check()
    assert clock.now_s == 4


def test_who_waits_for_another_host_s_lease_says_once_that_it_watches(uri, monkeypatch, capsys):
    held_by(uri, **ELSEWHERE)
    files, path = Files(uri, "lease"), "000000000001.json"
    monkeypatch.setattr("cluster.store.lease.time", clock := Clock())

    def renew(now_s):
        if now_s < 10:
            files.put_json(path, files.get_json(path) | {"renewed_boot_s": now_s})

    clock.slept = renew
    with Lease(uri, "jobs.late", wait_s=70):
        assert clock.now_s >= 10
    assert capsys.readouterr().out.count("watching") == 1
