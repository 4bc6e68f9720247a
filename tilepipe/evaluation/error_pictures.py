"""Pictures of where masks are right and wrong, over the image if there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.drawing import (
    PAPER,
    LegendEntry,
    blend,
    centres,
    fitted,
    hatching,
    with_legend,
    write_png,
)
from tilepipe.errors import InputError
from tilepipe.evaluation.options import EvaluateOptions
from tilepipe.evaluation.pairs import MaskPair
from tilepipe.grid import Window
from tilepipe.pairs import MASK_ENDING, stem
from tilepipe.products.base import NO_ANSWER, Kind
from tilepipe.storage import local, written_here

LONGER_SIDE = 1600
"""Longer side of a picture in pixels; a smaller mask is shown as it is, or enlarged."""

_ENLARGED_BELOW = 800

# Okabe and Ito's colours, which people with red-green colour blindness can tell apart, too.
_FOUND = LegendEntry("found (true positive)", (0, 158, 115))
_WRONG = LegendEntry("not there (false positive)", (213, 94, 0))
_MISSED = LegendEntry("missed (false negative)", (0, 114, 178))
_CONFUSED = LegendEntry("other class", (204, 121, 167))
_UNKNOWN = LegendEntry("no answer", None)
_LEGEND = (_FOUND, _WRONG, _MISSED, _CONFUSED, _UNKNOWN)
_OPACITY, _FOUND_OPACITY = 0.85, 0.45

ClassTables = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""The classes that the bins of mask and truth stand for; class 0 is background."""


class Subsample:
    """Evenly spaced pixels of mask and truth, collected window by window.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the mask.
    planes : int
        Number of planes of the mask.
    kind : Kind
        Labels are collected as bins, values as they are.
    """

    def __init__(self, shape: tuple[int, int], planes: int, kind: Kind) -> None:
        self.full_shape = shape
        self.shape = fitted(shape, LONGER_SIDE)
        self._rows, self._columns = map(centres, shape, self.shape)
        dtype = np.float32 if kind == "values" else np.uint16
        self.mask: NDArray[Any] = np.zeros((planes, *self.shape), dtype)
        self.truth: NDArray[Any] = np.zeros_like(self.mask)

    def add(self, window: Window, mask: NDArray[Any], truth: NDArray[Any]) -> None:
        """Collect the pixels of a window, (C, H, W)."""
        top, bottom = np.searchsorted(self._rows, (window.y, window.stop_y))
        left, right = np.searchsorted(self._columns, (window.x, window.stop_x))
        rows = (self._rows[top:bottom] - window.y)[:, None]
        columns = (self._columns[left:right] - window.x)[None, :]
        self.mask[:, top:bottom, left:right] = mask[:, rows, columns]
        self.truth[:, top:bottom, left:right] = truth[:, rows, columns]


class ErrorPictures:
    """The pictures that `EvaluateOptions.plot` asks for; paths are checked before any work."""

    def __init__(self, pairs: list[MaskPair], options: EvaluateOptions) -> None:
        self._paths: dict[MaskPair, Path] = {}
        self._images: dict[MaskPair, Path] = {}
        if options.plot is None:
            if options.image is not None:
                raise InputError(f"--image {options.image} is only used by --plot; use both")
            return
        plot = written_here(options.plot)
        if len(pairs) == 1:
            self._paths[pairs[0]] = plot / f"{pairs[0].name}.png" if plot.is_dir() else plot
            if self._paths[pairs[0]].suffix.lower() != ".png":
                raise InputError(f"--plot {plot} is not a .png; use that suffix")
        elif plot.suffix.lower() == ".png" or plot.is_file():
            raise InputError(f"--plot {plot}: there are {len(pairs)} pairs; name a folder for them")
        else:
            self._paths = {pair: plot / f"{pair.name}.png" for pair in pairs}
        if options.image is not None:
            self._images = _find_images(pairs, local(options.image))

    def draw_errors(
        self, pair: MaskPair, sample: Subsample | None, tables: list[ClassTables]
    ) -> None:
        """Draw what was found, what is not there, and what was missed; nothing without a sample.

        Raises
        ------
        InputError
            The image does not have the shape of the mask, or the picture cannot be written.
        """
        if sample is None:
            return
        canvas = _grey(self._images.get(pair), sample)
        kinds = _kinds(sample, tables)
        shown = []
        for number, entry in enumerate(_LEGEND, start=1):
            here = kinds == number
            if here.any():
                opacity = _FOUND_OPACITY if entry is _FOUND else _OPACITY
                blend(canvas, _paint(entry, sample.shape), here * opacity)
                shown.append(entry)
        self._write(pair, canvas, shown)

    def draw_differences(self, pair: MaskPair, sample: Subsample | None) -> None:
        """Draw predicted minus true values of the first plane; nothing without a sample.

        Raises
        ------
        InputError
            The picture cannot be written.
        """
        if sample is None:
            return
        difference = sample.mask[0].astype(np.float64) - sample.truth[0]
        known = np.isfinite(difference)
        top = float(np.percentile(np.abs(difference[known]), 98)) if known.any() else 0.0
        share = np.clip(np.where(known, difference, 0) / (top or 1.0), -1, 1)
        canvas = _paper(sample.shape)
        blend(canvas, _WRONG.colour, np.maximum(share, 0))
        blend(canvas, _MISSED.colour, np.maximum(-share, 0))
        entries = [
            LegendEntry(f"too high by {top:.4g} or more", _WRONG.colour),
            LegendEntry(f"too low by {top:.4g} or more", _MISSED.colour),
        ]
        if not known.all():
            blend(canvas, _paint(_UNKNOWN, sample.shape), ~known * _OPACITY)
            entries.append(LegendEntry("no answer, or no truth", None))
        self._write(pair, canvas, entries)

    def _write(
        self, pair: MaskPair, canvas: NDArray[np.float64], entries: list[LegendEntry]
    ) -> None:
        path = self._paths[pair]
        factor = max(1, _ENLARGED_BELOW // max(canvas.shape[:2]))
        canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(with_legend(canvas, entries), path)
        except OSError as error:
            raise InputError(
                f"--plot {path} cannot be written ({error.strerror}); choose another path"
            ) from error


def _find_images(pairs: list[MaskPair], image: Path) -> dict[MaskPair, Path]:
    if not image.exists():
        raise InputError(f"--image {image} does not exist; check the path")
    if (len(pairs) == 1 and not image.is_dir()) or image.suffix.lower() == ".zarr":
        return {pairs[0]: image}
    if not image.is_dir():
        raise InputError(f"--image {image}: there are {len(pairs)} pairs; give a folder of images")
    found, names = {}, {stem(path): path for path in sorted(image.iterdir(), reverse=True)}
    for pair in pairs:
        files = [
            names[name]
            for name in (pair.name, pair.name.removesuffix(MASK_ENDING))
            if name in names
        ]
        if not files:
            raise InputError(f"--image {image} holds no image named {pair.name}; add it")
        found[pair] = files[0]
    return found


def _kinds(sample: Subsample, tables: list[ClassTables]) -> NDArray[np.intp]:
    """The entry of the legend, from 1 on, for each pixel; 0 for those that are not painted."""
    kinds = np.zeros(sample.shape, np.intp)
    for plane, (mask_table, truth_table) in enumerate(tables):
        predicted, true = mask_table[sample.mask[plane]], truth_table[sample.truth[plane]]
        found = np.select(
            [
                predicted == NO_ANSWER,
                true == NO_ANSWER,
                (predicted == true) & (true > 0),
                (predicted > 0) & (true == 0),
                (predicted == 0) & (true > 0),
                predicted != true,
            ],
            [5, 0, 1, 2, 3, 4],
            0,
        )
        # Of several planes, an error in one is painted over what is right in another.
        kinds = np.where((found > 1) | (kinds == 0), found, kinds)
    return kinds


def _paint(entry: LegendEntry, shape: tuple[int, int]) -> Any:
    """The colour of an entry, or stripes (height, width, 3) for the one without."""
    return hatching(*shape) if entry.colour is None else entry.colour


def _paper(shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.full((*shape, 3), float(PAPER))


def _grey(image: Path | None, sample: Subsample) -> NDArray[np.float64]:
    """The image in grey, at the size of the picture; a light sheet if there is none."""
    if image is None:
        return _paper(sample.shape)
    from tilepipe.images import open_image
    from tilepipe.products.thumbnail import require_same_extent, thumbnail

    opened = open_image(image)
    try:
        require_same_extent(opened, sample.full_shape)
        rgb = thumbnail(opened, sample.shape).astype(np.float64)
    finally:
        opened.close()
    grey = rgb @ (0.299, 0.587, 0.114)
    return np.repeat(grey[:, :, None], 3, axis=2)
