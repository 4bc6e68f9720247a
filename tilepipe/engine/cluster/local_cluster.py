"""Worker processes of this machine that other users cannot reach.

Anybody who can connect to a Dask scheduler or worker can run code in it. So these accept only
connections with the key of this run. There is no dashboard, and no port for one.
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
    """A scheduler or worker that serves no web pages."""

    http_application: Any
    http_server: Any

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Create the server, which Dask expects, without listening."""
        self.http_application = RoutingApplication([])
        self.http_server = HTTPServer(self.http_application)


class QuietScheduler(_WithoutPages, Scheduler):  # type: ignore[misc]
    """A scheduler without web pages."""


class QuietWorker(_WithoutPages, Worker):  # type: ignore[misc]
    """A worker without web pages."""


class QuietNanny(Nanny):  # type: ignore[misc]
    """Starts the process of a `QuietWorker`, and restarts it when it dies."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, worker_class=QuietWorker, **options)


def start_local_cluster(processes: int, threads: int, allowed_failures: int) -> Any:
    """Start a scheduler and ``processes`` workers on this machine, for this process alone.

    Each worker runs up to ``threads`` tasks at once. A task is given up after ``allowed_failures``
    workers have died while they ran it.
    """
    # Keys and certificates are kept in memory, so other users have none.
    security = Security.temporary()
    options: dict[str, Any] = {"protocol": "tls://", "host": LOOPBACK, "security": security}
    worker = {
        "cls": QuietNanny,
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
        workers=dict.fromkeys(range(processes), worker),
        worker=worker,
        security=security,
        # The run reports failures in one line, without a worker's traceback.
        silence_logs=logging.CRITICAL,
    )
