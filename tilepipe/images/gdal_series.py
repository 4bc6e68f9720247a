"""The images that GDAL finds in one GeoTIFF: the directories that are no overviews or masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.images.base import Series
from tilepipe.images.gdal_grid import grid_of
from tilepipe.images.series import choose

_DIRECTORY = re.compile(r"GTIFF_DIR:(\d+):(.*)", re.DOTALL)
"""GDAL's name of a directory; any other name may lead to another file, and is not followed."""


def directory(
    path: str,
    dataset: Any,
    series: int | str | None,
    opened: Callable[[str], Any],
) -> tuple[str | None, tuple[Series, ...], int]:
    """GDAL's name of the image that is read (None: that of the file), all images, and its number.

    Parameters
    ----------
    path
        Of the file, for messages.
    dataset
        Opened on it.
    series
        The image that is wanted; None: the main one.
    opened
        Opens a dataset by GDAL's name.

    Raises
    ------
    InputError
        There is no such image, or only such as GDAL keeps in files of their own.
    """
    names = [name for name in dataset.subdatasets if _names_part(name, dataset.name)]
    if dataset.count == 0:
        raise InputError(
            f"{path} is a container without an image of its own; extract the one you want with "
            "gdal_translate"
        )
    if dataset.driver != "GTiff" or len(names) < 2:
        return None, (), 0
    found = []
    for number, name in enumerate(names):
        with opened(name) as part:
            dtype = np.result_type(*part.dtypes).name
            size = grid_of(part).pixel_size
            text = part.tags().get("TIFFTAG_DOCUMENTNAME", "") or part.descriptions[0] or ""
            found.append(Series(number, text, part.height, part.width, part.count, dtype, size))
    number = choose(path, found, series).number
    return names[number], tuple(found), number


def _names_part(name: str, of: str) -> bool:
    found = _DIRECTORY.fullmatch(name)
    return found is not None and found[2] == of
