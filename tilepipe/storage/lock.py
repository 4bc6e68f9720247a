"""Exclusive use of an output by one process: a lock on a disk, a lease on an object store.

An object store keeps no locks, and does not notice that a process has died. A lease is an object
that its owner writes again every few seconds. It is dead when it has not changed for a while *by
the clock of whoever waits for it*, so that clocks need not agree. It is made, renewed and taken
over by conditional writes only: of two that try, one succeeds.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from tilepipe.storage.errors import StoreError
from tilepipe.storage.objects import ConditionError, ObjectPath, StoragePath

RENEW_SECONDS = 10.0
DEAD_SECONDS = 60.0
"""Seconds after which a lease that was not renewed is free."""


_held_here: set[str] = set()
"""The leases that this process holds."""


class LockedError(Exception):
    """Another process holds the output."""


@contextmanager
def holding_lock(path: StoragePath) -> Iterator[None]:
    """Hold an output for this process alone; one held by a dead process is free.

    Raises
    ------
    LockedError
        When another process holds it.
    """
    if isinstance(path, ObjectPath):
        with _Lease(path):
            yield
        return
    # Taken by one thread, and given back by another.
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(str(path)) from None
    try:
        yield
    finally:
        lock.release()


class _Lease:
    """An object that names the holder of an output, as long as it keeps changing."""

    def __init__(self, path: ObjectPath) -> None:
        self.path = path
        self._id = uuid.uuid4().hex
        self._turn = 0
        self._version: dict[str, str] = {}
        self._end = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> _Lease:
        try:
            self._version = self.path.write_bytes(self._text(), "create")
        except ConditionError:
            self._take_over()
        _held_here.add(self._id)
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._renewing.join()
        _held_here.discard(self._id)
        # Only our own: another's, who took it over, stays. If the store is lost, it ends by itself.
        with suppress(StoreError, OSError):
            if self._is_ours(self.path.read_bytes()):
                self.path.unlink(missing_ok=True)

    def _take_over(self) -> None:
        """Overwrite the lease of a dead owner, unless another process does.

        Waits until that is plain: a living owner's changes within `RENEW_SECONDS`.
        """
        begin, first = time.monotonic(), None
        while True:
            try:
                text, version = self.path.read_tagged()
            except FileNotFoundError:
                version = {}
            else:
                if self._is_ours(text):  # written by a request whose answer was lost
                    self._version = version
                    return
                first = first or version
                if version != first:
                    raise LockedError(str(self.path))
            dead = not version or _ended_here(text) or time.monotonic() - begin > DEAD_SECONDS
            if dead:
                try:
                    self._version = self.path.write_bytes(self._text(), version or "create")
                except ConditionError:
                    raise LockedError(str(self.path)) from None
                return
            time.sleep(min(1.0, RENEW_SECONDS / 4))

    def _renew(self) -> None:
        while not self._end.wait(RENEW_SECONDS):
            try:
                self._version = self.path.write_bytes(self._text(), self._version)
            except ConditionError:
                try:
                    text, version = self.path.read_tagged()
                except (StoreError, OSError):
                    continue
                if not self._is_ours(text):
                    return  # taken over: the other run's id is what ends our tasks
                self._version = version
            except (StoreError, OSError):
                continue  # the run itself will say so, if it lasts

    def _text(self) -> bytes:
        self._turn += 1
        return json.dumps({"id": self._id, "turn": self._turn, **_identity(os.getpid())}).encode()

    def _is_ours(self, text: bytes) -> bool:
        with suppress(ValueError):
            return bool(json.loads(text)["id"] == self._id)
        return False


def _identity(pid: int) -> dict[str, Any]:
    """Identify a process by its host, its process namespace and its start time."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    try:
        born = psutil.Process(pid).create_time()
    except psutil.Error:
        born = 0.0
    return {"host": socket.gethostname(), "namespace": namespace, "pid": pid, "born": born}


def _ended_here(text: bytes) -> bool:
    """Tell whether a lease's owner was a process of this host that has ended, or released it."""
    try:
        owner = json.loads(text)
        here = _identity(int(owner["pid"]))
        if any(owner[key] != here[key] for key in ("host", "namespace")):
            return False
        if abs(owner["born"] - here["born"]) > 1:
            return True
        return owner["pid"] == os.getpid() and owner["id"] not in _held_here
    except (ValueError, KeyError, TypeError):
        return False
