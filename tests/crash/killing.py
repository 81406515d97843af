"""Processes that die at the n-th write of a job: at a call of the file system, or at a request to S3.

A server process has everything imported and forks a child for each job, so that a kill costs no start. On a
local store, a small library in front of the C library (killer.c) counts the calls that create, change, rename
or delete a file, Lance's own ones included, and ends the child at the n-th. On S3, the test's own server
counts the requests that change something, and kills the child before or after it has done the n-th.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import boto3
import pytest

from tests.buckets import serving
from tests.ceph import forwarded
from tests.s3_server import Answer, Do, Request, S3Server

ROOT = Path(__file__).parents[2]


# --- the server process -----------------------------------------------------------------------------------


def serve() -> None:
    """Read jobs from stdin, one a line, and fork a child for each."""
    from tests.crash.operations import OPERATIONS

    killer = ctypes.CDLL(None)
    is_local = hasattr(killer, "killer_arm")
    for line in sys.stdin:
        job = json.loads(line)
        told, tell = os.pipe()
        go, let_go = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.read(go, 1)
                if is_local:
                    killer.killer_arm(ctypes.c_long(job["at"]), job["store"].encode())
                OPERATIONS[job["name"]](job["store"])
                os.write(tell, str(killer.killer_calls() if is_local else 0).encode())
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(tell)
        os.close(go)
        print(json.dumps({"pid": child}), flush=True)
        sys.stdin.readline()
        os.write(let_go, b"x")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": status, "calls": int(os.read(told, 20) or 0)}), flush=True)
        os.close(told)
        os.close(let_go)


# --- the test's side ----------------------------------------------------------------------------------------


def killer_library(folder: Path) -> str:
    """Build the library. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a C compiler on Linux is needed to kill a process at its n-th write")
    library = folder / "killer.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        library,
        Path(__file__).with_name("killer.c"),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return str(library)


class Jobs:
    """Runs operations on stores in processes that may be killed."""

    def __init__(self, **env: str):
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.crash.killing"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "LANCE_LOG": "error", "RUST_LOG": "error"} | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, store: str, at: int = 0, on_start=None) -> tuple[bool, int]:
        """Whether the operation came to its end, and how many writes it made."""
        print(json.dumps({"name": name, "store": store, "at": at}), file=self._server.stdin, flush=True)
        pid = json.loads(self._server.stdout.readline())["pid"]
        if on_start:
            on_start(pid)
        print("go", file=self._server.stdin, flush=True)
        done = json.loads(self._server.stdout.readline())
        # Anything but a kill is a failure of the operation: the child's traceback is above.
        assert done["code"] in (0, 137, -signal.SIGKILL), f"{name} on {store}, killed at {at}: failed"
        return done["code"] == 0, done["calls"]

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


class Bucket:
    """An S3 server in this process that can kill a client at its n-th request that changes something. With
    the variable SLOWWAVE_S3 it stands in front of a real one."""

    NAME = "crash"

    def __init__(self) -> None:
        self._lock, self._pid, self._at, self._is_after, self.num = threading.Lock(), None, 0, False, 0
        self._stack = contextlib.ExitStack()
        self._is_real = os.environ.get("SLOWWAVE_S3") is not None
        upstream = self._stack.enter_context(serving())["AWS_ENDPOINT_URL"] if self._is_real else None
        self._server = S3Server(forwarded(upstream) if upstream else None)
        self._server.around = self._answer
        self._server.start()
        self.env = self._server.environment | {"AWS_EC2_METADATA_DISABLED": "true"}

    def make(self) -> None:
        boto3.client("s3").create_bucket(Bucket=self.NAME)

    def copied(self, source: str, target: str) -> str:
        """A copy of a store, in the place of what is there."""
        if self._is_real:
            client = boto3.client("s3")
            for key in self._keys(client, target):
                client.delete_object(Bucket=self.NAME, Key=key)
            for key in self._keys(client, source):
                place = {"Bucket": self.NAME, "Key": key}
                client.copy_object(Bucket=self.NAME, Key=target + key.removeprefix(source), CopySource=place)
        else:
            self._server.copy(self.NAME, source, target)
        return self.uri(target)

    def uri(self, store: str) -> str:
        return f"s3://{self.NAME}/{store}"

    def _keys(self, client, folder: str) -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.NAME, Prefix=f"{folder}/")
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def arm(self, pid: int | None, at: int = 0, is_after: bool = False) -> None:
        """Kill this process at its n-th change, before or after it is done. At 0, count."""
        with self._lock:
            self._pid, self._at, self._is_after, self.num = pid, at, is_after, 0

    def _answer(self, request: Request, do: Do) -> Answer:
        is_last, pid = False, None
        if request.is_change:
            with self._lock:
                self.num += 1
                pid, is_last = self._pid, self._pid is not None and self.num == self._at
        if is_last and not self._is_after:
            os.kill(pid, signal.SIGKILL)
            # A process is gone a moment after the call.
            time.sleep(0.05)
            return Answer(503)
        answer = do(request)
        if is_last:
            os.kill(pid, signal.SIGKILL)
        return answer

    def close(self) -> None:
        self._server.stop()
        self._stack.close()


@contextlib.contextmanager
def environment(env: dict[str, str]):
    """These variables in this process too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield


if __name__ == "__main__":
    serve()
