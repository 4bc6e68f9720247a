"""PNG and JPEG, which can only be decoded whole: small enough ones, once, with Pillow."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import RGB, narrowed
from tilepipe.images.base import Level, RasterGrid
from tilepipe.images.byte_ranges import open_reader
from tilepipe.images.corruption import find_corruption
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.orientation import TAG, orientation_notes
from tilepipe.images.probe import JPEG_SIGNATURE, PNG_SIGNATURE, Probe
from tilepipe.images.raster import has_gdal_metadata
from tilepipe.images.source import Description, TooLargeError, UndecodableError
from tilepipe.storage import as_path

LARGEST_BYTES = 512 * 2**20
"""Decoded size beyond which an image is not held whole."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError)
"""What Pillow raises on broken files."""


def recognises(probe: Probe) -> bool:
    """Tell whether Pillow keeps all of a PNG or JPEG, and GDAL knows no more of it."""
    return probe.head.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)) and not (
        _has_deep_colour(probe.head) or has_gdal_metadata(probe)
    )


def open_source(probe: Probe) -> PictureSource:
    """Open a PNG or JPEG file.

    Raises
    ------
    InputError
        It is broken, or too large to hold.
    """
    try:
        # Not PIL.Image.open: its guard against large images is a warning, and we have our own.
        probe.file.seek(0)
        return PictureSource(probe.path, _decoder(probe.file))
    except BROKEN as error:
        raise InputError(
            f"{probe.path} is a broken image ({error}); copy it again from where it came"
        ) from error


class PictureSource:
    """A picture that is decoded whole when it is first read."""

    def __init__(self, path: str, picture: ImageFile.ImageFile) -> None:
        mode = _mode(picture)
        self._alpha = mode in {"LA", "RGBA"}
        bands = {"L": 1, "I;16": 1, "LA": 1, "RGB": 3, "RGBA": 3}[mode]
        dtype = np.dtype(np.uint16 if mode == "I;16" else np.uint8)
        self._check_size(path, picture, (bands + self._alpha) * dtype.itemsize)
        self._bands: slice | list[int] = slice(0, bands)
        self._decoded = _Decoded(path, mode, dtype)
        self.description = Description(
            path=path,
            kind=picture.format or "picture",
            levels=(Level(picture.height, picture.width, 1.0, 1.0),),
            grid=RasterGrid(picture.height, picture.width),
            bands=bands,
            dtype=dtype,
            chunks=((picture.height, picture.width),),
            masked=self._alpha,
            band_names=RGB if bands == 3 else (),
            alpha=bands if self._alpha else None,
            notes=orientation_notes(_orientation(picture)),
        )

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """As `Source.read`."""
        pixels: NDArray[Any] = self._decoded.pixels()[window.slices()][..., self._bands]
        return pixels

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        pixels = self._decoded.pixels()[window.slices()]
        return pixels[..., self._bands], pixels[..., -1] != 0

    def select(self, bands: Sequence[int]) -> PictureSource:
        """As `Source.select`."""
        selected = copy(self)
        selected.description = narrowed(self.description, bands)
        selected._bands = list(bands)
        return selected

    def fingerprint(self) -> str:
        """As `Image.fingerprint`."""
        return fingerprint_files([as_path(self.description.path)])

    def close(self) -> None:
        """Let go of the pixels."""
        self._decoded.forget()

    @staticmethod
    def _check_size(path: str, picture: ImageFile.ImageFile, pixel_bytes: int) -> None:
        needed = picture.width * picture.height * pixel_bytes
        if needed > LARGEST_BYTES:
            raise TooLargeError(
                f"{path} is a {picture.format} of {picture.width} x {picture.height} pixels "
                "(width x height), which can only be decoded whole; make it a chunked image first: "
                f"tilepipe convert {path} IMAGE.ome.zarr"
            )


class _Decoded:
    """The pixels of a picture, decoded when they are first read."""

    def __init__(self, path: str, mode: str, dtype: np.dtype[Any]) -> None:
        self._path = path
        self._mode = mode
        self._dtype = dtype
        self._lock = threading.Lock()
        self._pixels: NDArray[Any] | None = None

    def pixels(self) -> NDArray[Any]:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
            return self._pixels

    def forget(self) -> None:
        self._pixels = None

    def _decode(self) -> NDArray[Any]:
        try:
            with open_reader(self._path) as file:
                picture = _decoder(file)
                if picture.format == "JPEG":
                    _check_jpeg(self._path)
                converted = picture if picture.mode == self._mode else picture.convert(self._mode)
                pixels = np.asarray(converted)
        except BROKEN as error:
            raise UndecodableError(str(error)) from error
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        pixels = pixels.astype(self._dtype.newbyteorder("="), copy=False)
        # Handed out as views: nobody may write into what others read.
        pixels.flags.writeable = False
        return pixels


def _has_deep_colour(head: bytes) -> bool:
    """Whether a file is a PNG of 16-bit colours, of which Pillow would keep 8."""
    return head.startswith(PNG_SIGNATURE) and len(head) > 25 and head[24] == 16 and head[25] != 0


def _decoder(file: Any) -> ImageFile.ImageFile:
    head = file.read(len(PNG_SIGNATURE))
    file.seek(0)
    if head == PNG_SIGNATURE:
        return PngImagePlugin.PngImageFile(file)
    return JpegImagePlugin.JpegImageFile(file)


def _orientation(picture: ImageFile.ImageFile) -> object:
    """Value of the EXIF tag; None where there is none, or no EXIF that can be read."""
    try:
        return picture.getexif().get(TAG)
    except BROKEN:
        return None


def _mode(picture: PillowImage.Image) -> str:
    """The Pillow mode that keeps all of a picture and is plain numbers or colours."""
    transparent = "transparency" in picture.info
    if picture.mode in {"I", "I;16", "I;16B"}:
        return "I;16"
    if picture.mode in {"1", "L"}:
        return "LA" if transparent else "L"
    if picture.mode in {"LA", "RGBA"}:
        return picture.mode
    return "RGBA" if transparent else "RGB"


def _check_jpeg(path: str) -> None:
    if reason := find_corruption(as_path(path).read_bytes(), compression=7):
        raise UndecodableError(reason)
