"""Nobody else on this machine can run code in the workers of a run."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dask
import distributed  # noqa: F401 - loads its settings
import psutil
import pytest

from tilepipe.engine.cluster.connect import connect
from tilepipe.engine.cluster.dask_settings import dask_settings
from tilepipe.engine.options import RunOptions

INTRUDER = """
import asyncio, os, sys
from distributed import Client
from distributed.comm import connect
from distributed.security import Security

async def reach(address, patience, **arguments):
    comm = await connect(address, timeout=patience, **arguments)
    await comm.close()

def attempt(port, patience):
    for protocol, security in (("tcp", Security()), ("tls", Security.temporary())):
        address = f"{protocol}://127.0.0.1:{port}"
        arguments = security.get_connection_args("client") if protocol == "tls" else {}
        try:
            asyncio.run(reach(address, patience, **arguments))
        except (OSError, TimeoutError):
            print("refused", address)
            continue
        print("reached", address)
        client = Client(address, timeout=patience, security=security)
        print("ran code as user", client.submit(os.getuid).result(timeout=patience), flush=True)
        os._exit(0)

patience, user, *ports = map(int, sys.argv[1:])
attempt(9, 1)  # where nobody listens: so that all is loaded that this user may not read
os.setuid(user)
print("intruder is", os.getuid())
for port in ports:
    attempt(port, patience)
"""
"""Connects to ports as another user, without a key and with one of its own making."""


def listening() -> set[tuple[str, int]]:
    """Addresses on which this process and those that it started listen."""
    me = psutil.Process()
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def intrude(ports: set[int], user: int | None = None, patience: int = 2) -> list[str]:
    """What an intruder says of ports, one line for each attempt, each of so many seconds."""
    user = os.getuid() if user is None else user
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, str(patience), str(user), *map(str, sorted(ports))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return lines[lines.index(f"intruder is {user}") + 1 :]


def refused(ports: set[int]) -> list[str]:
    return [
        f"refused {kind}://127.0.0.1:{port}" for port in sorted(ports) for kind in ("tcp", "tls")
    ]


@contextmanager
def opened(options: RunOptions) -> Iterator[set[int]]:
    """The ports that are open while a run has its workers, all of them for this machine only."""
    before = listening()
    with connect(options) as (workers, _):
        assert workers.client.submit(os.getpid).result()
        found = listening() - before
        assert {ip for ip, _ in found} <= {"127.0.0.1"}
        yield {port for _, port in found}
    assert listening() <= before


@pytest.fixture
def cluster_file(tmp_path: Path) -> str:
    path = tmp_path / "local.yaml"
    path.write_text("cluster: local\nworkers: 1\n")
    return str(path)


def test_one_worker_in_this_process_listens_nowhere() -> None:
    with opened(RunOptions("i.tif")) as ports:
        assert not ports


@pytest.mark.slow
def test_worker_processes_are_reached_with_their_own_key_only() -> None:
    with opened(RunOptions("i.tif", workers=1)) as ports:
        assert len(ports) == 3  # of scheduler, nanny and worker; none for pages
        assert intrude(ports) == refused(ports)


@pytest.mark.slow
def test_neither_are_those_of_a_cluster_file(cluster_file: str) -> None:
    with opened(RunOptions("i.tif", cluster=cluster_file)) as ports:
        pages = {port: status for port in ports if (status := page(port))}
        assert set(pages.values()) == {"404"}  # Dask cannot be told to open none
        assert len(ports - set(pages)) == 3
        assert intrude(ports - set(pages)) == refused(ports - set(pages))


def another_user() -> int:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    return pwd.getpwnam("nobody").pw_uid


@pytest.mark.slow
def test_another_user_cannot_run_code() -> None:
    with opened(RunOptions("i.tif", workers=1)) as ports:
        assert intrude(ports, another_user()) == refused(ports)


@pytest.mark.slow
def test_the_same_intruder_gets_in_where_no_key_is_asked_for() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        port = int(cluster.scheduler_address.rpartition(":")[2])
        said = f"ran code as user {os.getuid()}"
        assert intrude({port}, patience=60)[-1] == said
        assert intrude({port}, another_user(), patience=60)[-1] == said


def page(port: int) -> str:
    """The status of a page on a port, or nothing where it serves none."""
    from http.client import HTTPConnection, HTTPException

    with closing(HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        try:
            connection.request("GET", "/info/main/workers.html")
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except (OSError, HTTPException):
            return ""


@pytest.mark.slow
def test_a_dashboard_that_is_asked_for_is_there(tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    path.write_text('cluster: local\narguments: {dashboard_address: "127.0.0.1:0"}\n')
    with opened(RunOptions("i.tif", cluster=str(path))) as ports:
        assert "200" in {page(port) for port in ports}


def test_settings_of_runs_that_overlap_are_given_back_by_the_last() -> None:
    name = "distributed.worker.memory.pause"
    before = dask.config.get(name)
    first_in, first_out = threading.Event(), threading.Event()

    def first() -> None:
        with dask_settings({name: False}):
            first_in.set()
            first_out.wait(600)

    thread = threading.Thread(target=first)
    thread.start()
    first_in.wait(600)
    with dask_settings({name: False}):
        first_out.set()
        thread.join()
        assert dask.config.get(name) is False
    assert dask.config.get(name) == before
