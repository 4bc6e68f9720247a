"""Hosts of their own on one machine: network namespaces on a bridge, each with its own address.

What runs in them shares the disk, as nodes of a cluster do, and nothing else: a host whose link is
down reaches nobody, and nobody reaches it. Needs root and iproute2.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PORT = 8786


def require_namespaces() -> None:
    """Skip where network namespaces cannot be made."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("needs Linux and iproute2")
    name = f"tptry{os.getpid()}"
    if _ip("netns", "add", name, check=False) != 0:
        pytest.skip("network namespaces need root")
    # Also an address in it: some sandboxes allow the one and not the other.
    usable = _ip("netns", "exec", name, "ip", "link", "set", "lo", "up", check=False) == 0
    _ip("netns", "del", name, check=False)
    if not usable:
        pytest.skip("network namespaces cannot be used here")


class Host:
    """One host: a namespace with one link to the bridge."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network, self.name, self.address = network, name, address
        self.namespace = f"{network.prefix}-{name}"
        self._link = f"{network.prefix}{name[0]}{name[-1]}"  # 15 characters at most
        self.processes: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        """Make it."""
        bridge_end, own_end = self._link + "b", self._link + "h"
        _ip("netns", "add", self.namespace)
        _ip("link", "add", bridge_end, "type", "veth", "peer", "name", own_end)
        _ip("link", "set", own_end, "netns", self.namespace)
        _ip("link", "set", bridge_end, "netns", self.network.switch)
        self.network.on_switch("link", "set", bridge_end, "master", "br0", "up")
        inside = ["-n", self.namespace]
        _ip(*inside, "addr", "add", f"{self.address}/24", "dev", own_end)
        _ip(*inside, "link", "set", own_end, "up")
        _ip(*inside, "link", "set", "lo", "up")

    def unplug(self) -> None:
        """Cut it off, as when a switch fails: nothing is closed, nothing arrives."""
        self.network.on_switch("link", "set", self._link + "b", "down")

    def plug(self) -> None:
        """Bring it back."""
        self.network.on_switch("link", "set", self._link + "b", "up")

    def start(self, *words: str, log: Path, blind: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a Python program of this environment on it; ``blind``: without that folder."""
        command = [sys.executable, *words]
        if blind is not None:
            hide = f'mount -t tmpfs none "{blind}" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", hide, "sh", *command]
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command],
                stdout=file,
                stderr=file,
                env=os.environ | self.network.variables,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and all it has started, as a power cut does."""
        kill_tree(process)
        if process in self.processes:
            self.processes.remove(process)

    def down(self) -> None:
        """End all that runs on it, and remove it."""
        for process in list(self.processes):
            self.kill(process)
        _ip("netns", "del", self.namespace, check=False)


class Network:
    """A bridge, and the hosts on it; their traffic is seen by nobody else."""

    def __init__(self, **variables: str) -> None:
        self.prefix = f"tp{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.variables = variables
        self.hosts: list[Host] = []

    def host(self, name: str) -> Host:
        """One more host."""
        host = Host(self, name, f"10.231.77.{len(self.hosts) + 1}")
        self.hosts.append(host)
        host.up()
        return host

    def on_switch(self, *words: str) -> None:
        """`ip` where the bridge is."""
        _ip("-n", self.switch, *words)


@contextmanager
def network(**variables: str) -> Iterator[Network]:
    """A network that is gone afterwards, whatever happens."""
    _remove_stale()
    made = Network(**variables)
    _ip("netns", "add", made.switch)
    try:
        made.on_switch("link", "add", "br0", "type", "bridge")
        made.on_switch("link", "set", "br0", "up")
        yield made
    finally:
        for host in made.hosts:
            host.down()
        _ip("netns", "del", made.switch, check=False)


def _remove_stale() -> None:
    """Remove what tests left that were killed before they could clean up."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        found = re.match(r"tp(\d+)-\w+", line)
        if found is None or psutil.pid_exists(int(found[1])):
            continue
        inside = subprocess.run(
            ["ip", "netns", "pids", found[0]], capture_output=True, text=True, check=False
        )
        for pid in inside.stdout.split():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(int(pid)).kill()
        _ip("netns", "del", found[0], check=False)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of a process and its children."""
    signal_tree(process, signal.SIGKILL)
    process.wait()


def signal_tree(process: subprocess.Popen[bytes], number: int) -> None:
    """A signal to a process and its children."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for one in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)


def wait_for(reached: object, what: str, seconds: float = 600) -> None:
    """Wait until a callable says so; a bound against hanging, nothing is timed."""
    deadline = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(f"this never came to be: {what}")
        time.sleep(0.05)


def _ip(*words: str, check: bool = True) -> int:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.returncode
