"""Ray clusters of several nodes on this machine, of which one can be lost as a machine is: all of it at once,
and without a word."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

ENV = {
    "RAY_AUTH_MODE": "disabled",
    # A submitted job is a child of the head and finds `python` by its PATH.
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    # Ray's workers would have niceness 15, and starve beside tests that work in their own process.
    "RAY_worker_niceness": "0",
    # Of a node that is gone the head knows after 3 s, and not after half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class Node:
    """A node with all its processes: `ray start --block`, what that starts, and the workers."""

    process: subprocess.Popen

    def titles(self) -> list[str]:
        """Of its processes. Ray calls a worker by what it is doing: `ray::MapBatches(cut_unit)`."""
        found = []
        for one in self._processes():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(one.cmdline()).strip())
        return found

    def freeze(self) -> None:
        """Let it stand still, all of it: what it was doing it is still doing when it is looked at."""
        # Twice, for what was started while they were listed.
        self._tell(psutil.Process.suspend)
        self._tell(psutil.Process.suspend)

    def thaw(self) -> None:
        self._tell(psutil.Process.resume)

    def kill(self) -> None:
        """As a machine that loses its power. Asked to end, it would take half a minute."""
        self.freeze()
        self._tell(psutil.Process.kill)
        self.process.stdout.close()
        self.process.wait()

    def _tell(self, what: Callable[[psutil.Process], None]) -> None:
        for one in self._processes():
            with contextlib.suppress(psutil.Error):
                what(one)

    def _processes(self) -> list[psutil.Process]:
        """By their parents: each worker has a group of its own."""
        if self.process.poll() is not None:
            return []
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []


class Cluster:
    """A head, `ray start --head OPTIONS` on free ports, and the nodes that are added. Use as a context
    manager, at whose end all of them are killed. `env` is what leads a job there.

    It has a folder of its own: a submitted job looks for its cluster there, and in the common folder stands
    the one that was started last.
    """

    def __init__(self, *options: str):
        self._options = options

    def __enter__(self) -> "Cluster":
        # Short, because the paths of sockets may have 107 characters.
        self._folder, self.nodes = tempfile.mkdtemp(prefix="ray-"), []
        names = ("port", "dashboard-port", "ray-client-server-port")
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self._address = f"127.0.0.1:{ports['port']}"
        self.env = ENV | {
            "RAY_ADDRESS": self._address,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard-port']}",
        }
        options = [f"--{name}={port}" for name, port in ports.items()]
        try:
            self.head = self._started("--head", "--temp-dir", self._folder, *options, *self._options)
            _wait_for(self.head)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, *options: str, count: int = 1) -> list[Node]:
        """More nodes, each `ray start OPTIONS`, one by one: of several at once some never come up."""
        added = []
        for _ in range(count):
            added.append(self._started("--address", self._address, *options))
            _wait_for(added[-1])
        return added

    def _started(self, *options: str) -> Node:
        command = ["ray", "start", "--block", "--node-ip-address", "127.0.0.1", *options]
        # Nodes on one machine would take each other's ports.
        command += [f"--dashboard-agent-listen-port={_free_ports(1)[0]}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        process = subprocess.Popen(
            command,
            # Another cluster that the environment names is none of its business.
            env={name: value for name, value in (os.environ | ENV).items() if name != "RAY_ADDRESS"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.nodes.append(Node(process))
        return self.nodes[-1]


def _wait_for(node: Node) -> None:
    said = ""
    while "Ray runtime started" not in said:
        line = node.process.stdout.readline()
        assert line, said
        said += line


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
