"""A mask as cloud-optimised GeoTIFF, for QGIS and GDAL."""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
import tifffile
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tilepipe.grid import CHUNK
from tilepipe.products.cog_tiles import put_tiles
from tilepipe.products.content import Content, Form, content_of
from tilepipe.products.files import deflated_tiles, needs_bigtiff
from tilepipe.products.qgis_style import style_path, write_style
from tilepipe.products.store import ZarrMask
from tilepipe.products.vrt import side_file, virtual_raster
from tilepipe.storage import complete_or_absent, utf8_path
from tilepipe.storage.whole import temporary_folder

_ENV = {"GDAL_CACHEMAX": 64, "GDAL_PAM_ENABLED": "NO", "GDAL_NUM_THREADS": "2"}
"""A cache of 64 MB instead of a share of the machine's memory, and no side files by GDAL."""

GDAL_NODATA = 42113
"""The TIFF tag for the nodata value."""

_FULL = 1 << 20
"""With fewer free bytes, a failed write is reported as a full disk."""


def write_cog(mask: ZarrMask | Content, path: Path) -> None:
    """Write a mask, or other content of one, and its pyramid as COG: tiles of 512, deflate, nodata.

    GDAL's COG driver writes a file without tiles beside ``path``, and they are put in as they are
    read from the mask. So the overviews are the mask's own pyramid, not one that GDAL computes, and
    nothing is compressed twice. Equal masks give equal bytes. An existing file is replaced once the
    new one is complete. Raises OSError if it cannot be written, because the disk is full for
    example.

    Labels have a colour table, and class names as metadata items. QGIS takes its legend only from
    ``PATH.aux.xml``, so both are there too; for all else it takes its style from ``NAME.qml``. They
    are written before the TIFF appears.
    """
    content = mask if isinstance(mask, Content) else content_of(mask)
    with complete_or_absent(path) as part:
        with temporary_folder(path, ".levels.part") as folder:
            skeleton = folder / "skeleton.tif"
            _copy_to_cog(_write_levels(content, folder), skeleton, content.form)
            planes, predicted = range(len(content.form.planes)), _predicted(content.form)
            put_tiles(
                skeleton, part, len(content.levels),
                lambda level: deflated_tiles(content, level, planes, predicted=predicted),
            )  # fmt: skip
        _write_side_file(content.form, part, path.with_name(path.name + ".aux.xml"))
        write_style(content, style_path(path))


def _write_side_file(form: Form, tiff: Path, path: Path) -> None:
    # An old one may hold what GDAL or QGIS stored about the file that is now replaced.
    path.unlink(missing_ok=True)
    crs = form.spec.crs
    document = side_file(form, with_crs=crs is not None and _crs(tiff) != CRS.from_wkt(crs))
    if document is not None:
        with complete_or_absent(path) as part:
            part.write_bytes(document)


def _crs(tiff: Path) -> CRS | None:
    """The CRS in the TIFF itself; GeoTIFF has no keys for a rotated pole, for example."""
    with _without_georeference_warning(), rasterio.open(utf8_path(tiff)) as dataset:
        crs: CRS | None = dataset.crs
        return crs


def _write_levels(content: Content, folder: Path) -> Path:
    """Write an empty TIFF for each level, and a VRT that has all but the first as overviews.

    All tiles are left out.
    """
    files = [folder / f"{level}.tif" for level in range(len(content.levels))]
    form, planes = content.form, len(content.form.planes)
    for (height, width), file in zip(content.levels, files, strict=True):
        tiles = planes * -(-height // CHUNK) * -(-width // CHUNK)
        with tifffile.TiffWriter(file, bigtiff=True) as writer:
            writer.write(
                repeat(b"", tiles),
                shape=(*((planes,) if planes > 1 else ()), height, width),
                dtype=form.dtype,
                tile=(CHUNK, CHUNK),
                compression="zlib",
                photometric="minisblack",
                planarconfig="separate" if planes > 1 else None,
                metadata=None,
                # The value of tiles that are left out, in GDAL's own tag.
                extratags=[(GDAL_NODATA, "s", 0, f"{content.nothing:g}", True)],
            )
    virtual = folder / "mask.vrt"
    virtual.write_bytes(virtual_raster(form, [file.name for file in files]))
    return virtual


def _predicted(form: Form) -> bool:
    """Whether TIFF's predictor for floats is applied."""
    return form.dtype.kind == "f"


def _layout(form: Form) -> dict[str, Any]:
    predictor = "YES" if _predicted(form) else "NO"
    return {"driver": "COG", "blocksize": CHUNK, "compress": "DEFLATE", "predictor": predictor}


def _copy_to_cog(source: Path, target: Path, form: Form) -> None:
    try:
        with rasterio.Env(**_ENV), _without_georeference_warning():
            rasterio.shutil.copy(
                utf8_path(source),
                utf8_path(target),
                strict=True,
                **_layout(form),
                overviews="AUTO",
                bigtiff="YES" if needs_bigtiff(form) else "NO",
                sparse_ok=True,
            )
    except (RasterioError, CPLE_BaseError) as error:
        raise _write_error(target, str(error)) from error


def _write_error(path: Path, reason: str) -> OSError:
    """The error for a failed write; GDAL hides the cause, so the free space decides on it."""
    full = shutil.disk_usage(path.parent).free < _FULL
    return OSError(errno.ENOSPC if full else errno.EIO, f"cannot be written: {reason}", str(path))


@contextmanager
def _without_georeference_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
