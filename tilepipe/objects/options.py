"""Options of what is made of a table of objects: summaries, figures of regions, maps."""

from __future__ import annotations

from dataclasses import dataclass

from tilepipe.options import Options, option
from tilepipe.quantities import parse_cell


@dataclass(frozen=True, slots=True)
class FigureOptions(Options):
    """Options for figures of objects beside the summary."""

    per: str | None = option(
        None, "Also count objects in each region of this layer: GeoJSON of QuPath or a GIS, .gpkg, "
        ".fgb or .shp", metavar="PATH",
    )  # fmt: skip
    per_output: tuple[str, ...] = option(
        (), "Write the figures of regions here (.csv, .json, .geojson, .gpkg, .fgb); may be given "
        "several times", metavar="PATH", unset="NAME.regions.csv",
    )  # fmt: skip
    density: str | None = option(
        None, "Also map the density of objects, in cells of this side, such as 100um, 1km or 64px",
        parse=parse_cell, metavar="CELL",
    )  # fmt: skip
    density_output: tuple[str, ...] = option(
        (), "Write the map here (.ome.zarr, .ome.tif, .tif); may be given several times",
        metavar="PATH", unset="NAME.density.tif",
    )  # fmt: skip
