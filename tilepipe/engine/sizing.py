"""How large a window may be: memory computed before anything runs, and the least work within it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan import ImageFacts, gigabytes
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Geometry, Tiling, Window, candidate_tilings, paper_tiling
from tilepipe.images import Image, read_with_valid
from tilepipe.images.resampled import ResampledImage

if TYPE_CHECKING:
    from tilepipe.engine.device import Device
    from tilepipe.models.file import Model


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will cost on this machine; told to the user, not frozen."""

    memory: int
    """Bytes that all processes together will not exceed."""
    memory_limit: int
    seconds: float | None
    """Time of the forward passes, from a measured tile; None where it was not measured."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work, as far as the plan must know."""

    workers: int
    """Processes that hold a model; 1 for the worker inside this process."""
    in_process: bool
    slots: int
    """Blocks that one worker has in hand at once: read, computed, written."""
    local: bool = True
    """Whether the workers share this machine's memory."""
    gpu_memory: int | None = None
    """Bytes free on the GPU of each worker, where that is known."""
    threads: int | None = None
    """CPU threads for one pass, where who started the workers knows it."""


class MemoryModel:
    """How many bytes a tiling takes, all processes together."""

    FORWARD_SLACK = 1.05
    """Measured peak over the live tensors of a forward pass (see benchmarks/README.md)."""
    FORWARD_SCRATCH = 60 * 10**6
    """What a pass takes besides: oneDNN's kernels and scratch, stacks of threads."""
    FINISHING = 150 * 10**6
    """Libraries and caches of writers and of Dask, loaded when they are needed."""
    PROCESS = 450 * 10**6
    """A worker process with torch and a small model loaded, before its first block."""

    def __init__(
        self,
        image: Image,
        level: int,
        model: Model,
        crew: Crew,
        device: str,
        precision: str,
        probabilities: bool,
    ) -> None:
        self._image, self._level, self._model, self._crew = image, level, model, crew
        self._gpu, self._precision = device != "cpu", precision
        self._probabilities = model.arguments.outputs if probabilities else 0
        self._weights = 4 * model.weights
        self._forward: dict[tuple[int, int], int] = {}
        self._base = int(psutil.Process().memory_info().rss) + self.FINISHING

    def total(self, tiling: Tiling) -> int:
        """Bytes of all processes of this machine (of one worker, where workers are elsewhere)."""
        crew = self._crew
        if crew.in_process:
            return self._base + self.worker(tiling)
        process = self.PROCESS + self._weights + self.worker(tiling)
        return self._base + crew.workers * process if crew.local else process

    def fits(self, tiling: Tiling, limit: int) -> bool:
        """Whether a tiling keeps within ``limit``, and a GPU's pass within the GPU's memory."""
        if self.total(tiling) > limit:
            return False
        gpu = self._crew.gpu_memory
        return gpu is None or self._weights + self.network_bytes(tiling.input) <= gpu

    def needs(self, tiling: Tiling) -> str:
        """What a tiling needs, for a person."""
        text = gigabytes(self.total(tiling))
        if self._crew.gpu_memory is not None:
            on_gpu = self._weights + self.network_bytes(tiling.input)
            text += f" and {gigabytes(on_gpu)} of the GPU's {gigabytes(self._crew.gpu_memory)}"
        return text

    def worker(self, tiling: Tiling) -> int:
        """What one worker holds over what it held before its first block."""
        return self.forward(tiling.input) + self._crew.slots * self.slot(tiling)

    def forward(self, window: tuple[int, int]) -> int:
        """One forward pass; on a GPU it does not lie in this memory."""
        if self._gpu:
            return 400 * 10**6  # CUDA's own pinned buffers and context
        return self.network_bytes(window)

    def network_bytes(self, window: tuple[int, int]) -> int:
        """Peak of one forward pass, wherever it runs."""
        if window not in self._forward:
            from tilepipe.engine.device import DTYPES
            from tilepipe.models.memory import forward_bytes

            live = forward_bytes(
                self._model.network, self._model.input.bands, *window, DTYPES[self._precision]
            )
            self._forward[window] = int(live * self.FORWARD_SLACK) + self.FORWARD_SCRATCH
        return self._forward[window]

    def slot(self, tiling: Tiling) -> int:
        """One block in hand: pixels read (twice while they are put together), labels, planes."""
        reach = tiling.reach(0)
        pixel = self._image.bands * np.dtype(self._image.dtype).itemsize
        reading = 2 * reach.area * pixel
        rows, columns = self._image.chunks[self._level]
        if isinstance(self._image, ResampledImage):
            reading += self._image.reading_bytes(*reach.shape)
            rows, columns = self._image.source_chunk
        decoding = 10 * rows * columns * pixel
        planes = 1 if self._model.output.activation == "softmax" else self._model.arguments.outputs
        value = 4 if self._model.output.activation == "linear" else 1
        block = min(tiling.block[0], tiling.height) * min(tiling.block[1], tiling.width)
        return reading + decoding + 2 * block * (planes * value + 6 * self._probabilities)


def choose_tiling(
    model: Model,
    facts: ImageFacts,
    memory: MemoryModel,
    limit: int,
    options: RunOptions,
    crew: Crew,
) -> Tiling:
    """The exact window with the least total work that fits the memory, or the one asked for.

    Raises
    ------
    InputError
        When the window asked for is none, or nothing fits; says what would.
    """
    geometry, size = model.geometry, (facts.height, facts.width)
    if options.window != "auto" or model.fixed:
        side = geometry.input if options.window == "auto" else options.window
        if model.fixed and side != geometry.input:
            raise InputError(
                f"window {side}: model {model.name} is used with windows of {geometry.input} only; "
                "leave --window out"
            )
        if not geometry.is_valid(side):
            nearest = geometry.input_for(max(geometry.stride_factor, geometry.kept(side)))
            raise InputError(
                f"window {side}: model {model.name} takes {geometry.smallest_input} and every "
                f"{geometry.stride_factor} pixels more; the nearest below is {nearest}"
            )
        tiling = paper_tiling(*size, geometry, side)
        if not memory.fits(tiling, limit):
            raise InputError(
                f"window {side}: needs {memory.needs(tiling)}, and --memory is "
                f"{gigabytes(limit)}; give it more memory, or leave the window to tilepipe "
                "(--window auto)"
            )
        return tiling

    # Beyond 2048 kept, at most 9 % of work is left to save, and progress gets coarse.
    candidates = sorted(
        candidate_tilings(*size, geometry, 2048),
        key=lambda t: (_makespan(t, crew.workers), t.input, t.block),
    )
    smallest = min(candidates, key=lambda t: t.input[0] * t.input[1] + t.block[0] * t.block[1])
    for tiling in candidates:
        if memory.fits(tiling, limit):
            return tiling
    raise InputError(
        f"{facts.path}: the smallest window, {smallest.input[0]} x {smallest.input[1]}, needs "
        f"{memory.needs(smallest)}, and --memory is {gigabytes(limit)}; allow that much"
        + (", or fewer --workers" if crew.workers > 1 else "")
    )


def _makespan(tiling: Tiling, workers: int) -> float:
    """Work of the busiest worker: with few blocks, some workers would stand idle."""
    blocks = len(tiling)
    return tiling.work / blocks * -(-blocks // workers)


def warm_up(device: Device, image: Image, facts: ImageFacts, geometry: Geometry) -> float | None:
    """Input pixels per second of a forward pass, from a tile at the image's centre.

    Raises
    ------
    NonFiniteError
        When the network overflows on it.
    """
    factor = geometry.stride_factor
    keep = geometry.step
    y = max(0, (facts.height - keep) // 2) // factor * factor
    x = max(0, (facts.width - keep) // 2) // factor * factor
    window = geometry.window_for(Window(y, x, keep, keep))
    try:
        pixels, valid = read_with_valid(image, window, facts.level)
    except UnreadableError:
        return None  # the run will name it; here only a time was wanted
    seconds = []
    for _ in range(2):  # the first pass builds kernels
        begin = time.perf_counter()
        device.answer(pixels, valid, (keep, keep)).result()
        seconds.append(time.perf_counter() - begin)
    return window.area / min(seconds)
