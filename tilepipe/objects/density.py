"""Maps of density: how many objects lie in each cell of a coarse grid, by its answered area.

A map is a mask of values, in any of their formats, on a grid that begins where the mask's does. An
object lies in the cell that holds its centroid, a pixel in the cell that holds its centre. A cell
without an answered pixel has no density.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.images.base import PixelSize, RasterGrid
from tilepipe.objects.areas import SHOWN, AreaUnit, PixelArea, answered, pieces, require_its_mask
from tilepipe.objects.summary import object_classes
from tilepipe.objects.table import ObjectTable
from tilepipe.products.base import Mask, MaskClass, MaskSpec
from tilepipe.products.formats import suffix_kind
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask
from tilepipe.quantities import cell_side
from tilepipe.storage import StoragePath, complete_or_absent, staged_locally
from tilepipe.storage.zarr_store import zarr_store

MOST_CELLS = 1 << 24
"""Most cells of a map, all planes together: 16 million, about 0.2 GB while it is made."""

TOGETHER = "all"
"""The name of the plane of all classes."""

Cells = NDArray[Any]


@dataclass(frozen=True, slots=True)
class DensityMap:
    """A map that was written."""

    path: StoragePath
    spec: MaskSpec
    unit: AreaUnit
    """Densities are per its large unit."""
    unplaced: int
    """Objects whose centroid lies in a cell without an answer, so that no density shows them."""


def density_map(table: ObjectTable, mask: Mask, cell: str, path: StoragePath) -> DensityMap:
    """Write a map of the density of objects, of all and of each class.

    The table is read once, and so are the pixels of the mask, window by window. Nothing is
    smoothed: the sum of density x answered area of all cells is the number of objects.

    Parameters
    ----------
    table : ObjectTable
        The objects, with their centroids.
    mask : Mask
        Theirs, opened.
    cell : str
        The side of a cell: ``100um``, ``1km``, ``64px``. A length is one on the ground, at the
        mask's centre; it need not be a whole number of pixels.
    path : StoragePath
        Of a mask of values: ``.ome.zarr``, ``.ome.tif`` or ``.tif``. An existing one is replaced
        once the new one is complete.

    Raises
    ------
    InputError
        For a cell that is smaller than a pixel, or so small that the map has too many; for a length
        if the pixel size is unknown; for other suffixes.
    OSError
        If it cannot be written.
    """
    info, pixel = table.info, PixelArea(table.info.mask)
    require_its_mask(mask, info.mask)
    kind = suffix_kind(path)
    if kind == "png":
        raise InputError(f"{path}: a map of density holds values; use .ome.zarr, .ome.tif or .tif")
    sides = _sides(cell, info.mask, pixel)
    classes = object_classes(info) or list(range(len(info.mask.classes)))
    spec = _spec(info.mask, sides, classes, pixel.unit)
    if spec.planes * spec.height * spec.width > MOST_CELLS:
        raise InputError(
            f"{cell} is too small: the map would have {spec.width} x {spec.height} cells in each "
            f"of {spec.planes} planes, and may have {MOST_CELLS:,} in all; use larger cells"
        )
    counts = _counts(table, sides, spec, classes)
    areas = _areas(mask, pixel, sides, (spec.height, spec.width))
    with staged_locally(path) as local:
        if kind == "ome-zarr":
            with complete_or_absent(local) as part:
                _written(part, spec, counts, areas)
        else:
            with _folder_beside(local) as folder:
                _export(_written(folder / "density.zarr", spec, counts, areas), local, kind)
    return DensityMap(path, spec, pixel.unit, int(counts[0][areas == 0].sum()))


def _sides(cell: str, spec: MaskSpec, pixel: PixelArea) -> tuple[float, float]:
    """(y, x): the sides of a cell in pixels of the mask."""
    length, in_pixels = cell_side(cell)
    if in_pixels:
        sides = length, length
    elif pixel.metres is None:
        raise InputError(
            f"{cell}: the pixel size of {spec.name} is unknown, so that a length means nothing; "
            "give cells in pixels, for example 64px"
        )
    else:
        sides = length * 1e-6 / pixel.metres[0], length * 1e-6 / pixel.metres[1]
    if min(sides) < 1:
        raise InputError(f"{cell}: a cell is smaller than a pixel of the mask; use larger cells")
    return sides


def _spec(
    mask: MaskSpec, sides: tuple[float, float], classes: list[int], unit: AreaUnit
) -> MaskSpec:
    """The description of the map: its planes, and the place of its grid."""
    y, x = sides
    shape = int(np.ceil(mask.height / y)), int(np.ceil(mask.width / x))
    size = mask.pixel_size or PixelSize(1.0, 1.0, "pixel")
    # 100 um are not to become 99.99999999999999 by way of pixels.
    size = PixelSize(float(f"{size.y * y:.12g}"), float(f"{size.x * x:.12g}"), size.unit)
    grid = RasterGrid(
        mask.height, mask.width, size, mask.crs, mask.transform, mask.control
    ).coarser(shape, y, x, size)
    per = f"per {SHOWN[unit.large]}"
    planes = [MaskClass(f"{mask.classes[n].name} {per}", mask.classes[n].colour) for n in classes]
    if len(planes) > 1:
        planes.insert(0, MaskClass(f"{TOGETHER} {per}", "#ffffff"))
    return replace(
        mask, height=shape[0], width=shape[1], kind="values", classes=tuple(planes),
        pixel_size=size, transform=grid.transform, control=grid.control, background=None,
        origin=(mask.origin[0] + grid.origin[0], mask.origin[1] + grid.origin[1]),
        name=f"{mask.name} density",
    )  # fmt: skip


def _counts(
    table: ObjectTable, sides: tuple[float, float], spec: MaskSpec, classes: list[int]
) -> Cells:
    """The number of objects in each cell by plane, (C, rows, columns); the first is of all."""
    counts = np.zeros((spec.planes, spec.height, spec.width), np.uint32)
    known = {column.name for column in table.info.columns}
    if not {"centroid_x", "centroid_y"} <= known:
        raise InputError(
            f"{table.path}: has no centroids, by which objects lie in cells; make it again"
        )
    for part in table.chunks(("class", "centroid_x", "centroid_y")):
        row, column = (
            np.clip(np.floor(part[name] / side).astype(np.intp), 0, most - 1)
            for name, side, most in (
                ("centroid_y", sides[0], spec.height),
                ("centroid_x", sides[1], spec.width),
            )
        )
        np.add.at(counts[0], (row, column), 1)
        for plane, number in enumerate(classes if len(classes) > 1 else (), 1):
            mine = part["class"] == number
            np.add.at(counts[plane], (row[mine], column[mine]), 1)
    return counts


def _areas(
    mask: Mask, pixel: PixelArea, sides: tuple[float, float], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """The answered area of each cell, in the large unit."""
    areas = np.zeros(shape)
    for window in pieces(Window(0, 0, *mask.shape), mask.planes):
        found = answered(mask, window)
        if not found.any():
            continue
        rows, down = _cut(window.y, window.stop_y, sides[0], shape[0])
        columns, across = _cut(window.x, window.stop_x, sides[1], shape[1])
        sums = pixel.summed(window, found, across)
        areas[rows, columns] += np.add.reduceat(sums, down, axis=0)
    return areas


def _cut(start: int, stop: int, side: float, most: int) -> tuple[slice, NDArray[np.intp]]:
    """The cells that hold pixels from one to before another, and the first pixel in each."""
    cells = np.floor((np.arange(start, stop) + 0.5) / side).astype(np.intp).clip(0, most - 1)
    first = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
    return slice(int(cells[0]), int(cells[-1]) + 1), first


def _written(path: Path, spec: MaskSpec, counts: Cells, areas: NDArray[np.float64]) -> ZarrMask:
    """Write the map as OME-Zarr."""
    mask = create_mask(path, spec)
    tops = np.zeros(spec.planes)
    for window in WindowGrid(Window(0, 0, *mask.shape), (CHUNK, CHUNK)):
        cells = window.slices()
        known = areas[cells] > 0
        density = np.full((spec.planes, *window.shape), np.nan, np.float32)
        density[:, known] = counts[:, *cells][:, known] / areas[cells][known]
        mask.write(window, density)
        tops = np.fmax(tops, np.fmax.reduce(density, axis=(1, 2)))
    build_pyramid(mask)
    _show_up_to(path, tops)
    for level in range(len(mask.levels)):
        mask.flush(level=level)
    return mask


def _show_up_to(path: Path, tops: NDArray[np.float64]) -> None:
    """Tell viewers the range of each plane, which otherwise show values up to 1."""
    group = zarr.open_group(zarr_store(path), mode="r+")
    ome: Any = group.attrs["ome"]
    for channel, top in zip(ome["omero"]["channels"], tops.tolist(), strict=True):
        channel["window"] |= {"max": top or 1.0, "end": top or 1.0}
    group.update_attributes({"ome": ome})


def _export(mask: ZarrMask, path: Path, kind: str) -> None:
    if kind == "ome-tiff":
        from tilepipe.products.ome_tiff import write_ome_tiff

        write_ome_tiff(mask, path)
    else:
        from tilepipe.products.geotiff import write_cog

        write_cog(mask, path)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, always of the same name, so that killed runs leave at most one."""
    folder = path.with_name(path.name + ".density.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
