"""`open_image`: any file that some reader recognises, as an `Image`."""

from __future__ import annotations

from tilepipe.images.reading import Reading
from tilepipe.images.registry import open_source
from tilepipe.images.source import OpenFile
from tilepipe.images.windowed import WindowedImage
from tilepipe.storage import StoragePath


def open_image(
    path: str | StoragePath, reading: Reading | None = None, *, streaming: bool = False
) -> WindowedImage:
    """Open a large image for reading windows of it.

    Parameters
    ----------
    path
        A file (TIFF, OME-TIFF, SVS, NDPI, GeoTIFF, PNG, JPEG, JPEG 2000, whatever GDAL reads) or
        an OME-Zarr folder (0.1 to 0.5); on a disk, or on an object store (``s3://BUCKET/NAME``).
    reading
        What of it is read, and how, where that differs from what the file states.
    streaming
        For files that can only be decoded from top to bottom (a PNG, a JPEG or a TIFF of one
        strip, too large to hold): read them row by row. Slow for windows in any other order.

    Raises
    ------
    InputError
        It is missing, not an image, broken, or of a kind that cannot be read.
    """
    reading = reading or Reading()
    file = OpenFile(open_source(path, reading.series, streaming=streaming))
    return WindowedImage(file, reading)
