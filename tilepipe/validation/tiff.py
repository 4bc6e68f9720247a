"""What the checks of OME-TIFF and GeoTIFF share."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tifffile

from tilepipe.errors import InputError
from tilepipe.storage import ObjectPath, StoragePath
from tilepipe.text import first_line

LARGE = 4096
"""A side in pixels above which an image without coarser levels is slow to look at."""

BROKEN_TIFF = (
    tifffile.TiffFileError, ArithmeticError, AttributeError, IndexError, KeyError, OSError,
    TypeError, ValueError, struct.error,
)  # fmt: skip
"""What tifffile raises for structures that are broken."""


@contextmanager
def open_tiff(path: StoragePath) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF to look at its structure.

    Raises
    ------
    InputError
        It is no TIFF, or its structure is broken.
    """
    if isinstance(path, ObjectPath):
        raise InputError(f"{path}: is checked on a disk only; copy it to one first")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a TIFF")
    try:
        with tifffile.TiffFile(path) as file:
            _ = file.pages.first.shape, len(file.pages)
            yield file
    except BROKEN_TIFF as error:
        raise InputError(f"{path} is not a TIFF that can be read ({first_line(error)})") from error


def levels_of(file: tifffile.TiffFile) -> Iterator[Any]:
    """All images of a file: pages, and the SubIFDs of each."""
    for page in file.pages:
        yield page
        if getattr(page, "subifds", None):
            yield from page.pages or ()


def cut_off(file: tifffile.TiffFile) -> Iterator[str]:
    """Say whether tiles or strips lie beyond the end of the file."""
    size = file.filehandle.size
    for number, page in enumerate(levels_of(file)):
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
        beyond = sum(end > size for end in ends)
        if beyond:
            yield f"{beyond} of {len(ends)} pieces of image {number} lie beyond the end of the file"
