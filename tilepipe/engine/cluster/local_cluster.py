"""Workers on this machine that nobody else on it can reach.

Whoever reaches a Dask scheduler or worker can run code in it. So the one worker inside this process
listens nowhere, and worker processes take connections only from those that have the key of this
run. There is no dashboard, and no port for one.
"""

from __future__ import annotations

import logging
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Worker
from distributed.http.routing import RoutingApplication
from distributed.security import Security
from tornado.httpserver import HTTPServer

LOOPBACK = "127.0.0.1"


class _WithoutPages:
    """A scheduler or worker whose pages for browsers are served nowhere."""

    http_application: Any
    http_server: Any

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Make what is needed for it, and do not listen."""
        self.http_application = RoutingApplication([])
        self.http_server = HTTPServer(self.http_application)


class QuietScheduler(_WithoutPages, Scheduler):  # type: ignore[misc]
    """A scheduler without pages."""


class QuietWorker(_WithoutPages, Worker):  # type: ignore[misc]
    """A worker without pages."""


class QuietNanny(Nanny):  # type: ignore[misc]
    """Starts the process of such a worker, and starts it anew when it dies."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, worker_class=QuietWorker, **options)


def start_local_cluster(processes: int | None, threads: int, allowed_failures: int) -> Any:
    """Start a scheduler and workers on this machine, for this process alone.

    Parameters
    ----------
    processes
        Workers in processes of their own; None: one worker inside this process.
    threads
        Tasks that a worker has in hand.
    allowed_failures
        Deaths of workers after which the task that they had in hand is given up.
    """
    options: dict[str, Any] = {"protocol": "inproc://", "security": Security()}
    if processes is not None:
        # Keys and certificates of its own, kept in memory: other users have none.
        options = {"protocol": "tls://", "host": LOOPBACK, "security": Security.temporary()}
    worker = {
        "cls": QuietWorker if processes is None else QuietNanny,
        "options": {
            **options,
            "nthreads": threads,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
        },
    }
    return SpecCluster(
        scheduler={
            "cls": QuietScheduler,
            "options": {**options, "dashboard": False, "allowed_failures": allowed_failures},
        },
        workers=dict.fromkeys(range(processes or 1), worker),
        worker=worker,
        security=options["security"],
        # What fails is told by the run, in one line, and not as a worker's traceback.
        silence_logs=logging.CRITICAL,
    )
