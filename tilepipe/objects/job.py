"""The work of finding objects: what it is to do, and what its passes keep on disk meanwhile."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilepipe.errors import InputError
from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.images.resampled import Factors
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.kept import load_arrays, save_arrays
from tilepipe.objects.rules import Parts, PartTable
from tilepipe.objects.small_holes import LARGEST as LARGEST_FILLED
from tilepipe.objects.small_holes import fill_small_holes
from tilepipe.objects.unions import grid_shape
from tilepipe.products.any_mask import open_any_mask
from tilepipe.products.base import Mask
from tilepipe.products.instances import InstanceLayer, open_instances
from tilepipe.schema import decode, load_json
from tilepipe.storage import StoragePath, as_path, make_folder, remove, write_whole
from tilepipe.storage.fsync import fsync_files
from tilepipe.storage.zarr_store import zarr_store

FORMAT = 1

KINDS = (
    "holes", "fillings", "pieces", "numbers", "grown", "borders", "final", "index", "traced",
    "done",
)  # fmt: skip
"""The folders of a workspace beside its arrays."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """The image whose bands are averaged over each object, on the grid of the mask."""

    path: str
    fingerprint: str
    reading: str
    """How it is read (`tilepipe.images.reading.Reading`), as JSON text."""
    level: int
    factors: Factors | None
    """As in `tilepipe.images.resampled.ResampledImage`; None if it is not resampled."""


@dataclass(frozen=True, slots=True)
class ObjectsJob:
    """What is to be found where: with equal jobs, all that passes keep on disk is equal."""

    mask: str
    """The path of the mask. If it is empty, its parts are an array of the workspace, ``parts``."""
    fingerprint: str
    """Of its pixels."""
    height: int
    width: int
    rule: ObjectRule
    parts: PartTable
    target: str = ""
    """The folder of the pyramid of numbers that is made (`tilepipe.products.instances`). If it is
    empty, they are kept as an array of the workspace, ``numbers``."""
    side: int = 2048
    """Of a window, in pixels."""
    corners: bool = True
    """Whether pixels that share a corner are connected, and not only those that share an edge."""
    outlines: bool = True
    """Whether objects are outlined, and not only measured."""
    probabilities: bool = False
    """Whether the probability of its class is averaged over each object."""
    intensity: Intensity | None = None
    """The image whose bands are averaged, if any."""

    @property
    def grid(self) -> WindowGrid:
        """The windows that tasks are about."""
        return WindowGrid(Window(0, 0, self.height, self.width), (self.side, self.side))


class Workspace:
    """The folder in which the passes of a job keep what later ones need."""

    def __init__(self, path: StoragePath, job: ObjectsJob) -> None:
        self.path, self.job = path, job
        self.grid = job.grid

    # What is read

    def parts(self, window: Window, halo: int = 0, *, raw: bool = False) -> tuple[Parts, Window]:
        """The parts of a window with a halo, as far as that is in the mask, and where they are.

        Holes are filled if the rule says so, unless ``raw``.
        """
        read = self._padded(window, halo)
        if raw or not self.job.rule.fill_holes:
            return self._raw(read), read
        if not self.fills_small_holes:
            return np.asarray(self.array("filled")[read.slices()]), read
        wide = self._padded(read, self.job.rule.max_hole + 1)
        found = fill_small_holes(self._raw(wide), self.job.rule.max_hole)
        return found[read.slices(wide)], read

    def _raw(self, window: Window) -> Parts:
        if not self.job.mask:
            return np.asarray(self.array("parts")[window.slices()])
        stored = self.mask.read(window)
        try:
            return self.job.parts.parts(stored)
        except InputError as error:
            raise InputError(f"{self.job.mask}: {error}") from error

    @property
    def fills_small_holes(self) -> bool:
        """Whether holes are so small that they are filled as windows are read."""
        rule = self.job.rule
        return rule.fill_holes and self.job.corners and 0 < rule.max_hole <= LARGEST_FILLED

    def _padded(self, window: Window, halo: int) -> Window:
        found = window.pad(halo).intersect(self.grid.area)
        assert found is not None, "the window is in the mask"
        return found

    @property
    def mask(self) -> Mask:
        """The mask, opened once in each process."""
        return _opened(self.job.mask, self.job.fingerprint)

    @property
    def target(self) -> InstanceLayer:
        """The pyramid of numbers that is made."""
        return open_instances(as_path(self.job.target))

    # What is kept, pixel by pixel

    def create_array(self, name: str, dtype: str, chunk: int | None = None) -> None:
        """Create an array of the mask's shape, full of 0, in place of one that is there.

        Its chunks are as large as windows, so that few files are written; or ``chunk`` pixels a
        side, where others read it.
        """
        zarr.create_array(
            zarr_store(self.path / "arrays"), name=name, shape=self.grid.area.shape,
            chunks=(min(chunk or self.job.side, self.job.side),) * 2, dtype=dtype, fill_value=0,
            compressors=[ZstdCodec(level=1, checksum=True)], overwrite=True, zarr_format=3,
            config={"write_empty_chunks": False},
        )  # fmt: skip

    def array(self, name: str) -> Any:
        """An array that was created."""
        return zarr.open_array(zarr_store(self.path / "arrays"), path=name, mode="r+")

    def write_array(self, name: str, window: Window, values: NDArray[Any]) -> None:
        """Write a window of an array, so that it is on the disk when this returns."""
        array = self.array(name)
        array[window.slices()] = values
        if isinstance(self.path, Path):
            folder, side = self.path / "arrays" / name, int(array.chunks[0])
            rows = range(window.y // side, -(-window.stop_y // side))
            columns = range(window.x // side, -(-window.stop_x // side))
            fsync_files((folder / f"c/{row}/{col}" for row in rows for col in columns), folder)

    def remove_array(self, name: str) -> None:
        """Remove an array that no later pass needs."""
        remove(self.path / "arrays" / name)

    # What is kept, window by window

    def save(self, kind: str, window: Window, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep arrays of a window."""
        save_arrays(self._file(kind, window), arrays)

    def load(self, kind: str, window: Window) -> dict[str, NDArray[Any]]:
        """Read arrays of a window."""
        return load_arrays(self._file(kind, window))

    def has(self, kind: str, window: Window) -> bool:
        """Whether arrays of a window are kept, which are written after all else of it."""
        return bool(self._file(kind, window).exists())

    def windows(self) -> list[Window]:
        """All windows, row by row."""
        return list(self.grid)

    def rows(self) -> list[list[Window]]:
        """The windows of each row."""
        rows, columns = grid_shape(self.grid)
        return [[self.grid.window(row, column) for column in range(columns)] for row in range(rows)]

    def _file(self, kind: str, window: Window) -> StoragePath:
        return self.path / kind / f"{window.y}_{window.x}.npz.zst"

    # What is done

    def is_done(self, step: str) -> bool:
        """Whether a pass over all windows is complete."""
        return bool((self.path / "done" / step).exists())

    def set_done(self, step: str) -> None:
        """Record that a pass over all windows is complete."""
        write_whole(self.path / "done" / step, b"", alone=False)


SMALLEST_SIDE, LARGEST_SIDE = CHUNK, 2048
"""Sides of windows, in pixels."""
PIXEL_BYTES = 120
"""Memory that the most demanding pass takes for each pixel of a window: to outline noise."""


PROCESS_BYTES = 450 * 10**6
"""What a process with its libraries, network and caches has beside."""


def side_for(memory: int, at_once: int) -> int:
    """The side of windows of which so many at once fit into a memory limit, in bytes.

    They get half of it, and no more than a process leaves.
    """
    room = min(memory // 2, memory - PROCESS_BYTES)
    side = LARGEST_SIDE
    while side > CHUNK and side * side * PIXEL_BYTES * at_once > room:
        side //= 2
    return side


def open_workspace(path: StoragePath) -> Workspace:
    """Open the folder of a job that `start` began."""
    document = load_json((path / "job.json").read_text(encoding="utf-8"))
    if document.pop("format", None) != FORMAT:
        raise InputError(f"{path}: was begun by another version of tilepipe; remove it")
    return Workspace(path, decode(ObjectsJob, document))


def start(path: StoragePath, job: ObjectsJob) -> Workspace:
    """Begin a job in a folder, or go on with it if the same job was begun there."""
    text = json.dumps({"format": FORMAT, **asdict(job)}, indent=1)
    described = path / "job.json"
    if not described.exists() or described.read_text(encoding="utf-8") != text:
        remove(path)
        make_folder(path)
        write_whole(described, text)
    for kind in KINDS:
        make_folder(path / kind)
    return Workspace(path, job)


@lru_cache(maxsize=4)
def _opened(path: str, _fingerprint: str) -> Mask:
    """The mask, open as long as tasks are about it."""
    return open_any_mask(path)
