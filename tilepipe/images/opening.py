"""`open_image`: which reader a file needs, told by its content and never by its name."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from tilepipe.errors import InputError
from tilepipe.images.bands import select_bands
from tilepipe.images.base import Image
from tilepipe.images.files import open_bytes
from tilepipe.images.other_formats import HEAD_BYTES, name_other, refuse_other
from tilepipe.images.reading import Reading
from tilepipe.images.windowed import Source, WindowedImage
from tilepipe.storage import InputRefused, StoragePath, as_path, readable

TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""Classic and BigTIFF, in either byte order."""

PICTURE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""PNG and JPEG."""


def open_image(
    path: str | StoragePath, reading: Reading | None = None, *, streaming: bool = False
) -> Image:
    """Open a large image for reading windows of it.

    Parameters
    ----------
    path
        A file (TIFF, OME-TIFF, SVS, NDPI, GeoTIFF, PNG, JPEG, JPEG 2000, whatever GDAL reads) or
        an OME-Zarr folder (0.1 to 0.5); on a disk, or on an object store (``s3://BUCKET/NAME``).
    reading
        What of it is read, and how, where that is not as the file says.
    streaming
        For files that can only be decoded from top to bottom (a PNG, a JPEG or a TIFF of one
        strip, too large to hold): read them row by row. Slow for windows in any other order.

    Raises
    ------
    InputError
        It is missing, no image, broken, or of a kind that cannot be read.
    """
    source, resolved = open_source(path, reading or Reading(), streaming=streaming)
    try:
        return WindowedImage(source, resolved)
    except BaseException:
        source.close()
        raise


def open_source(
    path: str | StoragePath, reading: Reading, *, streaming: bool = False
) -> tuple[Source, Reading]:
    """The reader that an image is opened with, and the reading with its bands as numbers.

    Raises
    ------
    InputError
        As `open_image`.
    """
    with InputRefused():
        where = readable(path)
        name = str(where)
        if where.is_dir():
            from tilepipe.images.ngff import open_ngff

            source: Source = open_ngff(name, reading.series)
        else:
            source = _source(name, _head(name), reading.series, streaming)
    try:
        return source, replace(reading, bands=select_bands(source, reading.bands))
    except BaseException:
        source.close()
        raise


def _source(path: str, head: bytes, series: int | str | None, streaming: bool) -> Source:
    from tilepipe.images.raster import has_gdal_metadata, open_raster

    refuse_other(path, head)
    if streaming:
        return open_raster(path, series, streaming=True)
    if head.startswith(TIFF_SIGNATURES):
        from tilepipe.images.tiff import open_tiff, plain_notes

        notes = plain_notes(path)
        if notes is not None and has_gdal_metadata(path):
            return open_raster(path, series, notes=notes)
        return open_tiff(path, series)
    if head.startswith(PICTURE_SIGNATURES):
        from tilepipe.images.picture import deep_colour, open_picture

        return (
            open_raster(path)
            if deep_colour(head) or has_gdal_metadata(path)
            else open_picture(path)
        )
    if b"<OME" in head:
        from tilepipe.images.ome_sets import first_file
        from tilepipe.images.tiff import open_tiff

        return open_tiff(first_file(path), series)
    try:
        return open_raster(path, series)
    except InputError:
        name_other(path, head)
        raise


def _head(path: str) -> bytes:
    try:
        with closing(open_bytes(as_path(path))) as file:
            head = file.read(0, HEAD_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; ask for permission to read it") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the disk") from error
    if not head:
        raise InputError(f"{path} is empty; copy it again from where it came")
    return head
