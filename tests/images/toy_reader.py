"""A reader such as another package would install: numpy's own files, named ``.toy``."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import narrowed
from tilepipe.images.base import Level, PixelSize, RasterGrid
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.probe import Probe
from tilepipe.images.source import Description

SIGNATURE = b"\x93NUMPY"


def recognises(probe: Probe) -> bool:
    return not probe.is_folder and probe.head.startswith(SIGNATURE)


def open_source(probe: Probe) -> ToySource:
    try:
        return ToySource(probe, np.load(probe.path, mmap_mode="r"))
    except ValueError as error:
        raise InputError(f"{probe.path} is broken ({error})") from error


class ToySource:
    def __init__(self, probe: Probe, pixels: NDArray[Any]) -> None:
        height, width, bands = pixels.shape
        self._place = probe.place
        self._pixels = pixels
        self.description = Description(
            path=probe.path,
            kind="toy",
            levels=(Level(height, width, 1.0, 1.0),),
            bands=bands,
            dtype=pixels.dtype,
            chunks=((64, width),),
            grid=RasterGrid(height, width, PixelSize(0.25, 0.25, "micrometer")),
        )

    def read(self, window: Window, level: int) -> NDArray[Any]:
        return np.array(self._pixels[window.slices()])

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return self.read(window, level), np.ones(window.shape, np.bool_)

    def select(self, bands: Sequence[int]) -> ToySource:
        selected = copy(self)
        selected._pixels = self._pixels[..., list(bands)]
        selected.description = narrowed(self.description, bands)
        return selected

    def fingerprint(self) -> str:
        return fingerprint_files([self._place])

    def close(self) -> None:
        pass
