"""How large a window may be: memory computed before anything runs, and the least work within it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import psutil

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.coverage import Coverage, can_be_framed
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.resources import PROCESS, Crew
from tilepipe.errors import InputError
from tilepipe.grid import (
    CHUNK,
    LARGEST_BLOCK,
    Geometry,
    Tiling,
    candidate_tilings,
    paper_tiling,
    round_up,
)
from tilepipe.images import Image
from tilepipe.images.resampled import ResampledImage
from tilepipe.images.windowed import TooLargeError
from tilepipe.models.precision import Precision
from tilepipe.regions.cells import Region
from tilepipe.text import gigabytes

if TYPE_CHECKING:
    from tilepipe.models.specs import Model


LARGEST_KEEP = 2048
"""Beyond it, at most 9 % of work is left to save, and progress gets coarse."""


class MemoryModel:
    """How many bytes a tiling takes, all processes together."""

    FINISHING = 150 * 10**6
    """Libraries and caches of writers and of Dask, loaded when they are needed."""

    def __init__(
        self,
        image: Image,
        level: int,
        model: Model,
        crew: Crew,
        device: str,
        precision: str,
        probabilities: bool,
        runtime: str | None = None,
    ) -> None:
        self._image, self._level, self._model, self._crew = image, level, model, crew
        self._gpu = device != "cpu"
        self._probabilities = model.predictor.outputs if probabilities else 0
        self._weights = model.predictor.weight_bytes
        self._pass_bytes = model.predictor.memory(
            model.geometry, Precision(precision), runtime or model.predictor.runtimes[0]
        )
        self._base = int(psutil.Process().memory_info().rss) + self.FINISHING

    def total(self, tiling: Tiling) -> int:
        """Bytes of all processes of this machine (of one worker, where workers are elsewhere)."""
        crew = self._crew
        if crew.in_process:
            return self._base + self.worker(tiling)
        process = PROCESS + self._weights + self.worker(tiling)
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
        return self._pass_bytes(*window)

    @property
    def chunk(self) -> tuple[int, int]:
        """(rows, columns) of what the image is decoded by."""
        if isinstance(self._image, ResampledImage):
            return self._image.source_chunk
        return self._image.chunks[self._level]

    def decoding(self) -> int:
        """What decoding takes for one block in hand."""
        rows, columns = self.chunk
        return 10 * rows * columns * self._image.decoded_bytes

    def slot(self, tiling: Tiling) -> int:
        """One block in hand: pixels read (twice while they are put together), labels, planes."""
        reach = tiling.full_reach(0)
        pixel = self._image.bands * np.dtype(self._image.dtype).itemsize
        reading = 2 * reach.area * pixel
        if self._image.validity_by_band:
            reading += reach.area * self._image.bands  # where each band holds data
        if isinstance(self._image, ResampledImage):
            reading += self._image.reading_bytes(*reach.shape)
        # A window is decoded in the file's own type, in pieces of all bands kept together.
        if self._image.decoded_bytes > pixel:
            reading += reach.area * self._image.decoded_bytes
        planes = 1 if self._model.output.activation == "softmax" else self._model.predictor.outputs
        value = 4 if self._model.output.activation == "linear" else 1
        block = min(tiling.block[0], tiling.height) * min(tiling.block[1], tiling.width)
        return reading + self.decoding() + 2 * block * (planes * value + 6 * self._probabilities)


def check_room(
    model: Model, facts: ImageFacts, memory: MemoryModel, limit: int, crew: Crew
) -> None:
    """Refuse an image of which not even the smallest window fits the memory.

    Raises
    ------
    InputError
        Says how much it needs; a `TooLargeError` where that is for the image's strips or tiles.
    """
    smallest = _smallest(model, facts)
    if not memory.fits(smallest, limit):
        raise _no_room(facts, smallest, memory, limit, crew)


def _smallest(model: Model, facts: ImageFacts) -> Tiling:
    size, geometry = (facts.height, facts.width), model.geometry
    if model.predictor.fixed:
        return paper_tiling(*size, geometry, geometry.input)
    return min(
        candidate_tilings(*size, geometry, LARGEST_KEEP),
        key=lambda t: t.input[0] * t.input[1] + t.block[0] * t.block[1],
    )


def _no_room(
    facts: ImageFacts, smallest: Tiling, memory: MemoryModel, limit: int, crew: Crew
) -> InputError:
    needs = f"{memory.needs(smallest)}, and --memory is {gigabytes(limit)}"
    rows, columns = memory.chunk
    decoding = crew.slots * (crew.workers if crew.local else 1) * memory.decoding()
    if rows * columns > CHUNK * CHUNK and memory.total(smallest) - decoding <= limit:
        return TooLargeError(
            f"{facts.path} can only be decoded {rows} x {columns} pixels at a time, with which a "
            f"run needs {needs}; make it a chunked image first: tilepipe convert {facts.path} "
            "IMAGE.ome.zarr"
        )
    return InputError(
        f"{facts.path}: the smallest window, {smallest.input[0]} x {smallest.input[1]}, needs "
        f"{needs}; allow that much" + (", or fewer --workers" if crew.workers > 1 else "")
    )


def choose_tiling(
    model: Model,
    facts: ImageFacts,
    memory: MemoryModel,
    limit: int,
    options: RunOptions,
    crew: Crew,
    region: Region | None = None,
    *,
    framed: bool = True,
) -> Tiling:
    """The exact window with the least total work that fits the memory, or the one asked for.

    Of a region, the work is that of tiles ``framed`` around it, and the window the largest of them;
    otherwise that of the tiles that hold some of it.

    Raises
    ------
    InputError
        When the window asked for is none, or nothing fits; says what would.
    """
    geometry, size = model.geometry, (facts.height, facts.width)
    if options.window != "auto" or model.predictor.fixed:
        side = geometry.input if options.window == "auto" else options.window
        if model.predictor.fixed and side != geometry.input:
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

    if region is not None and framed:
        found = _framing(size, geometry, region, crew.workers, lambda t: memory.fits(t, limit))
        if found is not None:
            return found
    candidates = sorted(
        candidate_tilings(*size, geometry, LARGEST_KEEP),
        key=lambda t: (_makespan(t, region, crew.workers), t.input, t.block),
    )
    for tiling in candidates:
        if memory.fits(tiling, limit):
            return tiling
    raise _no_room(facts, _smallest(model, facts), memory, limit, crew)


def _makespan(tiling: Tiling, region: Region | None, workers: int) -> float:
    """Work of the busiest worker: with few blocks, some workers would stand idle."""
    work: Tiling | Coverage = tiling if region is None else Coverage(tiling, region)
    blocks = len(work)
    return work.work / blocks * -(-blocks // workers)


def _framing(
    size: tuple[int, int],
    geometry: Geometry,
    region: Region,
    workers: int,
    fits: Callable[[Tiling], bool],
) -> Tiling | None:
    """The blocks and the largest window that do the least on a region; None if nothing fits.

    Tiles are framed around the region within each block, so that the window, which bounds them, may
    be as large as fits; what is left to choose is the block.
    """
    chosen, best = None, math.inf
    tops = [min(LARGEST_KEEP, round_up(n, region.cell)) for n in size]
    for side in range(CHUNK, round_up(min(max(size), LARGEST_BLOCK), CHUNK) + 1, CHUNK):
        block = min(side, round_up(size[0], CHUNK)), min(side, round_up(size[1], CHUNK))
        most = min(block[0], tops[0]), min(block[1], tops[1])
        sides = range(region.cell, max(most) + 1, region.cell)
        tilings = [
            Tiling(*size, block, (min(keep, most[0]), min(keep, most[1])), geometry)
            for keep in sides
        ]
        tilings = [tiling for tiling in tilings if can_be_framed(region, tiling)]
        fitting = bisect_left(tilings, True, key=lambda tiling: not fits(tiling))
        if fitting:
            coverage = Coverage(tilings[fitting - 1], region, framed=True)
            span = max(
                coverage.work / len(coverage) * -(-len(coverage) // workers), coverage.most_work
            )
            if span < best:
                chosen, best = tilings[fitting - 1], span
    return chosen
