"""Windows as numpy arrays, on the CPU, for runtimes other than torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.work.backend import Backend, Request


class ArrayBackend(Backend):
    """A model in a runtime that takes and gives arrays; torch need not be loaded."""

    def logits(self, request: Request) -> NDArray[np.float64]:
        """The logits of a window."""
        logits: NDArray[np.float64] = self._pass(request)[0].astype(np.float64)
        return logits

    def encoded(self, request: Request) -> list[NDArray[Any]]:
        """Each product of a window."""
        logits, found = self._pass(request), list[NDArray[Any]]()
        for product in request.products:
            array = product.encode_array(logits, self.output)
            # The next pass may take the memory of these logits.
            shared = any(np.may_share_memory(array, other) for other in (logits, *found))
            found.append(array.copy() if shared else array)
        return [array[0] for array in found]

    def _pass(self, request: Request) -> NDArray[np.float32]:
        """The logits of a window, all of them finite; they last until the next pass."""
        logits: NDArray[np.float32]
        logits = self.ready.predict(request.pixels, request.holes, request.keep)
        # A sum is finite only if all of it is, and takes no plane of truth values; it may overflow
        # by itself, hence the second look.
        with np.errstate(all="ignore"):
            total = logits.sum()
        if not np.isfinite(total) and not np.isfinite(logits).all():
            raise self.not_finite()
        return logits
