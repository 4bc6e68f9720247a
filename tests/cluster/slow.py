"""Preloaded into workers (`dask worker --preload`): reading a block takes a while."""

from __future__ import annotations

import os
import time
from typing import Any

from tilepipe.engine.work import block


def dask_setup(_: Any) -> None:
    """Slow down what this process reads for blocks."""
    read, seconds = block.read_with_valid, float(os.environ["TILEPIPE_TEST_DELAY"])

    def slow_read(*arguments: Any) -> Any:
        time.sleep(seconds)
        return read(*arguments)

    block.read_with_valid = slow_read
