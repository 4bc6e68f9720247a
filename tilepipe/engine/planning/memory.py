"""The memory that a run needs, computed before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from tilepipe.engine.resources import PROCESS, Resources
from tilepipe.engine.work.torch_facts import is_loaded
from tilepipe.grid import Tiling
from tilepipe.images import Image
from tilepipe.images.resampled import ResampledImage
from tilepipe.models.precision import Precision
from tilepipe.products.product import main_product, product_named
from tilepipe.text import gigabytes

if TYPE_CHECKING:
    from tilepipe.models.specs import Model


class MemoryModel:
    """The memory that a tiling needs in bytes."""

    FINISHING = 150 * 10**6
    """Libraries and caches of writers and of Dask, which are loaded later."""
    TORCH = 250 * 10**6
    """Torch, where it is not loaded yet: a later pass, product or stage may need it."""

    def __init__(
        self,
        image: Image,
        level: int,
        model: Model,
        resources: Resources,
        device: str,
        precision: str,
        extras: Sequence[str],
        runtime: str | None = None,
    ) -> None:
        self._image, self._level, self._model, self._resources = image, level, model, resources
        self._gpu = device.startswith("cuda")  # other GPUs share the machine's memory
        products = (main_product(model.output), *map(product_named, extras))
        self._bytes_of_pixel = sum(product.working_bytes(model.output) for product in products)
        self._weights = model.predictor.weight_bytes
        self._pass_bytes = model.predictor.memory(
            model.geometry, Precision(precision), runtime or model.predictor.runtimes[0],
            device.split(":")[0],
        )  # fmt: skip
        self._base = int(psutil.Process().memory_info().rss) + self.FINISHING
        self._base += 0 if is_loaded() else self.TORCH

    def total(self, tiling: Tiling) -> int:
        """Memory of all processes of this machine, or of each external worker."""
        resources = self._resources
        if resources.in_process:
            return self._base + self.worker(tiling)
        process = PROCESS + self._weights + self.worker(tiling)
        return self._base + resources.workers * process if resources.local else process

    def slots(self, tiling: Tiling, limit: int) -> int:
        """The blocks that a worker may handle at once within ``limit``: at least as planned."""
        resources = self._resources
        room = max(0, limit - self.total(tiling)) // self.slot(tiling)
        return max(resources.slots, min(resources.most_slots, resources.slots + room))

    def with_slots(self, slots: int) -> MemoryModel:
        """The same with so many blocks at once."""
        return self._with(slots=slots)

    def fits(self, tiling: Tiling, limit: int) -> bool:
        """Whether a tiling fits ``limit``, and its pass fits the GPU's memory."""
        if self.total(tiling) > limit:
            return False
        gpu = self._resources.gpu_memory
        return gpu is None or self.gpu_bytes(tiling) <= gpu

    def needs(self, tiling: Tiling) -> str:
        """The memory that a tiling needs, in words."""
        text, gpu = gigabytes(self.total(tiling)), self._resources.gpu_memory
        if gpu is not None:
            text += f" and {gigabytes(self.gpu_bytes(tiling))} of the GPU's {gigabytes(gpu)}"
        return text

    def worker(self, tiling: Tiling) -> int:
        """The memory that a worker takes for blocks."""
        # On a GPU, a pass takes CUDA's own pinned buffers and context.
        forward = 400 * 10**6 if self._gpu else self._pass_bytes(*tiling.input)
        return forward + self._resources.slots * self.slot(tiling)

    def gpu_bytes(self, tiling: Tiling) -> int:
        """The memory of a GPU that a pass takes, as far as it can be counted."""
        return self._weights + self._pass_bytes(*tiling.input)

    def with_gpu(self, limit: int) -> MemoryModel:
        """The same with so many bytes of the GPU's memory to fill."""
        return self._with(gpu_memory=limit)

    def _with(self, **changes: Any) -> MemoryModel:
        other = copy(self)
        other._resources = replace(self._resources, **changes)
        return other

    @property
    def chunk(self) -> tuple[int, int]:
        """(height, width) of the tiles or strips in which the image is decoded."""
        if isinstance(self._image, ResampledImage):
            return self._image.source_chunk
        return self._image.chunks[self._level]

    def decoding(self) -> int:
        """Memory for decoding, for one block."""
        rows, columns = self.chunk
        return 10 * rows * columns * self._image.decoded_bytes

    def slot(self, tiling: Tiling) -> int:
        """Memory of one block: its pixels, twice while they are put together, and its products."""
        reach = tiling.full_reach(0)
        pixel = self._image.bands * np.dtype(self._image.dtype).itemsize
        reading = 2 * reach.area * pixel
        if self._image.validity_by_band:
            reading += reach.area * self._image.bands  # the validity of each band
        if isinstance(self._image, ResampledImage):
            reading += self._image.reading_bytes(*reach.shape)
        # A window is decoded in the file's own type, with all the bands that it stores together.
        if self._image.decoded_bytes > pixel:
            reading += reach.area * self._image.decoded_bytes
        block = min(tiling.block[0], tiling.height) * min(tiling.block[1], tiling.width)
        return reading + self.decoding() + 2 * block * self._bytes_of_pixel
