"""What computes the windows of a device: torch, or a library that takes numpy arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import NonFiniteError
from tilepipe.images.validity import Validity
from tilepipe.models.precision import Precision
from tilepipe.models.ready import ReadyModel
from tilepipe.models.specs import Model
from tilepipe.products.product import Product


class Request(NamedTuple):
    """One window to be computed; see `Device.answer`."""

    pixels: NDArray[Any]
    valid: Validity | None
    keep: tuple[int, int]
    products: tuple[Product, ...]

    @property
    def holes(self) -> NDArray[np.bool_] | None:
        """Where there is no data."""
        return None if self.valid is None else ~self.valid


class Backend(ABC):
    """A model ready on a device; used from the device's thread."""

    pipelined = False
    """Whether windows are queued on a GPU, and waited for by another thread."""

    def __init__(
        self, model: Model, device: str, precision: Precision, threads: int, runtime: str
    ) -> None:
        # Not the model itself: its weights are free once the runtime has its own.
        self.output, self.precision = model.output, precision
        self.ready = ReadyModel(model, device, precision, threads, runtime)

    @abstractmethod
    def logits(self, request: Request) -> NDArray[np.float64]:
        """The logits of a window, (outputs, rows, columns)."""

    @abstractmethod
    def encoded(self, request: Request) -> list[NDArray[Any]]:
        """Each product of a window, in memory of its own: (rows, columns) or (C, rows, columns).

        Raises
        ------
        NonFiniteError
            When the logits are not finite.
        """

    def begin(self, request: Request) -> Any:
        """Queue a window, where they are `pipelined`; see `finish`."""
        raise NotImplementedError

    def finish(self, queued: Any) -> list[NDArray[Any]]:
        """Each product of a window that `begin` queued, in another thread; see `encoded`."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release the memory of the device."""

    def not_finite(self) -> NonFiniteError:
        """The error about logits that are not finite."""
        advice = (
            "half precision overflows here: use --precision bf16 or fp32"
            if self.precision is Precision.FP16
            else "check the image's values and the model's normalisation"
        )
        return NonFiniteError(f"the network's logits are not finite in {self.precision}; {advice}")
