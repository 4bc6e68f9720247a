"""What a client leaves behind that could not connect."""

from __future__ import annotations

import gc
import threading

import pytest

from tilepipe.engine.cluster.client import ClosingClient


@pytest.mark.parametrize(
    ("address", "error"),
    [("not-a-protocol://nowhere:1", ValueError), ("tcp://127.0.0.1:9", OSError)],
)
def test_a_client_that_cannot_connect_leaves_no_loop_to_the_garbage_collector(
    address: str, error: type[Exception]
) -> None:
    """Collected in the thread of another loop, Dask's own held that up until it gave in."""
    before = set(threading.enumerate())
    gc.disable()
    try:
        with pytest.raises(error):
            ClosingClient(address, timeout=0.5, set_as_default=False)
        loops = [t for t in set(threading.enumerate()) - before if "loop" in t.name]
    finally:
        gc.enable()
    assert not loops
