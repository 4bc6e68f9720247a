"""What the tests of the engine share."""

from __future__ import annotations

from tilepipe.engine.sizing import MemoryModel
from tilepipe.models.specs import Model


def foretold(model: Model, name: str, side: int) -> int:
    """What the plan counts for a pass."""
    memory = object.__new__(MemoryModel)
    memory._model, memory._runtime, memory._precision = model, name, "fp32"
    memory._weights, memory._forward, memory._gpu = 4 * model.weights, {}, False
    memory._peak = None
    return memory.forward((side, side))
