"""A real S3 server for `make test-s3`: Ceph's object gateway on a monitor and an OSD in memory.

All of it comes from Debian's packages (radosgw, ceph-mon, ceph-osd; `make test-s3` installs them), runs as
this user on ports of this machine, lies in a temporary folder, and is gone with the context. Nothing
authenticates inside the cluster; the gateway checks signatures as ever.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.s3_server import Answer, Do, Request

NEEDED = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")

START_S = 120

CONFIG = """[global]
fsid = {fsid}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_cluster_mode = crc
ms_service_mode = crc
ms_client_mode = crc
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
ms_mon_client_mode = crc
mon_host = v2:127.0.0.1:{port}
mon_data = {folder}/mon
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
rgw_rados_pool_pg_num_min = 1
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
run_dir = {folder}
admin_socket = {folder}/$name.sock
log_file = {folder}/$name.log
pid_file = {folder}/$name.pid
"""


@contextlib.contextmanager
def serving_ceph(user: str, secret: str) -> Iterator[str]:
    """The gateway's address while the context lasts, with one user, whose access key is `user`."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.fail(f"{missing} are not installed; `make test-s3` installs them")
    # A short path: its sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="ceph-", ignore_cleanup_errors=True) as folder:
        try:
            yield _start(Path(folder), user, secret)
        finally:
            for file in Path(folder).glob("*.pid"):
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(file.read_text()), signal.SIGKILL)


def _start(folder: Path, user: str, secret: str) -> str:
    fsid, port, gateway = str(uuid.uuid4()), _free_port(), _free_port()
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    config, monmap = folder / "ceph.conf", folder / "monmap"
    config.write_text(CONFIG.format(fsid=fsid, port=port, folder=folder))

    def run(*command: str | Path) -> None:
        subprocess.run(
            list(map(str, command)),
            env=os.environ | {"CEPH_CONF": str(config)},
            check=True,
            timeout=START_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    run("ceph-mon", "-i", "a")
    run("ceph", "osd", "create")
    run("ceph-osd", "-i", "0", "--mkfs")
    run("ceph-osd", "-i", "0")
    run("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
    keys = ("--access-key", user, "--secret-key", secret)
    run("radosgw-admin", "user", "create", "--uid", user, "--display-name", user, *keys)
    run("radosgw", "-n", "client.rgw", "--rgw-frontends", f"beast endpoint=127.0.0.1:{gateway}")
    endpoint, end_s = f"http://127.0.0.1:{gateway}", time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(endpoint).close()
            return endpoint
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.2)


def forwarded(endpoint: str) -> Do:
    """Does requests by another server, which sees them as they were signed."""
    here, host = threading.local(), urlsplit(endpoint).netloc

    def do(request: Request) -> Answer:
        if not hasattr(here, "connection"):
            here.connection = http.client.HTTPConnection(host)
        headers = {name: value for name, value in request.headers.items() if name != "transfer-encoding"}
        headers["content-length"] = str(len(request.body))
        here.connection.request(request.method, request.target, request.body, headers)
        found = here.connection.getresponse()
        kept = {
            name: value
            for name, value in found.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "date")
        }
        body = found.read()
        if request.method != "HEAD":
            kept.pop("Content-Length", None)
        return Answer(found.status, body, kept)

    return do


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
