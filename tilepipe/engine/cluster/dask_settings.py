"""Dask's settings for as long as a run lasts, also where several last at the same time.

They are of the whole process. The first run that needs one sets it, and the last gives it back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RUN: dict[str, Any] = {
    # Memory is bounded by the plan; spilling or pausing tiny receipts helps nobody.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Variables for worker processes, which Dask sets in this process first and leaves there. None
    # of them counts: a pass is told its threads.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.admin.tick.limit": "1h",
    "distributed.scheduler.locks.lease-timeout": "inf",
}

OWN_CLUSTER: dict[str, Any] = {
    # A worker whose host is gone is given up in minutes, also where its connection hangs.
    "distributed.scheduler.worker-ttl": "2 minutes",
}

NO_PAGES: dict[str, Any] = {
    # Pages for browsers, which anybody could look at.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}

_lock = threading.Lock()
_held: dict[str, tuple[int, Any]] = {}
"""How many need each setting, and what it was before."""


@contextmanager
def dask_settings(settings: dict[str, Any]) -> Iterator[None]:
    """Keep settings for as long as this lasts; all that name one must agree on its value."""
    import dask
    import distributed  # noqa: F401 - loads its defaults, which are what is given back

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
