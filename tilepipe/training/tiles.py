"""Tiles of a training: read from images of any size, augmented, and normalised.

A tile depends only on the seed, the step and its number in the batch. So a resumed training gets
the same tiles, and any thread may make them in advance.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, torch
from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import LabelMap
from tilepipe.grid import Geometry, Window
from tilepipe.images import Image, open_image, read_with_valid
from tilepipe.images.validity import Validity
from tilepipe.models.specs import InputSpec
from tilepipe.training import augment
from tilepipe.training.augment import Augmentation
from tilepipe.training.labels import IGNORED, LabelScheme, open_training_mask
from tilepipe.training.pairs import TrainingPair

OPEN_BYTES = 2 * 2**30
"""Most memory for pictures and small masks, which are decoded whole and kept."""

OPEN_FILES = 256
"""Most pairs that have an open file; a process may often have 1024 open files."""

TRIES = 10
"""How often a tile is drawn again if all pixels of its mask are to be ignored."""


@dataclass(frozen=True, slots=True)
class OpenPair:
    """An opened image and its opened mask."""

    pair: TrainingPair
    image: Image
    labels: LabelMap

    @property
    def region(self) -> Window:
        """The part of the image that is used."""
        height, width, _ = self.image.shape
        top, stop = (round(share * height) for share in self.pair.rows)
        return Window(top, 0, max(1, stop - top), width)


class PairCache:
    """Opens pairs when they are needed, and keeps the most recently used ones open."""

    def __init__(self, pairs: Sequence[TrainingPair]) -> None:
        self.pairs = pairs
        self._open: OrderedDict[int, OpenPair] = OrderedDict()
        self._bytes = self._files = 0
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> OpenPair:
        with self._lock:
            if index in self._open:
                self._open.move_to_end(index)
                return self._open[index]
            opened = open_pair(self.pairs[index])
            self._open[index] = opened
            self._bytes, self._files = self._bytes + _held(opened), self._files + _files(opened)
            while len(self._open) > 1 and (self._bytes > OPEN_BYTES or self._files > OPEN_FILES):
                # Dropped, not closed: another thread may be reading it.
                _, old = self._open.popitem(last=False)
                self._bytes, self._files = self._bytes - _held(old), self._files - _files(old)
            return opened

    def __iter__(self) -> Iterator[OpenPair]:
        return (self[index] for index in range(len(self.pairs)))


def _held(opened: OpenPair) -> int:
    rows, columns = opened.image.chunks[0]
    pixels = rows * columns * opened.image.bands * opened.image.dtype.itemsize
    return pixels + opened.labels.held_bytes


def _files(opened: OpenPair) -> bool:
    """Whether a pair has an open file: a picture that is decoded whole needs none."""
    return opened.image.chunks[0] != opened.image.shape[:2] or not opened.labels.held_bytes


def open_pair(pair: TrainingPair) -> OpenPair:
    """Open an image and its mask.

    Raises
    ------
    InputError
        One of them cannot be read, or their sizes differ.
    """
    image, labels = open_image(pair.image), open_training_mask(pair.mask)
    if image.shape[:2] != tuple(labels.shape):
        raise InputError(
            f"{pair.mask}: is {labels.shape[1]} x {labels.shape[0]} pixels, and its image "
            f"{pair.image} {image.shape[1]} x {image.shape[0]} (width x height); a mask must be "
            "as large as its image"
        )
    return OpenPair(pair, image, labels)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, ready for the network."""

    pixels: Tensor
    """Normalised pixels, (bands, side, side) float32."""
    target: Tensor
    """Classes, (out, out) int64, 255 for pixels to ignore; or values, (planes, out, out) float32,
    NaN for pixels to ignore."""
    gaps: Tensor | None
    """Widths of the gaps between objects, (out, out) float32; None if they are not needed."""


@dataclass(frozen=True, slots=True)
class TileMaker:
    """Makes the tiles of a training."""

    cache: PairCache
    chances: NDArray[np.float64]
    """The probability of each pair."""
    scheme: LabelScheme
    spec: InputSpec
    geometry: Geometry
    side: int
    """Side of the input, in pixels."""
    augmentation: Augmentation
    seed: int

    @property
    def out(self) -> int:
        """Side of the target: of the outputs that do not depend on where the tile was cut."""
        return self.side - 2 * self.geometry.margin

    def tile(self, step: int, index: int) -> Tile:
        """Make tile number ``index`` of the batch of a step."""
        rng = np.random.default_rng((self.seed, step, index))
        for _ in range(TRIES):
            opened = self.cache[int(rng.choice(len(self.chances), p=self.chances))]
            tile = self._draw(opened, rng)
            if has_known_pixels(tile.target):
                break
        return tile

    def _draw(self, opened: OpenPair, rng: np.random.Generator) -> Tile:
        region = opened.region
        centre = (
            _draw_centre(region.y, region.height, self.out, rng),
            _draw_centre(region.x, region.width, self.out, rng),
        )
        cut = self._cut_warped if self.augmentation.warps else self._cut_straight
        return self._finish(cut(opened, centre, rng), rng)

    def _cut_straight(
        self, opened: OpenPair, centre: tuple[int, int], _rng: np.random.Generator
    ) -> _Cut:
        """Pixels and labels as they are in the files."""
        window = augment.identity_window(centre, self.side)
        pixels, valid = self._read(opened.image, window)
        inner = window.pad(-self.geometry.margin)
        target = self.scheme.target(opened.labels, inner)
        rows = torch.arange(inner.y, inner.stop_y)[:, None].expand(inner.shape)
        return _Cut(
            augment.as_bands(pixels),
            None if valid is None else augment.as_bands(valid.astype(np.float32)).bool(),
            torch.from_numpy(target.labels),
            None if target.gaps is None else torch.from_numpy(target.gaps),
            _outside(rows, opened),
        )

    def _cut_warped(
        self, opened: OpenPair, centre: tuple[int, int], rng: np.random.Generator
    ) -> _Cut:
        """Pixels and labels interpolated at the coordinates of a random map."""
        coordinates = augment.random_map(self.side, centre, self.augmentation, rng)
        window = augment.bounds(coordinates)
        pixels, valid = self._read(opened.image, window)
        inner = augment.centre_crop(coordinates, self.out)
        narrow = augment.bounds(inner)
        target = self.scheme.target(opened.labels, narrow)
        labels = torch.from_numpy(target.labels.astype(np.float32, copy=False))
        planes = labels if labels.ndim == 3 else labels[None]
        warped = augment.resample(planes, inner, narrow, "nearest")
        gaps: Tensor | None = None
        if target.gaps is not None:
            # Infinite gaps cannot be interpolated.
            finite = torch.from_numpy(np.minimum(target.gaps, 1e4))[None]
            gaps = augment.resample(finite, inner, narrow, "bilinear")[0]
        known = None
        if valid is not None:
            known = augment.as_bands(valid.astype(np.float32))
            known = augment.resample(known, coordinates, window, "nearest").bool()
        return _Cut(
            augment.resample(augment.as_bands(pixels), coordinates, window, "bilinear"),
            known,
            warped if labels.ndim == 3 else warped[0].to(torch.uint8),
            gaps,
            _outside(inner[..., 1], opened),
        )

    def _read(self, image: Image, window: Window) -> tuple[NDArray[Any], Validity | None]:
        """Pixels, with the model's mean where there are no data, and where they are valid."""
        pixels, valid = read_with_valid(image, window)
        if valid is not None:
            mean = np.array(self.spec.mean, np.float32) / np.float32(self.spec.scale)
            pixels = np.where(valid, pixels, mean)
        return pixels, valid

    def _finish(self, cut: _Cut, rng: np.random.Generator) -> Tile:
        # Stain jitter works on 8-bit pixels, whatever scale the model has.
        how, pixels, labels = self.augmentation, cut.pixels, cut.labels
        stained = augment.jitter_stains(pixels / 255 if how.hed else pixels, how, rng)
        pixels = (stained * 255 if how.hed else stained) * self.spec.scale
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.spec.mean, self.spec.std))
        pixels = augment.jitter_light((pixels - mean) / std, how, rng)
        target = labels.clone() if labels.ndim == 3 else labels.long()
        ignored: float = IGNORED if labels.ndim == 2 else float("nan")
        if cut.valid is not None:
            pixels = pixels.masked_fill(~cut.valid, 0.0)
            margin = self.geometry.margin
            kept = cut.valid[:, margin : margin + self.out, margin : margin + self.out]
            target[..., ~kept.any(0)] = ignored
        # The other part of the image is for validation, and so are its mirrored pixels.
        if cut.outside is not None:
            target[..., cut.outside] = ignored
        return Tile(pixels.contiguous(), target, cut.gaps)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A tile as it was cut out of an image and its mask."""

    pixels: Tensor
    """(bands, side, side) in the image's own scale."""
    valid: Tensor | None
    """Where there are data, (bands, side, side) or (1, side, side)."""
    labels: Tensor
    """(out, out) uint8, or (planes, out, out) float32."""
    gaps: Tensor | None
    outside: Tensor | None
    """Pixels of the target in the part of the image that is not used, (out, out)."""


def _outside(rows: Tensor, opened: OpenPair) -> Tensor | None:
    """Which pixels of a target lie outside the rows that are used; None if all rows are."""
    if opened.pair.rows == (0.0, 1.0):
        return None
    region = opened.region
    return (rows < region.y - 0.5) | (rows > region.stop_y - 0.5)


def has_known_pixels(target: Tensor) -> bool:
    """Whether any pixel of a target counts."""
    if target.is_floating_point():
        return bool(target.isfinite().any())
    return bool((target != IGNORED).any())


def _draw_centre(start: int, size: int, out: int, rng: np.random.Generator) -> int:
    """A random centre whose outputs lie within the image; in a small image, any pixel."""
    if size > out:
        return start + out // 2 + int(rng.integers(size - out + 1))
    return start + int(rng.integers(size))


def chances(pairs: Sequence[tuple[int, int]], shares: Sequence[float]) -> NDArray[np.float64]:
    """The probability of each pair, given as (source, pixels): by its pixels, or by ``shares``."""
    sources = np.array([source for source, _ in pairs])
    pixels = np.array([area for _, area in pairs], np.float64)
    if shares:
        for source, share in enumerate(shares):
            mine = sources == source
            if mine.any():
                pixels[mine] *= share / pixels[mine].sum()
    return np.asarray(pixels / pixels.sum())
