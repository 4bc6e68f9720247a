"""Zarr arrays of results, in zarr format 3, or 2 for OME-Zarr 0.4, and the coordinates beside them.

A mask on a map has CF coordinates (CF conventions 1.11, chapters 4 and 5), by which xarray,
rioxarray and GDAL place it.
"""

from __future__ import annotations

import re
from math import isnan
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.grid import CHUNK
from tilepipe.products.base import MaskSpec
from tilepipe.products.product import PixelForm

GRID_MAPPING = "spatial_ref"
"""The name of the scalar with the CRS, as rioxarray and GDAL write it."""


def create_pyramid(
    store: Any, prefix: str, spec: MaskSpec, form: PixelForm
) -> tuple[zarr.Array[Any], ...]:
    """Create the arrays of a pyramid, and their coordinates.

    Without content, they are full of the fill value. ``prefix`` is the path of their group, which
    is empty or ends in ``/``.
    """
    if spec.has_coordinates:
        _create_coordinates(store, prefix, spec)
    classes = len(spec.classes)
    return tuple(
        _create(
            store, f"{prefix}{path}", spec, form.shape(classes, shape),
            chunks=(*(() if form.flat else (1,)), CHUNK, CHUNK),
            dtype=form.dtype, fill_value=form.fill,
            dimensions=("y", "x") if form.flat else ("c", "y", "x"),
            attributes=_attributes(spec, form) if spec.has_coordinates and level == 0 else {},
        )
        for level, (path, shape) in enumerate(zip(spec.level_paths, spec.levels, strict=True))
    )  # fmt: skip


def _create(
    store: Any,
    name: str,
    spec: MaskSpec,
    shape: tuple[int, ...],
    *,
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
    compressed: bool = True,
    **details: Any,
) -> zarr.Array[Any]:
    from numcodecs import Zlib
    from zarr.codecs import ZstdCodec

    details |= {"overwrite": True, "config": {"write_empty_chunks": False}}
    # With a checksum, so that a damaged chunk is an error and never wrong labels.
    if spec.zarr_format == 2:
        # Zlib, because the readers of OME-Zarr 0.4 in Java do not know Zstd.
        return zarr.create_array(
            store, name=name, shape=shape, zarr_format=2,
            compressors=Zlib(level=3) if compressed else None,
            chunk_key_encoding={"name": "v2", "separator": "/"},
            attributes={**attributes, "_ARRAY_DIMENSIONS": list(dimensions)}, **details,
        )  # fmt: skip
    return zarr.create_array(
        store, name=name, shape=shape, zarr_format=3,
        compressors=[ZstdCodec(level=3, checksum=True)] if compressed else None,
        dimension_names=dimensions, attributes=attributes, **details,
    )  # fmt: skip


def _attributes(spec: MaskSpec, form: PixelForm) -> dict[str, Any]:
    """The CF attributes of level 0."""
    # With "coordinates", xarray keeps the CRS with the array when it is taken out of its dataset.
    found: dict[str, Any] = {"grid_mapping": GRID_MAPPING, "coordinates": GRID_MAPPING}
    if form.has_classes and not isnan(form.fill):
        found["_FillValue"] = int(form.fill)
    if form.has_classes and form.flat:
        found["flag_values"] = list(range(len(spec.classes)))
        # Words of the characters that CF allows, separated by blanks.
        names = (re.sub(r"[^A-Za-z0-9_.+@-]+", "_", each.name) for each in spec.classes)
        found["flag_meanings"] = " ".join(name or "_" for name in names)
    return found


def _create_coordinates(store: Any, prefix: str, spec: MaskSpec) -> None:
    """Write the pixel centres, ``x`` and ``y``, and the CRS."""
    assert spec.transform is not None, "coordinates come from it"
    a, b, c, d, e, f = spec.transform
    reference = {"GeoTransform": " ".join(map(repr, (c, a, b, f, d, e)))}
    if spec.crs is not None:
        reference |= {"crs_wkt": spec.crs, "spatial_ref": spec.crs}
    _create(
        store, f"{prefix}{GRID_MAPPING}", spec, (), dimensions=(), attributes=reference,
        chunks=(), dtype="int64", fill_value=None, compressed=False,
    )  # fmt: skip
    if b or d:
        return  # a rotated grid has no coordinates of whole rows and columns
    axes = _axes(spec.crs)
    _write_axis(store, prefix, spec, "x", c + a * (np.arange(spec.width) + 0.5), axes["x"])
    _write_axis(store, prefix, spec, "y", f + e * (np.arange(spec.height) + 0.5), axes["y"])


def _write_axis(
    store: Any,
    prefix: str,
    spec: MaskSpec,
    name: str,
    centres: NDArray[np.floating[Any]],
    attributes: dict[str, str],
) -> None:
    array = _create(
        store, f"{prefix}{name}", spec, centres.shape, dimensions=(name,),
        attributes=attributes,
        chunks=centres.shape, dtype="float64", fill_value=float("nan"),
        compressed=False,  # so that all libraries write the same bytes
    )  # fmt: skip
    array[...] = centres


def _axes(wkt: str | None) -> dict[str, dict[str, str]]:
    """The CF attributes of the coordinates, by their names."""
    # Not pyproj's own `cs_to_cf`, whose words may change from one version to the next.
    if (crs := _crs(wkt)) is None:
        return {"x": {"axis": "X"}, "y": {"axis": "Y"}}
    if crs.is_geographic:
        return {
            "x": {"axis": "X", "standard_name": "longitude", "units": "degrees_east"},
            "y": {"axis": "Y", "standard_name": "latitude", "units": "degrees_north"},
        }
    unit = {}
    if crs.axis_info:
        name = str(crs.axis_info[0].unit_name)
        unit = {"units": "m" if name == "metre" else name.replace(" ", "_")}
    return {
        name: {"axis": name.upper(), "standard_name": f"projection_{name}_coordinate", **unit}
        for name in "xy"
    }


def _crs(wkt: str | None) -> Any:
    from pyproj import CRS
    from pyproj.exceptions import ProjError

    try:
        return None if wkt is None else CRS.from_wkt(wkt)
    except ProjError:
        return None  # one that only GDAL knows
