"""Opening a file with GDAL: its settings, and the drivers that may be used."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import set_gdal_config
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetReader

from tilepipe.images.gdal_paths import gdal_path, place_of
from tilepipe.images.library_warnings import ignoring_harmless
from tilepipe.storage import ObjectPath

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Exceptions of rasterio; some of GDAL's own errors pass through it unwrapped."""

CACHE_MB = 64
"""GDAL's own cache of decoded blocks; by default it takes 5 % of the machine's memory."""

SETTINGS: dict[str, Any] = {
    # Where parts of a mosaic overlap, threads of GDAL's own race for which is on top. They would
    # not know of these settings either, which are those of a thread.
    "VRT_NUM_THREADS": "1",
    # Otherwise what is damaged in a JPEG is grey.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": True,
}
"""GDAL's configuration while a dataset of ours is opened or read."""

TIFF = ("GTiff",)
"""For files that can only be TIFFs."""

DRIVERS = (
    *TIFF, "VRT", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEG", "JPEGXL", "PNG", "WEBP",
    "GIF", "BIGGIF", "BMP", "PNM", "TGA", "SGI", "AVIF", "HEIF", "HFA", "ENVI", "EHdr", "NITF",
    "ECW", "MrSID", "FITS", "GRIB", "RMF", "RST", "SAGA", "RRASTER", "AAIGrid", "GRASSASCIIGrid",
    "GSAG", "GSBG", "GS7BG", "XYZ", "SRTMHGT", "DTED", "USGSDEM", "GPKG", "MBTiles",
)  # fmt: skip
"""GDAL's drivers for files that hold their own pixels, or name no more than a file beside them.

Left out are those whose files can name any other (ERS, DIMAP, PDS, KML, MRF, tile indices, HDF5
and what is built on it), and all that use the network.
"""

# An image is no program, also where the environment says otherwise.
set_gdal_config("GDAL_VRT_ENABLE_PYTHON", "NO")

if "GDAL_CACHEMAX" not in os.environ:
    # Not in an Env: on leaving one, rasterio gives the cache its old size back.
    set_gdal_config("GDAL_CACHEMAX", CACHE_MB * 2**20)

if not {"CPL_LOG", "CPL_DEBUG"} & set(os.environ):
    # What GDAL says is heard by library_warnings.py, or raised; it need not print it too.
    set_gdal_config("CPL_LOG", os.devnull)

# Warnings are silenced for the whole process, so one thread at a time may do it.
_OPENING = threading.Lock()


@contextmanager
def gdal_settings(path: str, *, streaming: bool = False) -> Iterator[None]:
    """Apply GDAL's settings while it opens or reads a file, in this thread only.

    Parameters
    ----------
    path
        The file.
    streaming
        Whether it is read once, from top to bottom.
    """
    # Otherwise GDAL hides that a TIFF of one huge strip has to be decoded from its top.
    settings = {**SETTINGS, "GDAL_ENABLE_TIFF_SPLIT": streaming}
    # Files beside an image are looked for by name, whatever the environment says: a mask must not
    # be overlooked, nor a folder of ten thousand parts be listed for each of them.
    if not isinstance(place_of(gdal_path(path)), ObjectPath):
        settings["GDAL_DISABLE_READDIR_ON_OPEN"] = True
    with rasterio.Env(**settings):
        yield


def open_dataset(path: str, *, drivers: Sequence[str] = DRIVERS, **options: Any) -> Any:
    """Open a file, within `gdal_settings`; `survey.file_set` checks what the file refers to.

    Parameters
    ----------
    path
        A path, an address on an object store, or what GDAL calls one (``/vsis3/...``).
    drivers
        Those of GDAL's drivers that may try.
    options
        GDAL's open options.

    Raises
    ------
    RasterioError, CPLE_BaseError
        GDAL cannot open it.
    """
    with _OPENING, ignoring_harmless():
        return DatasetReader(gdal_path(path), driver=list(drivers), **options)


def reason(error: BaseException) -> str:
    """Return GDAL's own message, which rasterio hides behind "see previous exception"."""
    while isinstance(error, RasterioIOError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error).rstrip(".")
