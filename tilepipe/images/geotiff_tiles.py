"""Damage in tiles of GeoTIFFs that GDAL does not report, in images and in parts of mosaics."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.byte_ranges import Ahead, FileBytes, ObjectBytes, open_bytes
from tilepipe.images.corruption import (
    COMPRESSIONS,
    DEFLATE,
    JPEG,
    TAIL_BYTES,
    find_corruption,
    find_deflate_corruption,
)
from tilepipe.images.file_sets import PartWindow
from tilepipe.images.gdal import TIFF, open_dataset
from tilepipe.images.gdal_paths import place_of
from tilepipe.images.source import UndecodableError
from tilepipe.storage import StoragePath

MOST_OPEN = 32
"""Parts of a mosaic that are kept open for checking."""


class TileCheck:
    """Checks each tile of a GeoTIFF once for damage that GDAL does not report."""

    def __init__(self, file: FileBytes | ObjectBytes, compression: int, bands: int) -> None:
        self._file = file
        self._compression = compression
        self._bands: Sequence[int] = range(1, bands + 1)
        self._seen: dict[int, NDArray[np.bool_]] = {}

    def select(self, bands: Sequence[int]) -> TileCheck:
        """Return a check of the tiles of some bands alone, where each band has tiles of its own."""
        selected = copy(self)
        selected._bands, selected._seen = bands, {}
        return selected

    @classmethod
    def of(cls, dataset: Any) -> TileCheck | None:
        """Make one for a dataset; None where GDAL reports all damage, or none can be found."""
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        compression = COMPRESSIONS.get(structure.get("COMPRESSION", "").upper())
        # Not the dataset's name, which may be of a directory in the file.
        path = place_of(dataset.files[0] if dataset.files else dataset.name)
        if dataset.driver != "GTiff" or not compression or not path.is_file():
            return None
        pixel_interleaved = structure.get("INTERLEAVE") == "PIXEL"
        return cls(open_bytes(path), compression, 1 if pixel_interleaved else dataset.count)

    def check(self, window: Window, overview: int, dataset: Any) -> None:
        """Check the tiles of a window that have not been checked before.

        Parameters
        ----------
        window
            In pixels of the dataset.
        overview
            Number of the overview that the dataset is, or -1.
        dataset
            Opened on the file, at that overview.

        Raises
        ------
        UndecodableError
            Naming a tile that is damaged.
        """
        rows, columns = dataset.block_shapes[0]
        if overview not in self._seen:
            shape = -(-dataset.height // rows), -(-dataset.width // columns)
            self._seen[overview] = np.zeros(shape, bool)
        seen = self._seen[overview]
        unseen = [
            (row, column)
            for row in range(window.y // rows, -(-window.stop_y // rows))
            for column in range(window.x // columns, -(-window.stop_x // columns))
            if not seen[row, column]
        ]
        ranges = {
            (row, column, band): self._range(dataset, band, row, column)
            for row, column in unseen
            for band in self._bands
        }
        wanted = [found for found in ranges.values() if found]
        reader = self._file.ahead(wanted)
        for (row, column, _), found in ranges.items():
            if not found:
                continue
            if reason := self._fault(reader, *found):
                raise UndecodableError(f"the tile of row {row}, column {column}{reason}")
        for row, column in unseen:
            seen[row, column] = True

    def _fault(self, reader: FileBytes | Ahead, offset: int, count: int) -> str | None:
        """What is wrong with a tile, as the rest of a sentence; None where nothing is."""
        try:
            data = reader.read(offset, count)
        except OSError as error:
            return f" cannot be read from disk ({error})"
        reason = find_corruption(data, self._compression)
        if reason is None and self._compression in DEFLATE:
            reason = find_deflate_corruption(data)
        return reason and f": {reason}"

    def _range(self, dataset: Any, band: int, row: int, column: int) -> tuple[int, int] | None:
        """(offset, count) of the part of a tile that is checked; None where it was left out."""
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=band) or 0)
            for what in ("OFFSET", "SIZE")
        )
        if not offset or not size:
            return None  # left out by its writer: GDAL gives nodata
        seen = size if self._compression in JPEG | DEFLATE else min(size, TAIL_BYTES)
        return offset + size - seen, seen

    def close(self) -> None:
        """Release the file."""
        self._file.close()


@dataclass(slots=True)
class _OpenPart:
    """A part of a mosaic, its datasets by the number of the overview; of one thread at a time."""

    check: TileCheck
    datasets: dict[int, Any]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        for dataset in self.datasets.values():
            dataset.close()
        self.check.close()


class PartChecks:
    """`TileCheck` of the parts of a mosaic, which GDAL opens for itself."""

    def __init__(self) -> None:
        self._open: OrderedDict[StoragePath, _OpenPart] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, parts: list[PartWindow]) -> None:
        """Look at the tiles of parts; within `gdal_settings`.

        Raises
        ------
        UndecodableError
            Naming a part and a tile of it that is damaged.
        """
        for wanted in parts:
            with self._borrowed(wanted.path) as part:
                try:
                    self._check(part, wanted)
                except UndecodableError as error:
                    raise UndecodableError(f"{wanted.path.name}: {error}") from error

    def close(self) -> None:
        """Release the files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    @contextmanager
    def _borrowed(self, path: StoragePath) -> Iterator[_OpenPart]:
        with self._lock:
            part = self._opened(path)
            part.lock.acquire()  # before another thread can close it to make room
        try:
            yield part
        finally:
            part.lock.release()

    def _opened(self, path: StoragePath) -> _OpenPart:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= MOST_OPEN:
            _, oldest = self._open.popitem(last=False)
            with oldest.lock:
                oldest.close()
        dataset = open_dataset(str(path), drivers=TIFF)
        check = TileCheck.of(dataset)
        assert check is not None, "a part of which something is to be checked"
        self._open[path] = part = _OpenPart(check, {-1: dataset})
        return part

    @staticmethod
    def _check(part: _OpenPart, wanted: PartWindow) -> None:
        full = part.datasets[-1]
        # GDAL reads the coarsest overview that is as fine as what is wanted, or not much coarser.
        reductions = enumerate(full.overviews(1))
        overview = max((n for n, r in reductions if r <= wanted.reduction * 1.2), default=-1)
        if overview not in part.datasets:
            part.datasets[overview] = open_dataset(full.name, drivers=TIFF, OVERVIEW_LEVEL=overview)
        dataset = part.datasets[overview]
        y, x = dataset.height / full.height, dataset.width / full.width
        top, left, bottom, right = wanted.box
        # A pixel more on each side: what is resampled takes its neighbours.
        y0, x0 = max(0, math.floor(top * y) - 1), max(0, math.floor(left * x) - 1)
        y1 = min(dataset.height, math.ceil(bottom * y) + 1)
        x1 = min(dataset.width, math.ceil(right * x) + 1)
        if y0 < y1 and x0 < x1:
            part.check.check(Window(y0, x0, y1 - y0, x1 - x0), overview, dataset)
