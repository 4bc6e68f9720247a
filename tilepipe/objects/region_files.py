"""Figures of regions in files: a table, JSON, or the layer itself with the figures as fields."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.objects.regions import RegionFigures, RegionsSummary
from tilepipe.objects.summary import Figures
from tilepipe.regions.features import LONGITUDE_LATITUDE
from tilepipe.storage import (
    StoragePath,
    complete_or_absent,
    staged_locally,
    write_whole,
)
from tilepipe.text import first_line, one_line, table_row

DRIVERS: dict[str, dict[str, str]] = {
    ".gpkg": {"driver": "GPKG"},
    # An index would put the regions in another order.
    ".fgb": {"driver": "FlatGeobuf", "SPATIAL_INDEX": "NO"},
}
"""The driver of GDAL for a suffix, and its options."""

NO_DATE = "1970-01-01T00:00:00.000Z"
"""Instead of the time of writing, so that equal figures are equal bytes."""


def write_regions(summary: RegionsSummary, path: StoragePath) -> None:
    """Write the figures of regions, in the format of the suffix.

    =========================== ================================================================
    ``.csv``                    a row for each region and class, and for all classes together
    ``.json``                   the same as a document
    ``.geojson, .gpkg, .fgb``   the regions as they were drawn, with the figures as fields
    =========================== ================================================================

    An existing file is replaced. In GeoJSON, regions keep what else was said of them. Drawn in
    pixels, they are annotations of QuPath, with the figures as their measurements; on the Earth,
    they are in longitude and latitude.

    Raises
    ------
    InputError
        For other suffixes, and if pyogrio, which ``.gpkg`` and ``.fgb`` need, is missing.
    OSError
        If the file cannot be written.
    """
    suffix = Path(path.name).suffix.lower()
    if suffix not in WRITERS:
        raise InputError(
            f"{path}: figures of regions are written as {', '.join(WRITERS)}; use one of these"
        )
    WRITERS[suffix](summary, path)


def table_rows(summary: RegionsSummary) -> list[dict[str, Any]]:
    """The rows of the table: regions by their number from 1, as names need not differ."""
    large, small = summary.unit.large, summary.unit.small
    return [
        table_row({
            "region": number,
            "name": found.region.name,
            "class": figures.name,
            "objects": figures.count,
            f"density_per_{large}": figures.density,
            "area_share": figures.share,
            f"area_{large}": figures.area,
            f"mean_area_{small}": _mean_area(summary, figures),
            f"answered_{large}": found.answered.size,
            "answered_pixels": found.answered.pixels,
        })
        for number, found in enumerate(summary.regions, 1)
        for figures in found.rows
    ]  # fmt: skip


def _mean_area(summary: RegionsSummary, figures: Figures) -> float | None:
    if figures.area is None or not figures.count:
        return None
    return figures.area * summary.unit.smalls / figures.count


def _write_csv(summary: RegionsSummary, path: StoragePath) -> None:
    rows = table_rows(summary)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def _write_json(summary: RegionsSummary, path: StoragePath) -> None:
    write_whole(path, json.dumps(summary.to_json(), indent=1, ensure_ascii=False) + "\n")


def _fields(summary: RegionsSummary, found: RegionFigures) -> dict[str, float | None]:
    """The figures of a region by names of fields: ``objects``, ``nucleus objects`` ...

    Those of classes are left out if there is only one.
    """
    large = summary.unit.large
    fields: dict[str, float | None] = {f"answered {large}": found.answered.size}
    for figures in (found.total, *(found.classes if len(found.classes) > 1 else ())):
        of = "" if figures is found.total else f"{one_line(figures.name)} "
        fields[f"{of}objects"] = float(figures.count)
        fields[f"{of}per {large}"] = figures.density
        fields[f"{of}area share"] = figures.share
        fields[f"{of}mean area {summary.unit.small}"] = _mean_area(summary, figures)
    return fields


def _write_geojson(summary: RegionsSummary, path: StoragePath) -> None:
    import shapely

    drawn, layer = [each.region.drawn.geometry for each in summary.regions], summary.layer
    if layer.crs is not None:
        drawn = _geographic(drawn, layer.crs)
    features = []
    for geometry, found in zip(drawn, summary.regions, strict=True):
        fields = {k: v for k, v in _fields(summary, found).items() if v is not None}
        properties: dict[str, Any] = found.region.drawn.properties or {
            "name": one_line(found.region.name)
        }
        if layer.crs is None:
            measured = _measurements(properties.get("measurements"), fields)
            properties = {"objectType": "annotation", **properties, "measurements": measured}
        else:
            properties = {**properties, **fields}
        shape = json.loads(shapely.to_geojson(_oriented(geometry)))
        number = {} if found.region.drawn.id is None else {"id": found.region.drawn.id}
        features.append({"type": "Feature", **number, "geometry": shape, "properties": properties})
    document = {"type": "FeatureCollection", "features": features}
    write_whole(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _oriented(geometry: Any) -> Any:
    """With outer rings counterclockwise, as RFC 7946 asks for."""
    import shapely

    parts = [shapely.geometry.polygon.orient(part) for part in shapely.get_parts(geometry)]
    return parts[0] if geometry.geom_type == "Polygon" else shapely.multipolygons(parts)


def _measurements(before: Any, fields: dict[str, float]) -> Any:
    """The measurements of an annotation and more; older versions of QuPath have a list of them."""
    if isinstance(before, list):
        return [*before, *({"name": name, "value": value} for name, value in fields.items())]
    return {**before, **fields} if isinstance(before, dict) else fields


def _geographic(drawn: list[Any], crs: str) -> list[Any]:
    """Bring shapes to longitude and latitude, as GeoJSON has them."""
    import shapely
    from pyproj import CRS, Transformer

    source, target = CRS.from_user_input(crs), CRS.from_user_input(LONGITUDE_LATITUDE)
    if source == target:
        return drawn
    transformer = Transformer.from_crs(source, target, always_xy=True)
    moved = shapely.transform(
        np.array(drawn, object), lambda points: np.stack(transformer.transform(*points.T), -1)
    )
    return list(moved)


def _write_layer(summary: RegionsSummary, path: StoragePath) -> None:
    try:
        import pyogrio.raw
    except ImportError:
        raise InputError(
            f"{path}: needs pyogrio; install tilepipe[vector], or write .geojson instead"
        ) from None
    import shapely

    regions = summary.regions
    shapes = [
        shapely.multipolygons(shapely.get_parts(each.region.drawn.geometry)) for each in regions
    ]
    rows = [_fields(summary, each) for each in regions]
    names = np.array([one_line(each.region.name) for each in regions], object)
    columns = [np.array([row[name] for row in rows], np.float64) for name in rows[0]]
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": NO_DATE})
    try:
        with staged_locally(path) as local, _with_suffix(local) as file:
            pyogrio.raw.write(
                file, shapely.to_wkb(np.array(shapes, object)), [names, *columns],
                ["name", *rows[0]], geometry_type="MultiPolygon", crs=summary.layer.crs,
                layer="regions", **DRIVERS[local.suffix.lower()],
            )  # fmt: skip
    except RuntimeError as error:  # the base of what pyogrio raises
        raise OSError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


@contextmanager
def _with_suffix(path: Path) -> Iterator[Path]:
    """As `complete_or_absent`, with the suffix that GDAL asks for."""
    with complete_or_absent(path) as part:
        file = part.with_name(part.name + path.suffix)
        try:
            file.unlink(missing_ok=True)
            yield file
            file.rename(part)
        finally:
            file.unlink(missing_ok=True)


WRITERS: dict[str, Callable[[RegionsSummary, StoragePath], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".geojson": _write_geojson,
    ".gpkg": _write_layer,
    ".fgb": _write_layer,
}
"""The writer of each suffix."""
