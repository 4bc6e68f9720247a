"""Finding the region that the options of a run describe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.region import Rectangle, RegionFacts
from tilepipe.errors import InputError
from tilepipe.images.base import Image, PixelSize
from tilepipe.regions.cells import (
    Bools,
    CellGrid,
    Placement,
    Region,
    cells_as_text,
    touched_cells,
)  # fmt: skip


def find_region(
    image: Image,
    as_read: Image,
    level: int,
    options: RunOptions,
    pixel_size: PixelSize | None,
    stride_factor: int,
    limit: int,
) -> RegionFacts | None:
    """The region that the options describe; None: the whole image.

    The ``image`` is on the grid of its file, with ``pixel_size`` at level 0; ``as_read`` is the
    image as the run reads it, at ``level``. A decoded piece of it may take ``limit`` bytes.

    Raises
    ------
    InputError
        When the file or the rectangle is at fault, or the region is empty.
    """
    if options.tissue == "none" and options.region is None:
        return None
    grid = CellGrid.of(as_read.levels[level], stride_factor)
    cells, how, fingerprint = np.ones(grid.shape, np.bool_), [], None
    if options.tissue == "auto":
        cells, text = _tissue(image, grid, pixel_size, limit)
        how.append(text)
    elif options.tissue != "none":
        fingerprint = source_fingerprint(options.tissue)
        cells = _from_file(options.tissue, image, grid)
        how.append(f"inside {options.tissue}")
    if options.region is not None:
        cells = cells & _rectangle(options.region, image, grid)
        how.append("rectangle {},{},{},{}".format(*options.region))
        if not cells.any():
            raise InputError(
                f"region {','.join(map(str, options.region))}: contains no tissue; choose another, "
                "or --tissue none"
            )
    region = Region(grid.height, grid.width, grid.cell, cells)
    return RegionFacts(
        tissue=tissue_name(options.tissue),
        fingerprint=fingerprint,
        rectangle=options.region,
        how="; ".join(how),
        cell=grid.cell,
        share=region.share,
        cells=cells_as_text(cells),
    )


def source_fingerprint(path: str) -> str:
    """A short hash of a mask image or of polygons; InputError if the file is neither."""
    from tilepipe.images import open_image
    from tilepipe.regions.polygons import looks_like_polygons

    if "://" not in path and looks_like_polygons(path):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    with closing(open_image(path)) as mask:
        return mask.fingerprint()


def _tissue(
    image: Image, grid: CellGrid, pixel_size: PixelSize | None, limit: int
) -> tuple[Bools, str]:
    from tilepipe.regions.tissue import find_tissue

    metres = pixel_size.metres() if pixel_size is not None and pixel_size.is_sound else None
    micrometres = None if metres is None else 1e6 * max(metres)
    with _as_filed(image) as coloured:
        found, place, how = find_tissue(coloured, micrometres, limit)
    read: Callable[[int, int], Bools] = lambda top, bottom: found[top:bottom]  # noqa: E731
    shape = found.shape[0], found.shape[1]
    return touched_cells(read, shape, place, grid), f"tissue, {how}"


@contextmanager
def _as_filed(image: Image) -> Iterator[Image]:
    """The image with the bands and values of its file, where the run reads others."""
    reading = replace(image.reading, bands=None, unscale=False, rescale=None, dtype=None)
    if reading == image.reading:
        yield image
        return
    from tilepipe.images import open_image

    with closing(open_image(image.path, reading)) as coloured:
        yield coloured


def _from_file(path: str, image: Image, grid: CellGrid) -> Bools:
    from tilepipe.regions.mask_image import cells_of_image
    from tilepipe.regions.polygons import cells_of_polygons, looks_like_polygons

    if "://" not in path and looks_like_polygons(path):
        return cells_of_polygons(path, image, grid)
    return cells_of_image(path, image, grid)


def _rectangle(rectangle: Rectangle, image: Image, grid: CellGrid) -> Bools:
    y, x, height, width = rectangle
    if y >= image.shape[0] or x >= image.shape[1]:
        raise InputError(
            f"region {','.join(map(str, rectangle))}: is outside the image, which has "
            f"{image.shape[1]} x {image.shape[0]} pixels at level 0 (width x height)"
        )
    # One pixel, as large as the rectangle.
    place = Placement((float(y), float(x)), (float(height), float(width)))
    return touched_cells(lambda *_: np.ones((1, 1), np.bool_), (1, 1), place, grid)


def tissue_name(tissue: str) -> str:
    """The value of ``--tissue`` in a plan: ``none``, ``auto``, or an absolute path."""
    if tissue in ("none", "auto") or "://" in tissue:
        return tissue
    return str(Path(tissue).resolve())
