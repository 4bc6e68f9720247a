"""Layers of regions: annotations of QuPath, or polygons of a GIS, placed on a grid of pixels.

What is drawn on an image is in pixels of its level 0; what is on the Earth is brought to the CRS of
the grid. So that nothing lands in a wrong place, a layer must have a CRS if and only if the grid
has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.base import RasterGrid
from tilepipe.images.ground import crs_name
from tilepipe.regions.features import (
    LONGITUDE_LATITUDE,
    Feature,
    Features,
    Geometry,
    polygons_of,
    read_features,
)
from tilepipe.text import first_line, some

NOT_REGIONS = frozenset({"detection", "cell", "tile"})
"""What QuPath exports beside annotations: objects themselves."""

ImagePlace = tuple[float, float, float, float]
"""(left, top, x, y): where the corner of a grid lies on level 0 of its image, and the columns and
rows of level 0 that each of its pixels takes."""

WHOLE_IMAGE: ImagePlace = (0.0, 0.0, 1.0, 1.0)
"""The grid is level 0."""


@dataclass(frozen=True, slots=True)
class NamedRegion:
    """A part of a mask."""

    shape: Geometry
    """A valid polygon or multipolygon in pixels of the mask, from its upper left corner."""
    drawn: Feature
    """As it is in the file."""

    @property
    def name(self) -> str:
        """Names need not differ."""
        return self.drawn.name


@dataclass(frozen=True, slots=True)
class RegionLayer:
    """The regions of a file."""

    path: str
    regions: tuple[NamedRegion, ...]
    crs: str | None
    """Of the coordinates in the file; None if they are pixels of the image's level 0."""
    warnings: tuple[str, ...] = ()


def read_layer(path: str, grid: RasterGrid, image: ImagePlace | None) -> RegionLayer:
    """Read the regions of a file, and place them on a mask.

    Lines, points, and what QuPath detected are passed over; polygons that cross themselves are
    repaired, with a warning.

    Parameters
    ----------
    path : str
        GeoJSON, as QuPath or a GIS exports it, or a layer that pyogrio reads: .gpkg, .fgb, .shp.
    grid : RasterGrid
        Of the mask.
    image : tuple of float, optional
        Where the mask lies on its image; if left out, pixels of a layer are those of the mask.

    Raises
    ------
    InputError
        If it cannot be read, holds no polygon, cannot be placed, or has nothing on the mask.
    """
    found = read_features(path)
    kept = tuple(f for f in found.each if f.properties.get("objectType") not in NOT_REGIONS)
    found = Features(path, kept, found.crs, found.is_geojson)
    shapes, crs = placed(found, grid, image or WHOLE_IMAGE, "the mask")
    warnings = []
    if image is None and crs is None:
        warnings.append(
            f"{path}: it is not known how the mask lies on its image, so coordinates are taken as "
            "pixels of the mask"
        )
    regions, repaired = _valid(found, shapes)
    if repaired:
        warnings.append(
            f"{path}: repaired what crosses itself: {some(repaired)}; look at the result, or draw "
            "it again"
        )
    warnings += _beside(path, regions, grid, crs)
    return RegionLayer(path, regions, crs, tuple(warnings))


def placed(
    features: Features, grid: RasterGrid, image: ImagePlace, what: str
) -> tuple[NDArray[Any], str | None]:
    """Bring features to pixels of a grid, called ``what`` in messages.

    Returns
    -------
    ndarray of shapely geometries, shape (n,)
        At least one; they may cross themselves.
    str or None
        The CRS of the features; None if they are in pixels.

    Raises
    ------
    InputError
        If there are none, or nothing says where they lie.
    """
    import shapely

    path = features.path
    if not features.each:
        raise InputError(f"{path}: holds no polygon; lines and points have no inside")
    shapes = np.array([each.geometry for each in features.each], object)
    if grid.crs is not None and grid.transform is not None:
        crs = features.crs or _degrees(features, shapes)
        return _on_map(path, shapes, crs, grid), crs
    if features.crs is not None:
        raise InputError(
            f"{path}: its coordinates are in {shown_crs(features.crs)}, and {what} has no CRS; "
            "give polygons in pixels of level 0, as QuPath exports them"
        )
    corner, scale = np.array(image[:2]), np.array(image[2:])
    return shapely.transform(shapes, lambda points: (points - corner) / scale), None


def shown_crs(crs: str | None) -> str:
    """What coordinates are read as, for messages."""
    if crs is None:
        return "pixels of level 0"
    return "longitude and latitude" if crs == LONGITUDE_LATITUDE else crs_name(crs)


def _degrees(features: Features, shapes: NDArray[Any]) -> str:
    """The CRS of features that name none, for a grid that has one."""
    import shapely

    if not features.is_geojson:
        raise InputError(
            f"{features.path}: does not say what CRS it is in; assign it in the GIS that made it"
        )
    left, bottom, right, top = shapely.total_bounds(shapes)
    if max(abs(left), abs(right)) > 180 or max(abs(bottom), abs(top)) > 90:
        raise InputError(
            f"{features.path}: names no CRS, and its coordinates are not longitude and latitude, "
            "which they then must be for a georeferenced image; export it with its CRS"
        )
    return LONGITUDE_LATITUDE


def _on_map(path: str, shapes: NDArray[Any], crs: str, grid: RasterGrid) -> NDArray[Any]:
    """Bring shapes to pixels of a georeferenced grid."""
    import shapely
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError
    from rasterio import Affine

    assert grid.transform is not None, "as it is georeferenced"
    try:
        source = CRS.from_user_input(crs)
    except ProjError as error:
        raise InputError(f"{path}: its CRS, {crs}, is not known ({first_line(error)})") from error
    try:
        target = CRS.from_user_input(grid.crs)
        transformer = Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise InputError(
            f"{path}: cannot be brought from {shown_crs(crs)} to the CRS of the image "
            f"({first_line(error)})"
        ) from error
    a, b, c, d, e, f = tuple(~Affine(*grid.transform))[:6]

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points.T if source == target else transformer.transform(*points.T)
        return np.stack((a * x + b * y + c, d * x + e * y + f), -1)

    moved = shapely.transform(shapes, to_pixels)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(
            f"{path}: some corners have no place in the CRS of the image; cut the layer to the "
            "area of the image"
        )
    return np.asarray(moved)


def _valid(features: Features, shapes: NDArray[Any]) -> tuple[tuple[NamedRegion, ...], list[str]]:
    """The regions, and the names of those that had to be repaired."""
    import shapely

    regions, repaired = [], []
    for drawn, shape in zip(features.each, shapes, strict=True):
        valid = shape
        if not shapely.is_valid(shape):
            repaired.append(repr(drawn.name))
            valid = polygons_of(shapely.make_valid(shape))
        if valid is None or not shapely.area(valid):
            raise InputError(f"{features.path}: {drawn.name!r} has no area; draw it again")
        regions.append(NamedRegion(valid, drawn))
    return tuple(regions), repaired


def _beside(
    path: str, regions: tuple[NamedRegion, ...], grid: RasterGrid, crs: str | None
) -> Iterator[str]:
    """A warning that names regions beside the mask; InputError if all are."""
    import shapely

    mask = shapely.box(0, 0, grid.width, grid.height)
    beside = [
        repr(region.name)
        for region in regions
        if shapely.area(shapely.intersection(region.shape, mask)) == 0
    ]
    if len(beside) == len(regions):
        raise InputError(
            f"{path}: no region lies on the mask, its coordinates being read as {shown_crs(crs)}; "
            "give the regions of this image"
        )
    if beside:
        yield f"{path}: beside the mask, and so without objects: {some(beside)}"
