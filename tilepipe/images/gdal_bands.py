"""The bands of a GDAL dataset: which are data, and what tells where they hold any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving, MaskFlags

from tilepipe.images.bands import RGB
from tilepipe.images.scaling import Scaling, scaling_of

COLOURLESS = frozenset(
    {ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha}
)
"""Interpretations of a band that give it no name."""


@dataclass(frozen=True, slots=True)
class Bands:
    """Which bands of a dataset are read, and how."""

    indices: tuple[int, ...]
    """From 1; without alpha, unless that is read as data."""
    dtype: np.dtype[Any]
    alpha: int | None
    """Index of the band that tells where there is data, if there is one beside others."""
    has_mask: bool
    """Whether there is a mask beside the bands, one that is not an alpha band."""
    tells_validity: bool
    """Whether a mask or an alpha band tells what the pixels' values do not."""
    are_apart: bool
    """Whether each has tiles of its own."""
    nodata: tuple[float | None, ...]
    """Of each band."""
    scaling: Scaling
    names: tuple[str, ...]
    alpha_name: str
    palette: NDArray[Any] | None
    """Colours, (entries, 3), that are read in the place of their indices."""

    @classmethod
    def of(cls, dataset: Any, *, labels: bool) -> Bands:
        """Read them of a dataset; see `Probe.labels`."""
        alpha = alpha_of(dataset)
        indices = tuple(index for index in dataset.indexes if index != alpha)
        palette = None if labels else _palette(dataset)
        return cls(
            indices=indices,
            dtype=np.result_type(*dataset.dtypes),
            alpha=alpha,
            has_mask=_has_mask(dataset),
            tells_validity=has_validity(dataset),
            are_apart=dataset.interleaving != Interleaving.pixel,
            nodata=tuple(dataset.nodatavals[index - 1] for index in indices),
            scaling=() if palette is not None else scaling_in(dataset, indices),
            names=RGB if palette is not None else tuple(_name(dataset, i) for i in indices),
            alpha_name=(alpha and dataset.descriptions[alpha - 1]) or "alpha",
            palette=palette,
        )

    def select(self, places: Sequence[int]) -> Bands:
        """Select some by their places (from 0): of the colours of a palette, or of all bands."""
        if self.palette is not None:
            return replace(self, palette=self.palette[:, list(places)])
        indices = tuple(place + 1 for place in places)
        if self.alpha not in indices:
            return replace(self, indices=indices)
        return replace(self, indices=indices, alpha=None, tells_validity=self.has_mask)

    @property
    def with_alpha(self) -> list[int]:
        """The indices, and behind them that of alpha."""
        return [*self.indices, *([] if self.alpha is None else [self.alpha])]

    @property
    def have_nodata(self) -> bool:
        """Whether a value of some band means "no data"."""
        return any(value is not None for value in self.nodata)


def alpha_of(dataset: Any) -> int | None:
    """Index of the alpha band, where there is one beside others."""
    found = [
        i
        for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if c == ColorInterp.alpha
    ]
    return found[-1] if found and dataset.count > 1 else None


def scaling_in(dataset: Any, indices: Sequence[int]) -> Scaling:
    """Scale and offset of some bands; empty where they change nothing."""
    return scaling_of(
        tuple(dataset.scales[band - 1] for band in indices),
        tuple(dataset.offsets[band - 1] for band in indices),
    )


def has_validity(dataset: Any) -> bool:
    """Whether there is a mask, or an alpha band, that the pixels' values do not tell."""
    told = ([MaskFlags.all_valid], [MaskFlags.nodata])
    return any(flags not in told for flags in dataset.mask_flag_enums)


def _has_mask(dataset: Any) -> bool:
    """Whether there is a mask beside the bands, one that is no alpha band."""
    return any(
        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        for flags in dataset.mask_flag_enums
    )


def _name(dataset: Any, index: int) -> str:
    """What a band is called, or which colour it has; empty where neither is said."""
    colour = dataset.colorinterp[index - 1]
    return dataset.descriptions[index - 1] or ("" if colour in COLOURLESS else str(colour.name))


def _palette(dataset: Any) -> NDArray[Any] | None:
    """Colours of a palette image, shape (entries, 3): a palette is colours, not data."""
    if dataset.colorinterp[0] != ColorInterp.palette or dataset.count != 1:
        return None
    colours = np.zeros((int(np.iinfo(dataset.dtypes[0]).max) + 1, 3), np.uint8)
    for entry, colour in dataset.colormap(1).items():
        if entry < len(colours):
            colours[entry] = colour[:3]
    return colours
