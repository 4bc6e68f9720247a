"""The options of `tilepipe objects`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilepipe.options import Options, option
from tilepipe.quantities import parse_area, parse_bytes, parse_cell

Method = Literal["auto", "components", "split", "seeded"]


@dataclass(frozen=True, slots=True)
class ObjectsOptions(Options):
    """The options of `tilepipe objects`; what is not given is as the model of the mask says."""

    mask: str = option(..., "The mask: a file, or an OME-Zarr folder")
    outputs: tuple[str, ...] = option(
        (),
        "File to write: .geojson (QuPath, GIS), .geojson.gz, .gpkg, .fgb, .parquet, .csv or "
        ".csv.gz; .ome.zarr, .objects.ome.tif or .objects.tif for the numbers as pixels; "
        ".spatialdata.zarr for both; may be given several times",
        flag="output", short="-o", metavar="PATH",
        unset="MASK_objects.geojson, or .gpkg on maps, in the current folder",
    )  # fmt: skip
    method: Method = option(
        "auto",
        "How objects are told apart: connected pixels of a class (components), the same cut where "
        "they are narrow (split), or cores of one class grown into another (seeded)",
        unset="auto: as the model says, or components",
    )  # fmt: skip
    only: tuple[str, ...] = option(
        (), "Class whose pixels are objects (seeded: their cores); may be given several times",
        flag="class", metavar="NAME", unset="as the model says, or all but the background",
    )  # fmt: skip
    border: str | None = option(None, "Seeded: class around the cores", metavar="NAME")
    reach: int | None = option(
        None, "Seeded: how far cores grow, in pixels", least=0, most=1024, metavar="PIXELS",
        unset="as the model says, or 4",
    )  # fmt: skip
    depth: float | None = option(
        None, "Split: how deep a neck must be to cut objects there, in pixels", above=0, most=24,
        metavar="PIXELS", unset="as the model says, or 1",
    )  # fmt: skip
    min_area: str | None = option(
        None, "Smaller objects are specks; in pixels of the mask or with a unit: 60, 20um2, 50m2",
        parse=parse_area, metavar="AREA", unset="as the model says, or none are",
    )  # fmt: skip
    specks: Literal["drop", "merge"] | None = option(
        None, "Leave specks out, or merge each with the neighbour along its longest border",
        unset="as the model says, or drop",
    )  # fmt: skip
    fill_holes: bool | None = option(
        None, "Fill what one class encloses", unset="as the model says, or no"
    )
    max_hole: str | None = option(
        None, "Leave larger holes open", parse=parse_area, metavar="AREA",
        unset="as the model says, or fill all",
    )  # fmt: skip
    classes: str | None = option(
        None, "Classes of a mask that does not name them: 0=background,1=nucleus:#ff0000, or a "
        ".csv or .json file", metavar="TABLE",
    )  # fmt: skip
    model: str | None = option(
        None, "Model that names the classes of the mask, and says what its objects are", short="-m",
        unset="the one that made the mask",
    )  # fmt: skip
    image: str | None = option(
        None, "Image of the mask, for --intensity and for coordinates", metavar="PATH",
        unset="the one it was made of",
    )  # fmt: skip
    intensity: bool = option(
        False, "Also measure the mean of each band of the image, in one more pass"
    )
    simplify: bool = option(
        False, "Write outlines with fewer points, which separate the same pixels"
    )
    smooth: bool = option(False, "Write smooth outlines, which separate the same pixels")
    per: str | None = option(
        None, "Also count objects in each region of this layer: annotations of QuPath or polygons "
        "of a GIS, as .geojson, .gpkg, .fgb or .shp", metavar="PATH",
    )  # fmt: skip
    per_output: tuple[str, ...] = option(
        (), "Where to write the figures of regions (.csv, .json, .geojson, .gpkg, .fgb); may be "
        "given several times", metavar="PATH", unset="NAME.regions.csv",
    )  # fmt: skip
    density: str | None = option(
        None, "Also map the density of objects, in square cells of this side: 100um, 1km, 64px",
        parse=parse_cell, metavar="CELL",
    )  # fmt: skip
    density_output: tuple[str, ...] = option(
        (), "Where to write the map (.ome.zarr, .ome.tif, .tif); may be given several times",
        metavar="PATH", unset="NAME.density.tif",
    )  # fmt: skip
    partial: bool = option(False, "Use what there is of an unfinished run; the files say so")
    memory: int | None = option(
        None, "Memory limit for all processes combined, such as 2GB", parse=parse_bytes,
        metavar="SIZE", least=1, unset="half of what is free",
    )  # fmt: skip
    workers: int | None = option(
        None, "Processes on this machine", least=1, most=1024,
        unset="as many as help, at most one for each core",
    )  # fmt: skip
    overwrite: bool = option(False, "Replace outputs that exist")
