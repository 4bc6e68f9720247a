"""Tasks of the stages that make objects, on a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilepipe.engine.work.context import borrowed


def object_task(store: str, run_id: str, function: Callable[..., Any], *item: Any) -> Any:
    """Call ``function(*item)``, unless another run has taken over."""
    with borrowed(store, run_id) as context:
        context.require_current(run_id)
        return function(*item)
