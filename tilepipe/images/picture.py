"""PNG and JPEG, which can only be decoded whole: small enough ones, once, with Pillow."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import RGB, narrowed
from tilepipe.images.base import Level
from tilepipe.images.files import open_reader
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.orientation import TAG, orientation_notes
from tilepipe.images.segments import fault
from tilepipe.images.windowed import Description, TooLargeError, UndecodableError
from tilepipe.storage import as_path

LARGEST_BYTES = 512 * 2**20
"""Decoded size beyond which an image is not held whole."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError)
"""What Pillow raises on broken files."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"


def deep_colour(head: bytes) -> bool:
    """Whether a file is a PNG of 16-bit colours, of which Pillow would keep 8."""
    return head.startswith(PNG_SIGNATURE) and len(head) > 25 and head[24] == 16 and head[25] != 0


def open_picture(path: str) -> PictureSource:
    """Open a PNG or JPEG file.

    Raises
    ------
    InputError
        It is broken, or too large to hold.
    """
    try:
        # Not PIL.Image.open: its guard against large images is a warning, and we have our own.
        with open_reader(path) as file:
            return PictureSource(path, _decoder(file))
    except BROKEN as error:
        raise InputError(
            f"{path} is a broken image ({error}); copy it again from where it came"
        ) from error


class PictureSource:
    """A picture that is decoded whole when it is first read."""

    def __init__(self, path: str, picture: ImageFile.ImageFile) -> None:
        mode = _mode(picture)
        self._alpha = mode in {"LA", "RGBA"}
        bands = {"L": 1, "I;16": 1, "LA": 1, "RGB": 3, "RGBA": 3}[mode]
        dtype = np.dtype(np.uint16 if mode == "I;16" else np.uint8)
        self._check_size(path, picture, (bands + self._alpha) * dtype.itemsize)
        self._mode = mode
        self._bands: slice | list[int] = slice(0, bands)
        self._lock = threading.Lock()
        self._pixels: NDArray[Any] | None = None
        self.description = Description(
            path=path,
            kind=picture.format or "picture",
            levels=(Level(picture.height, picture.width, 1.0, 1.0),),
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
        pixels: NDArray[Any] = self._decoded()[window.slices()][..., self._bands]
        return pixels

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        pixels = self._decoded()[window.slices()]
        return pixels[..., self._bands], pixels[..., -1] != 0

    def select(self, bands: Sequence[int]) -> None:
        """As `Source.select`."""
        self.description = narrowed(self.description, bands)
        self._bands = list(bands)

    def fingerprint(self) -> str:
        """As `Image.fingerprint`."""
        return fingerprint_files([as_path(self.description.path)])

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = None

    @staticmethod
    def _check_size(path: str, picture: ImageFile.ImageFile, pixel_bytes: int) -> None:
        needed = picture.width * picture.height * pixel_bytes
        if needed > LARGEST_BYTES:
            raise TooLargeError(
                f"{path} is a {picture.format} of {picture.height} x {picture.width} pixels, which "
                "can only be decoded whole; make it a chunked image first: "
                f"tilepipe convert {path} IMAGE.ome.zarr"
            )

    def _decoded(self) -> NDArray[Any]:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
            return self._pixels

    def _decode(self) -> NDArray[Any]:
        path = self.description.path
        try:
            with open_reader(path) as file:
                picture = _decoder(file)
                if picture.format == "JPEG":
                    _check_jpeg(path)
                converted = picture if picture.mode == self._mode else picture.convert(self._mode)
                pixels = np.asarray(converted)
        except BROKEN as error:
            raise UndecodableError(str(error)) from error
        pixels = pixels.reshape(*pixels.shape[:2], -1).astype(
            self.description.dtype.newbyteorder("="), copy=False
        )
        # Handed out as views: nobody may write into what others read.
        pixels.flags.writeable = False
        return pixels


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
    if reason := fault(as_path(path).read_bytes(), compression=7):
        raise UndecodableError(reason)
