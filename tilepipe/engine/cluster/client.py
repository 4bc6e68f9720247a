"""Dask's client, closed where it cannot connect."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from distributed import Client


class ClosingClient(Client):  # type: ignore[misc]  # Dask has no types
    """A client that closes what it began when it cannot connect.

    Dask's own leaves that to the garbage collector, which waits for the client's event loop: 20
    seconds for nothing where it runs in the thread of that loop, and the next client fails.
    """

    def start(self, **kwargs: Any) -> None:
        """Connect to the scheduler; raises what the client of Dask raises."""
        try:
            super().start(**kwargs)
        except BaseException:
            with suppress(Exception):
                self.close()
            # Where it has closed itself, its loop goes on.
            self._loop_runner.stop()
            raise
