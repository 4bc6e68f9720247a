"""What becomes of a block that comes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tilepipe.engine.cluster.pool import Outcome, Task
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.run.blocks import Blocks
from tilepipe.engine.work.block import compute_block
from tilepipe.errors import UnreadableError


def test_a_block_that_is_read_around_damage_is_tried_as_often_as_any() -> None:
    run: Any = SimpleNamespace(callbacks=RunCallbacks())
    given_up = Task(compute_block, ("store", "run", 7), 7, attempt=2)
    again = Blocks(run).receive(Outcome(given_up, error=UnreadableError("damaged")))
    assert again is not None
    assert (again.arguments, again.label, again.attempt) == (("store", "run", 7, True), 7, 0)
