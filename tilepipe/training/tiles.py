"""Tiles of a training: read from images of any size, bent, coloured, normalised.

A tile is a function of the seed, the step and its place in the batch, and of nothing else: a
training that is resumed sees the same tiles, and they may be made ahead by any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, torch
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Window
from tilepipe.images import Image, open_image, read_with_valid
from tilepipe.images.validity import Validity
from tilepipe.models.specs import InputSpec
from tilepipe.training import augment
from tilepipe.training.augment import Augmentation
from tilepipe.training.labels import IGNORED, LabelFile, LabelScheme
from tilepipe.training.pairs import Pair

OPEN_BYTES = 2 * 2**30
"""Pictures and small masks are decoded whole and kept; so many bytes of them at most."""

OPEN_FILES = 256
"""So many pairs at most of which a file stays open, where a process may often have 1024."""

TRIES = 10
"""How often another place is drawn where a tile's mask says nothing at all."""


@dataclass(frozen=True, slots=True)
class OpenPair:
    """A pair of opened files."""

    pair: Pair
    image: Image
    labels: LabelFile

    @property
    def region(self) -> Window:
        """What of the image is used."""
        height, width, _ = self.image.shape
        top, stop = (round(share * height) for share in self.pair.rows)
        return Window(top, 0, max(1, stop - top), width)

    def close(self) -> None:
        """Release the files."""
        self.image.close()
        self.labels.close()


class Shelf:
    """Opened pairs, the least used of which are closed when they hold too much."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
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
                # Let go of, not closed: another thread may be reading it.
                _, gone = self._open.popitem(last=False)
                self._bytes, self._files = self._bytes - _held(gone), self._files - _files(gone)
            return opened


def _held(opened: OpenPair) -> int:
    rows, columns = opened.image.chunks[0]
    pixels = rows * columns * opened.image.bands * opened.image.dtype.itemsize
    return pixels + opened.labels.held


def _files(opened: OpenPair) -> bool:
    """Whether a file of a pair stays open: a picture that is decoded whole needs none."""
    return opened.image.chunks[0] != opened.image.shape[:2] or not opened.labels.held


def open_pair(pair: Pair) -> OpenPair:
    """Open an image and its mask.

    Raises
    ------
    InputError
        Where one cannot be read, or their sizes differ.
    """
    image, labels = open_image(pair.image), LabelFile(pair.mask)
    if image.shape[:2] != tuple(labels.shape):
        raise InputError(
            f"{pair.mask}: is {labels.shape[0]} x {labels.shape[1]} pixels, and its image "
            f"{pair.image} {image.shape[0]} x {image.shape[1]}; a mask must be as large as its "
            "image"
        )
    return OpenPair(pair, image, labels)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, ready for the network."""

    pixels: Tensor
    """(bands, side, side) float32, normalised."""
    target: Tensor
    """(out, out) int64 classes, 255 for "says nothing"; or (planes, out, out) float32 values."""
    gaps: Tensor | None
    """(out, out) float32: d1 + d2 of the weight map."""


@dataclass(frozen=True, slots=True)
class TileMaker:
    """Makes the tiles of a training."""

    shelf: Shelf
    chances: NDArray[np.float64]
    """Of each pair to be drawn."""
    scheme: LabelScheme
    spec: InputSpec
    geometry: Geometry
    side: int
    """Of the tile that goes in."""
    how: Augmentation
    seed: int

    @property
    def out(self) -> int:
        """Side of the outputs that are learnt from: those that do not depend on the cut."""
        return self.side - 2 * self.geometry.margin

    def tile(self, step: int, index: int) -> Tile:
        """Tile ``index`` of the batch of ``step``."""
        rng = np.random.default_rng((self.seed, step, index))
        for _ in range(TRIES):
            opened = self.shelf[int(rng.choice(len(self.chances), p=self.chances))]
            tile = self._draw(opened, rng)
            if says_something(tile.target):
                break
        return tile

    def _draw(self, opened: OpenPair, rng: np.random.Generator) -> Tile:
        region = opened.region
        centre = (
            _place(region.y, region.height, self.out, rng),
            _place(region.x, region.width, self.out, rng),
        )
        if not self.how.bends:
            window = augment.identity_window(centre, self.side)
            pixels, valid = self._read(opened.image, window)
            margin = self.geometry.margin
            inner = Window(window.y + margin, window.x + margin, self.out, self.out)
            target = self.scheme.target(opened.labels, inner)
            return self._finish(
                augment.as_bands(pixels),
                None if valid is None else augment.as_bands(valid.astype(np.float32)).bool(),
                torch.from_numpy(target.labels),
                None if target.gaps is None else torch.from_numpy(target.gaps),
                rng,
                self._outside(inner, region) if opened.pair.rows != (0.0, 1.0) else None,
            )
        places = augment.random_map(self.side, centre, self.how, rng)
        window = augment.bounds(places)
        pixels, valid = self._read(opened.image, window)
        inside = augment.centre_crop(places, self.out)
        narrow = augment.bounds(inside)
        target = self.scheme.target(opened.labels, narrow)
        labels = torch.from_numpy(target.labels.astype(np.float32, copy=False))
        planes = labels if labels.ndim == 3 else labels[None]
        bent = augment.sample(planes, inside, narrow, "nearest")
        gaps: Tensor | None = None
        if target.gaps is not None:
            # Bent as a weight would be: infinity has no place in an interpolation.
            finite = torch.from_numpy(np.minimum(target.gaps, 1e4))[None]
            gaps = augment.sample(finite, inside, narrow, "bilinear")[0]
        seen = None
        if valid is not None:
            known = augment.as_bands(valid.astype(np.float32))
            seen = augment.sample(known, places, window, "nearest").bool()
        y = inside[..., 1]
        outside = (y < region.y - 0.5) | (y > region.stop_y - 0.5)
        return self._finish(
            augment.sample(augment.as_bands(pixels), places, window, "bilinear"),
            seen,
            bent if labels.ndim == 3 else bent[0].to(torch.uint8),
            gaps,
            rng,
            outside if opened.pair.rows != (0.0, 1.0) else None,
        )

    def _read(self, image: Image, window: Window) -> tuple[NDArray[Any], Validity | None]:
        """Pixels and validity; what is no data is the model's mean, also to its neighbours."""
        pixels, valid = read_with_valid(image, window)
        if valid is not None:
            mean = np.array(self.spec.mean, np.float32) / np.float32(self.spec.scale)
            pixels = np.where(valid, pixels, mean)
        return pixels, valid

    def _outside(self, inner: Window, region: Window) -> Tensor | None:
        rows = torch.arange(inner.y, inner.stop_y)
        outside = (rows < region.y) | (rows >= region.stop_y)
        return outside[:, None].expand(inner.shape) if bool(outside.any()) else None

    def _finish(
        self,
        pixels: Tensor,
        valid: Tensor | None,
        labels: Tensor,
        gaps: Tensor | None,
        rng: np.random.Generator,
        outside: Tensor | None,
    ) -> Tile:
        # Stains are those of 8-bit pixels, whatever scale the model has.
        stained = augment.restain(pixels / 255 if self.how.hed else pixels, self.how, rng)
        pixels = (stained * 255 if self.how.hed else stained) * self.spec.scale
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.spec.mean, self.spec.std))
        pixels = augment.relight((pixels - mean) / std, self.how, rng)
        target = labels.clone() if labels.ndim == 3 else labels.long()
        nothing: float = IGNORED if labels.ndim == 2 else float("nan")
        if valid is not None:
            pixels = pixels.masked_fill(~valid, 0.0)
            margin = self.geometry.margin
            kept = valid[:, margin : margin + self.out, margin : margin + self.out]
            target[..., ~kept.any(0)] = nothing
        # What lies in the other part of the image is for the validation to see, mirrored too.
        if outside is not None:
            target[..., outside] = nothing
        return Tile(pixels.contiguous(), target, gaps)


def says_something(target: Tensor) -> bool:
    """Whether anything can be learnt from a target."""
    if target.is_floating_point():
        return bool(target.isfinite().any())
    return bool((target != IGNORED).any())


def _place(start: int, size: int, out: int, rng: np.random.Generator) -> int:
    """A centre from which the outputs lie in the image; of small images, any pixel."""
    if size > out:
        return start + out // 2 + int(rng.integers(size - out + 1))
    return start + int(rng.integers(size))


def chances(pairs: Sequence[tuple[int, int]], shares: Sequence[float]) -> NDArray[np.float64]:
    """The chance of each pair, given as (source, pixels): by pixels, or by the data's shares."""
    sources = np.array([source for source, _ in pairs])
    pixels = np.array([area for _, area in pairs], np.float64)
    if shares:
        for source, share in enumerate(shares):
            mine = sources == source
            if mine.any():
                pixels[mine] *= share / pixels[mine].sum()
    return np.asarray(pixels / pixels.sum())
