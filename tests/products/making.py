"""What the tests of masks make: specs, content, and an image that lies in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images.base import Level, PixelSize, RasterGrid, Series
from tilepipe.images.control import GroundControl
from tilepipe.images.reading import Reading
from tilepipe.products.base import NO_ANSWER, MaskClass, MaskSpec
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask

CLASSES = (
    MaskClass("background", "#000000"),
    MaskClass("noyau é", "#e6194b"),
    MaskClass("<stroma> & more", "#3cb44b"),
)

KINDS: tuple[str, ...] = ("labels", "planes", "values")
SHAPES = ((1, 1), (513, 1), (1025, 700))


def make_spec(
    shape: tuple[int, int] = (1025, 700), kind: str = "labels", **others: Any
) -> MaskSpec:
    facts: dict[str, Any] = {
        "classes": CLASSES,
        "pixel_size": PixelSize(0.25, 0.5, "micrometer"),
        "background": 0,
    }
    return MaskSpec(shape[0], shape[1], kind, **(facts | others))


def make_content(spec: MaskSpec, seed: int = 0) -> NDArray[Any]:
    """Patches of classes, or values, with a band without an answer at the left."""
    rng = np.random.default_rng(seed)
    planes, height, width = spec.planes, spec.height, spec.width
    top = len(spec.classes) if spec.kind == "labels" else 2
    small = rng.integers(0, top, (planes, -(-height // 7), -(-width // 7)))
    content = small.repeat(7, 1).repeat(7, 2)[:, :height, :width].astype(spec.dtype)
    if spec.kind == "values":
        content += rng.normal(size=content.shape).astype(np.float32)
    content[:, :, : width // 5] = spec.fill
    return content[0] if spec.kind == "labels" else content


def whole(shape: tuple[int, int]) -> Window:
    return Window(0, 0, *shape)


def extras_of(probabilities: str | None) -> tuple[str, ...]:
    """The key of probabilities stored so, if any."""
    return () if probabilities is None else (f"probabilities:{probabilities}",)


def make_mask(
    path: Path, spec: MaskSpec, seed: int = 0, probabilities: str | None = None
) -> ZarrMask:
    """A complete mask, with its pyramid."""
    mask = create_mask(path, spec, extras_of(probabilities))
    mask.write(whole(mask.shape), make_content(spec, seed))
    if probabilities is not None:
        scores = np.random.default_rng(seed).random((len(spec.classes), *mask.shape))
        layer = mask.layer("probabilities")
        layer.write(whole(mask.shape), layer.product.stored(scores.astype(np.float32)))
    build_pyramid(mask)
    return mask


def tree(folder: Path) -> dict[str, str]:
    """A hash of each file in a folder, by its path within it."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@dataclass
class MemoryImage:
    """An image that lies in memory; ``shrunk`` holds its coarser levels."""

    pixels: NDArray[Any]
    shrunk: tuple[NDArray[Any], ...] = ()
    valid: NDArray[np.bool_] | None = None
    unreadable: Window | None = None
    chunk: tuple[int, int] = (256, 256)
    reads: list[tuple[Window, int]] = field(default_factory=list)
    path: str = "memory"
    kind: str = "memory"
    pixel_size: PixelSize | None = None
    pixel_size_doubt: str | None = None
    nodata: float | None = None
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    control: GroundControl | None = None
    validity_by_band: bool = False
    scaling: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    series: tuple[Series, ...] = ()
    series_number: int = 0

    @property
    def grid(self) -> RasterGrid:
        place = self.pixel_size, self.crs, self.transform, self.control
        return RasterGrid(*self.pixels.shape[:2], *place)

    @property
    def band_names(self) -> tuple[str, ...]:
        return ("",) * self.bands

    @property
    def file_bands(self) -> tuple[str, ...]:
        return self.band_names

    @property
    def decoded_bytes(self) -> int:
        return self.bands * self.dtype.itemsize

    @property
    def levels(self) -> tuple[Level, ...]:
        height, width = self.pixels.shape[:2]
        return tuple(
            Level(p.shape[0], p.shape[1], height / p.shape[0], width / p.shape[1])
            for p in (self.pixels, *self.shrunk)
        )

    @property
    def bands(self) -> int:
        return int(self.pixels.shape[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    @property
    def chunks(self) -> tuple[tuple[int, int], ...]:
        return tuple(self.chunk for _ in self.levels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pixels.shape[0], self.pixels.shape[1], self.bands

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        self.reads.append((window, level))
        if self.unreadable is not None and window.intersect(self.unreadable):
            raise UnreadableError("memory cannot be read there.")
        pixels = (self.pixels, *self.shrunk)[level]
        return pixels[window.y : window.stop_y, window.x : window.stop_x]

    def read_valid(self, window: Window, level: int = 0) -> NDArray[np.bool_] | None:
        if self.valid is None:
            return None
        return self.valid[window.y : window.stop_y, window.x : window.stop_x]

    def as_dask(self, level: int = 0) -> Any:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return "memory"

    def close(self) -> None:
        pass


__all__ = [
    "CLASSES",
    "KINDS",
    "NO_ANSWER",
    "SHAPES",
    "MemoryImage",
    "make_content",
    "make_mask",
    "make_spec",
    "tree",
    "whole",
]
