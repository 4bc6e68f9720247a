"""A mask as cloud-optimised GeoTIFF: what QGIS and GDAL open in the right place."""

from __future__ import annotations

import errno
import shutil
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from tilepipe.grid import CHUNK
from tilepipe.products.base import MaskSpec
from tilepipe.products.cog_gaps import fill_gaps
from tilepipe.products.files import deflated_tiles, needs_bigtiff
from tilepipe.products.store import ZarrMask
from tilepipe.products.vrt import side_file, virtual_raster
from tilepipe.storage import complete_or_absent, utf8_path

_ENV = {"GDAL_CACHEMAX": 64, "GDAL_PAM_ENABLED": "NO", "GDAL_NUM_THREADS": "2"}
"""The cache in MB, instead of a share of the machine's memory; no files beside ours."""

GDAL_NODATA = 42113
"""The tag of a TIFF that says which value is none."""

_FULL = 1 << 20
"""Bytes left on a disk below which a failed write is taken for a full disk."""


def write_cog(mask: ZarrMask, path: Path) -> None:
    """Write a mask and its pyramid as COG: tiles of 512, deflate, nodata 255 or NaN.

    First each level as a temporary tiled TIFF beside ``path``, streamed; then GDAL's COG driver
    puts them in order, without the tiles that have no answer, which are filled in last. So the
    overviews are the mask's own pyramid, not GDAL's idea of it. Equal masks give equal bytes.
    Labels carry a colour table and, as items of metadata, the names of the classes. QGIS takes its
    legend from nothing but ``PATH.aux.xml``, so the names are there too; it is written first, so
    that both are complete when the TIFF appears.

    Parameters
    ----------
    mask : ZarrMask
        With its pyramid; it need not be georeferenced.
    path : Path
        Replaced if it exists, once the new file is complete.

    Raises
    ------
    OSError
        When the disk is full, or anything else keeps the file from being written.
    """
    with complete_or_absent(path) as part:
        with _temporary_folder(path) as folder:
            sparse = folder / "sparse.tif"
            _copy_to_cog(_write_levels(mask, folder), sparse, mask)
            fill_gaps(sparse, part, mask.spec.fill, partial(_deflated_nothing, mask))
        require_whole(part)
        _write_side_file(mask.spec, part, path.with_name(path.name + ".aux.xml"))


def require_whole(path: Path) -> None:
    """Raise OSError when a tile of a deflated TIFF is missing or torn.

    GDAL may lose an error that happens as it closes a file, so every tile is decompressed once,
    which compares its checksum too.
    """
    with tifffile.TiffFile(path) as file, path.open("rb") as raw:
        before = b""
        for page in file.pages:
            for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                raw.seek(offset)
                tile = raw.read(size)
                if tile == before:
                    continue  # as most are in a mask of a small region
                try:
                    zlib.decompress(tile)
                except zlib.error as error:
                    raise _write_error(path, "a tile of it is not whole") from error
                before = tile


def _write_side_file(spec: MaskSpec, tiff: Path, path: Path) -> None:
    # What GDAL or QGIS kept there about a file that is now replaced is no longer true.
    path.unlink(missing_ok=True)
    content = side_file(
        spec, with_crs=spec.crs is not None and _crs(tiff) != CRS.from_wkt(spec.crs)
    )
    if content is not None:
        with complete_or_absent(path) as part:
            part.write_bytes(content)


def _crs(tiff: Path) -> CRS | None:
    """The CRS as the TIFF alone tells it: GeoTIFF has no keys for, say, a rotated pole."""
    with _without_georeference_warning(), rasterio.open(utf8_path(tiff)) as dataset:
        crs: CRS | None = dataset.crs
        return crs


def _write_levels(mask: ZarrMask, folder: Path) -> Path:
    """Write one TIFF for each level, and a VRT that has all but the first as overviews.

    Not through GDAL, which may leave out a tile that it cannot write without saying so.
    """
    files = [folder / f"{level}.tif" for level in range(len(mask.levels))]
    planes = mask.spec.planes
    for level, file in enumerate(files):
        with tifffile.TiffWriter(file, bigtiff=True) as writer:
            writer.write(
                chain.from_iterable(
                    deflated_tiles(mask, level, n, compression=1, empty=b"") for n in range(planes)
                ),
                shape=(*((planes,) if planes > 1 else ()), *mask.levels[level]),
                dtype=mask.dtype,
                tile=(CHUNK, CHUNK),
                compression="zlib",
                photometric="minisblack",
                planarconfig="separate" if planes > 1 else None,
                metadata=None,
                # What a tile that is left out holds, in GDAL's own words.
                extratags=[(GDAL_NODATA, "s", 0, f"{mask.spec.fill:g}", True)],
            )
    virtual = folder / "mask.vrt"
    virtual.write_bytes(virtual_raster(mask.spec, [file.name for file in files]))
    return virtual


def _layout(mask: ZarrMask) -> dict[str, Any]:
    predictor = "YES" if mask.dtype.kind == "f" else "NO"
    return {"driver": "COG", "blocksize": CHUNK, "compress": "DEFLATE", "predictor": predictor}


def _copy_to_cog(source: Path, target: Path, mask: ZarrMask) -> None:
    try:
        with rasterio.Env(**_ENV), _without_georeference_warning():
            rasterio.shutil.copy(
                utf8_path(source),
                utf8_path(target),
                strict=True,
                **_layout(mask),
                overviews="AUTO",
                bigtiff="YES" if needs_bigtiff(mask.spec) else "NO",
                sparse_ok=True,
            )
    except (RasterioError, CPLE_BaseError) as error:
        # What GDAL could not finish it has removed by now. A COG takes about as much as its levels.
        needed = sum(file.stat().st_size for file in source.parent.iterdir())
        raise _write_error(target, str(error), needed + needed // 4) from error


def _deflated_nothing(mask: ZarrMask) -> bytes:
    """A tile without any answer, as GDAL compresses it in a COG of a mask."""
    spec = mask.spec
    nothing = np.full((spec.planes, CHUNK, CHUNK), spec.fill, spec.dtype)
    with (
        rasterio.Env(**_ENV),
        _without_georeference_warning(),
        MemoryFile() as plain,
        MemoryFile() as cog,
    ):
        shape = {"height": CHUNK, "width": CHUNK, "count": spec.planes, "dtype": spec.dtype.name}
        with plain.open(driver="GTiff", **shape) as dataset:
            dataset.write(nothing)
        rasterio.shutil.copy(plain.name, cog.name, strict=True, **_layout(mask))
        with tifffile.TiffFile(cog) as file:
            page = file.pages[0]
            cog.seek(page.dataoffsets[0])
            return bytes(cog.read(page.databytecounts[0]))


def _write_error(path: Path, reason: str, needed: int = 0) -> OSError:
    """GDAL keeps the cause to itself, so whether the disk is full is looked up."""
    full = shutil.disk_usage(path.parent).free < max(needed, _FULL)
    return OSError(errno.ENOSPC if full else errno.EIO, f"cannot be written: {reason}", str(path))


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, always of one name, so that a killed run leaves one at most."""
    folder = path.with_name(path.name + ".levels.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_georeference_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
