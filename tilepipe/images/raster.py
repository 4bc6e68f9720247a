"""Georeferenced images, and all else that only GDAL reads, through rasterio."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import set_gdal_config
from rasterio.errors import RasterioError, RasterioIOError

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.images.files import FileBytes, ObjectBytes, open_bytes
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.gdal_paths import gdal_path, place_of, require_reachable
from tilepipe.images.gdal_series import directory
from tilepipe.images.levels import pyramid
from tilepipe.images.library_warnings import ignoring_harmless, listening, remarks
from tilepipe.images.orientation import orientation_notes
from tilepipe.images.references import check_references
from tilepipe.images.segments import DEFLATE, JPEG, TAIL_BYTES, deflate_fault, fault
from tilepipe.images.windowed import Description, TooLargeError, Transform, UndecodableError
from tilepipe.places import ObjectPath, is_url

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises; some of GDAL's own errors pass through it unwrapped."""

CACHE_MB = 64
"""GDAL's own cache of decoded blocks; by default it takes 5 % of the machine's memory."""

COMPRESSIONS = {"JPEG": 7, "YCBCR JPEG": 7, "DEFLATE": 8, "JPEG2000": 34712}
"""TIFF compressions whose faults GDAL passes over, by GDAL's names for them."""

UNITS = {
    "metre": "meter",
    "meter": "meter",
    "kilometre": "kilometer",
    "foot": "foot",
    "us survey foot": "us survey foot",
    "degree": "degree",
}
"""Units of a CRS as PROJ and OGC spell them, and as NGFF does."""

SIDECARS = (".aux.xml", ".ovr")
"""Made by viewers that only look at an image: statistics, overviews; no part of its content."""

ROW_BY_ROW = frozenset({"PNG", "JPEG", "GIF"})
"""Drivers that decode from the top; a window further up than the last one starts over."""

if "GDAL_CACHEMAX" not in os.environ:
    # Not in an Env: on leaving one, rasterio gives the cache its old size back.
    set_gdal_config("GDAL_CACHEMAX", CACHE_MB * 2**20)

if not {"CPL_LOG", "CPL_DEBUG"} & set(os.environ):
    # See library_warnings.py: what GDAL says is heard there, or raised; it need not print it too.
    set_gdal_config("CPL_LOG", os.devnull)

# Also where the environment says otherwise: an image is no program.
set_gdal_config("GDAL_VRT_ENABLE_PYTHON", "NO")

# Warnings are silenced for the whole process, so one thread at a time may do it.
_OPENING = threading.Lock()


def open_raster(
    path: str,
    series: int | str | None = None,
    *,
    streaming: bool = False,
    notes: tuple[str, ...] = (),
) -> RasterSource:
    """Open an image with GDAL: of a GeoTIFF of several, the main one, unless another is chosen.

    ``notes`` are what is known of the file that GDAL does not tell.

    Raises
    ------
    InputError
        GDAL does not know it, or it holds no numbers.
    """
    try:
        with listening() as heard:
            return RasterSource(path, series, heard, notes, streaming=streaming)
    except GDAL_ERRORS as error:
        require_reachable(path)
        # What GDAL says of an address is what the server said, and is not for others.
        reason, cause = (_reason(error), error) if not is_url(path) else ("GDAL cannot", None)
        raise InputError(
            f"{path} is not an image that tilepipe can read ({reason}); docs/formats.md "
            "lists what can be"
        ) from cause


def knows_more(path: str) -> bool:
    """Whether GDAL finds a place on Earth, a nodata value or a mask in an image."""
    try:
        with listening(), _opened(path) as dataset:
            return (
                dataset.crs is not None
                or not dataset.transform.is_identity
                or any(value is not None for value in dataset.nodatavals)
                or (_needs_mask(dataset) and _alpha(dataset) is None)
            )
    except GDAL_ERRORS:
        return False


class RasterSource:
    """A GDAL dataset and its overviews."""

    def __init__(
        self,
        path: str,
        series: int | str | None,
        heard: list[str],
        notes: tuple[str, ...],
        *,
        streaming: bool,
    ) -> None:
        with _opened(path) as dataset:
            name, listed, number = directory(path, dataset, series, _opened, _pixel_size)
        self._pool = _Handles(name or path, streaming)
        try:
            described = self._describe(path, streaming)
            notes = (*notes, *described.notes, *remarks("GDAL", heard))
            self.description = replace(described, series=listed, series_number=number, notes=notes)
        except BaseException:
            self._pool.close()
            raise

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """As `Source.read`."""
        return self._read(window, level)[0]

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        pixels, valid = self._read(window, level, masked=True)
        assert valid is not None, "a mask was asked for"
        return pixels, valid

    def fingerprint(self) -> str:
        """As `Image.fingerprint`; of a mosaic (VRT), of all files that it is made of."""
        with self._pool.handle(0) as dataset:
            files = [place_of(file) for file in dataset.files]
        return fingerprint_files(file for file in files if not file.name.endswith(SIDECARS))

    def close(self) -> None:
        """Release the file."""
        self._pool.close()
        if self._segments:
            self._segments.close()

    def _describe(self, path: str, streaming: bool) -> Description:
        with self._pool.handle(0) as dataset:
            dtype = np.result_type(*dataset.dtypes)
            if dtype.kind not in "uif":
                raise InputError(
                    f"{path} holds {dtype} numbers, which tilepipe does not read: save it with "
                    "integer or floating-point ones"
                )
            sizes = [dataset.shape, *_overview_sizes(dataset)]
            self._alpha = _alpha(dataset)
            self._masked = _needs_mask(dataset) and self._alpha is None
            self._bands = [index for index in dataset.indexes if index != self._alpha]
            self._palette = _palette(dataset)
            self._sample_dtype = dtype
            nodata = tuple(dataset.nodatavals[index - 1] for index in self._bands)
            crs, transform = dataset.crs or None, dataset.transform
            driver = dataset.driver
            self._segments = _Segments.of(dataset)
            orientation = orientation_notes(dataset.tags().get("EXIF_Orientation"))
            _check_size(path, dataset, streaming)
        levels = pyramid(sizes, snap=False)
        self._pool.overviews = {place: number - 1 for place, number in enumerate(levels)}
        self._pool.driver = driver
        chunks = []
        for place in range(len(levels)):
            with self._pool.handle(place) as dataset:
                chunks.append(tuple(dataset.block_shapes[0]))
        has_nodata = self._palette is None and any(value is not None for value in nodata)
        return Description(
            path=path,
            kind=_kind(driver, crs is not None or not transform.is_identity),
            levels=tuple(levels.values()),
            bands=len(self._bands) if self._palette is None else 3,
            dtype=dtype if self._palette is None else self._palette.dtype,
            chunks=tuple(chunks),
            pixel_size=_pixel_size(crs, transform),
            crs=crs.to_wkt() if crs else None,
            transform=None if transform.is_identity else _coefficients(transform),
            nodata=nodata if has_nodata else (),
            # The nodata of a palette image is an entry of it, which GDAL has to look up.
            masked=self._masked
            or self._alpha is not None
            or (self._palette is not None and any(value is not None for value in nodata)),
            streaming=streaming,
            notes=orientation,
        )

    def _read(
        self, window: Window, level: int, *, masked: bool = False
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        place = ((window.y, window.stop_y), (window.x, window.stop_x))
        bands = [*self._bands, self._alpha] if masked and self._alpha else self._bands
        valid = None
        try:
            with self._pool.handle(level) as dataset:
                if self._segments:
                    self._segments.check(window, self._pool.overviews.get(level, -1), dataset)
                # All bands in one go: an image that is decoded row by row cannot go back.
                pixels = dataset.read(bands, window=place, out_dtype=self._sample_dtype)
                if masked and not self._alpha:
                    valid = dataset.dataset_mask(window=place) != 0
        except GDAL_ERRORS as error:
            # Nobody's damage, but the network's or the store's.
            require_reachable(self.description.path)
            raise UndecodableError(_reason(error)) from error
        if masked and self._alpha:
            pixels, valid = pixels[:-1], pixels[-1] != 0
        pixels = np.moveaxis(pixels, 0, -1)
        return (pixels if self._palette is None else self._palette[pixels[..., 0]]), valid


class _Handles:
    """Datasets opened on one file, each used by one thread at a time: GDAL wants it so."""

    def __init__(self, path: str, streaming: bool) -> None:
        self.path = path
        self.streaming = streaming
        self.driver: str | None = None
        self.overviews: dict[int, int] = {}
        self._idle: dict[int, list[Any]] = {}
        self._closed = False

    @contextmanager
    def handle(self, level: int) -> Iterator[Any]:
        """A dataset of a level, to use while inside."""
        try:
            dataset = self._idle.setdefault(level, []).pop()
        except IndexError:
            overview = self.overviews.get(level, -1)
            options = {} if overview < 0 else {"OVERVIEW_LEVEL": overview}
            with listening():  # GDAL says no more than when the image was described
                dataset = _open(self.path, self.driver, options, streaming=self.streaming)
        try:
            yield dataset
        finally:
            if self._closed:
                dataset.close()
            else:
                self._idle[level].append(dataset)

    def close(self) -> None:
        self._closed = True
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


class _Segments:
    """Looks, once, at each tile of a GeoTIFF for the faults that GDAL passes over."""

    def __init__(self, file: FileBytes | ObjectBytes, compression: int, bands: int) -> None:
        self._file = file
        self._compression = compression
        self._bands = bands
        self._seen: dict[int, NDArray[np.bool_]] = {}

    @classmethod
    def of(cls, dataset: Any) -> _Segments | None:
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        compression = COMPRESSIONS.get(structure.get("COMPRESSION", "").upper())
        # Not the dataset's name, which may be of a directory in the file.
        path = place_of(dataset.files[0] if dataset.files else dataset.name)
        if dataset.driver != "GTiff" or not compression or not path.is_file():
            return None
        pixel_interleaved = structure.get("INTERLEAVE") == "PIXEL"
        return cls(open_bytes(path), compression, 1 if pixel_interleaved else dataset.count)

    def check(self, window: Window, overview: int, dataset: Any) -> None:
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
            for band in range(1, self._bands + 1)
        }
        wanted = [found for found in ranges.values() if found]
        reader = self._file.ahead(wanted)
        for (row, column, _), found in ranges.items():
            if not found:
                continue
            try:
                data = reader.read(*found)
            except OSError as error:
                raise UndecodableError(
                    f"the tile of row {row}, column {column} cannot be read from disk ({error})"
                ) from error
            reason = fault(data, self._compression)
            if reason is None and self._compression in DEFLATE:
                reason = deflate_fault(data)
            if reason:
                raise UndecodableError(f"the tile of row {row}, column {column}: {reason}")
        for row, column in unseen:
            seen[row, column] = True

    def _range(self, dataset: Any, band: int, row: int, column: int) -> tuple[int, int] | None:
        """(offset, count) of what is looked at of a tile."""
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=band) or 0)
            for what in ("OFFSET", "SIZE")
        )
        if not offset or not size:
            return None  # left out by its writer: GDAL gives nodata
        seen = size if self._compression in JPEG | DEFLATE else min(size, TAIL_BYTES)
        return offset + size - seen, seen

    def close(self) -> None:
        self._file.close()


@lru_cache(maxsize=64)
def _check_once(name: str) -> None:
    """As `check_references`, of an object: each look is a request."""
    where = place_of(name)
    if isinstance(where, ObjectPath):
        check_references(where)


def _open(
    path: str, driver: str | None, options: dict[str, int], *, streaming: bool = False
) -> Any:
    if path.startswith("/vsi") or is_url(path):
        _check_once(gdal_path(path))
    else:
        check_references(Path(path))
    settings: dict[str, Any] = {
        # Otherwise GDAL hides that a TIFF of one huge strip has to be decoded from its top.
        "GDAL_ENABLE_TIFF_SPLIT": streaming,
        "GDAL_ERROR_ON_LIBJPEG_WARNING": True,
    }
    with _OPENING, ignoring_harmless(), rasterio.Env(**settings):
        return rasterio.open(gdal_path(path), driver=driver, **options)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    dataset = _open(path, None, {})
    try:
        yield dataset
    finally:
        dataset.close()


def _check_size(path: str, dataset: Any, streaming: bool) -> None:
    height, width = dataset.shape
    needed = height * width * dataset.count * np.result_type(*dataset.dtypes).itemsize
    if dataset.driver in ROW_BY_ROW and not streaming and needed > CACHE_MB * 2**20:
        raise TooLargeError(
            f"{path} is a {dataset.driver} of {height} x {width} pixels, which can only be decoded "
            f"from its top; make it a chunked image first: tilepipe convert {path} IMAGE.ome.zarr"
        )


def _kind(driver: str, georeferenced: bool) -> str:
    if driver in {"GTiff", "COG"}:
        return "GeoTIFF" if georeferenced else "TIFF"
    return {"JP2OpenJPEG": "JPEG 2000"}.get(driver, driver)


def _alpha(dataset: Any) -> int | None:
    """Index of the alpha band, where there is one beside others."""
    found = [
        i
        for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if c == ColorInterp.alpha
    ]
    return found[-1] if found and dataset.count > 1 else None


def _needs_mask(dataset: Any) -> bool:
    """Whether there is a mask that the pixels' values do not tell."""
    told = ([MaskFlags.all_valid], [MaskFlags.nodata])
    return any(flags not in told for flags in dataset.mask_flag_enums)


def _palette(dataset: Any) -> NDArray[Any] | None:
    """Colours of a palette image, shape (entries, 3): a palette is colours, not data."""
    if dataset.colorinterp[0] != ColorInterp.palette or dataset.count != 1:
        return None
    colours = np.zeros((int(np.iinfo(dataset.dtypes[0]).max) + 1, 3), np.uint8)
    for entry, colour in dataset.colormap(1).items():
        if entry < len(colours):
            colours[entry] = colour[:3]
    return colours


def _overview_sizes(dataset: Any) -> list[tuple[int, int]]:
    sizes = []
    for number in range(len(dataset.overviews(1))):
        overview = _open(dataset.name, dataset.driver, {"OVERVIEW_LEVEL": number})
        sizes.append(overview.shape)
        overview.close()
    return sizes


def _coefficients(transform: Any) -> Transform:
    return (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)


def _pixel_size(crs: Any, transform: Any) -> PixelSize | None:
    """Lengths of a pixel's sides, also where it is rotated, in the unit of the CRS."""
    if not crs or transform.is_identity:
        return None
    unit = UNITS.get(str(crs.units_factor[0]).lower())
    if unit is None:
        return None
    x, y = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    return PixelSize(y, x, unit)


def _reason(error: BaseException) -> str:
    """What GDAL said, which rasterio keeps behind "see previous exception"."""
    while isinstance(error, RasterioIOError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error).rstrip(".")
