"""A model made ready on a device: pixels of a window in, logits of its kept outputs out."""

from __future__ import annotations

from typing import Any

from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model


class ReadyModel:
    """A model whose predictor is open; used from one thread.

    It takes and gives torch's tensors, or numpy's arrays where the runtime does
    (`Predictor.takes_arrays`).
    """

    def __init__(
        self, model: Model, device: str, precision: Precision, threads: int, runtime: str
    ) -> None:
        self.runtime = model.predictor.open(device, precision, threads, runtime)
        self._geometry = model.geometry
        self._normalise: Any
        if model.predictor.takes_arrays(runtime):
            from tilepipe.models.normalisation import ArrayNormalisation

            self._normalise = ArrayNormalisation(model.input, threads)
        else:
            from tilepipe.models.tensor_normalisation import TensorNormalisation

            self._normalise = TensorNormalisation(model.input, device, self.runtime.dtype)

    def predict(self, pixels: Any, holes: Any, keep: tuple[int, int]) -> Any:
        """Logits of one window, (1, outputs, rows, columns); arrays last until the next window.

        Parameters
        ----------
        pixels
            (height, width, bands), in the image's own type, on the device.
        holes
            True where there is no data, (height, width, bands), or (height, width, 1) where all
            bands agree; None where all of it is data.
        keep
            (rows, columns) of outputs kept, from the model's margin on.
        """
        logits = self.runtime(self._normalise(pixels, holes))
        return logits[(..., *self._geometry.crop(keep))]
