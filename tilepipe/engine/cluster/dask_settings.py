"""Dask's settings during a run.

Dask's configuration is global. The first of several simultaneous runs that needs a setting sets it,
and the last one restores it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RUN: dict[str, Any] = {
    # The plan bounds memory; there is nothing but small reports to spill.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Dask would set these variables in this process and leave them there. They have no effect,
    # because the plan sets the threads of a pass.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.admin.tick.limit": "1h",
    "distributed.scheduler.locks.lease-timeout": "inf",
}

OWN_CLUSTER: dict[str, Any] = {
    # Gives up a worker on a lost host within minutes, even if its connection hangs.
    "distributed.scheduler.worker-ttl": "2 minutes"
}

NO_PAGES: dict[str, Any] = {
    # Web pages, which anybody could open.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}

_lock = threading.Lock()
_held: dict[str, tuple[int, Any]] = {}
"""For each setting, the number of runs that need it, and its value before."""


@contextmanager
def dask_settings(settings: dict[str, Any]) -> Iterator[None]:
    """Apply settings as long as the context lasts; all users of one must agree on its value."""
    import dask
    import distributed  # noqa: F401 - loads its defaults, which are restored

    with _lock:
        for name, value in settings.items():
            users, before = _held.get(name, (0, None))
            if users == 0:
                before = dask.config.get(name, None)
                dask.config.set({name: value})
            _held[name] = (users + 1, before)
    try:
        yield
    finally:
        with _lock:
            for name in settings:
                users, before = _held.pop(name)
                if users > 1:
                    _held[name] = (users - 1, before)
                else:
                    dask.config.set({name: before})
