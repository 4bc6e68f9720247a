"""What each known reader makes of a file: one table of data.

A row says what a reader makes of files of a format that have certain facts, which the checkers
find (`tilepipe.validation.result.Checked`). For each reader the first row that fits counts. All of
them were seen by opening such files with the versions below, except where the row says so; QuPath
and OMERO stand for Bio-Formats and OpenSlide, through which they read, and for their source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tilepipe.validation.result import Checked, Fact, Opening, Verdict

SEEN_WITH = (
    "Bio-Formats 7.3, OpenSlide 4.0, napari 0.9 with napari-ome-zarr 0.10, QGIS 3.22, GDAL 3.6 to "
    "3.12, xarray 2026.9, rioxarray 0.23, spatialdata 0.7"
)
"""The versions of the readers whose behaviour the table states."""

READERS = (
    "QuPath", "OMERO", "OpenSlide", "napari", "QGIS", "GDAL", "xarray", "spatialdata", "geopandas",
)  # fmt: skip
"""The readers, in the order in which they are shown."""

MASKS = ("labels", "planes", "values")
"""What masks hold, which `tilepipe convert` writes in any format."""


class Row(NamedTuple):
    """What a reader makes of files with certain facts."""

    reader: str
    """Empty: any."""
    format: str
    """Empty: any."""
    when: Mapping[str, Fact]
    """Facts that a file must have; one that a checker does not find is not had."""
    verdict: Verdict
    what: str


_DISPLAY = (
    "set the display range of the channels to 0 .. {top}, or all classes look black; tilepipe run "
    "--channels writes files that need no step"
)
_NUMBERS = (
    "grey by number; for objects with outlines give it the .geojson of the same run (not tried)"
)
_BIO = "channels, colours and pixel size, through Bio-Formats"
_INSTEAD = {"to_zarr": ".ome.zarr", "to_ome_tiff": ".ome.tif", "to_cog": ".tif"}
"""The words of a text that say which format this reader prefers, where the file is a mask."""
_ALL: Mapping[str, Fact] = {}

TABLE: tuple[Row, ...] = (
    Row("", "", {"whole": False}, "cannot", "part of the file is missing"),
    # The numbers of objects
    Row("QuPath", "OME-TIFF", {"content": "numbers"}, "manual", _NUMBERS),
    Row("QuPath", "GeoTIFF", {"content": "numbers"}, "manual", _NUMBERS),
    Row("OMERO", "OME-TIFF", {"content": "numbers"}, "manual", _NUMBERS),
    Row("OpenSlide", "GeoTIFF", {"content": "numbers"}, "cannot", "it reads 8 and 16 bits only"),
    Row("OpenSlide", "OME-TIFF", {"content": "numbers"}, "cannot", "it reads 8 and 16 bits only"),
    Row("napari", "OME-TIFF", {"content": "numbers"}, "manual",
        "an image of one level: convert the layer to labels (not tried)"),
    Row("napari", "GeoTIFF", {"content": "numbers"}, "manual",
        "an image of one level: convert the layer to labels (not tried)"),
    Row("napari", "OME-Zarr", {"content": "numbers"}, "manual",
        "with napari-ome-zarr: labels in colours of its own, but the layer is hidden: click on its "
        "eye (not tried)"),
    Row("GDAL", "GeoTIFF", {"content": "numbers", "placed": True}, "opens", "place, levels"),
    # OME-TIFF
    Row("QuPath", "OME-TIFF", {"content": "labels"}, "manual", _DISPLAY),
    Row("QuPath", "OME-TIFF", {"content": "planes"}, "manual", _DISPLAY),
    Row("QuPath", "OME-TIFF", {"pyramid": "none", "large": True}, "manual",
        "it has no pyramid, and is slow to look at{to_ome_tiff}"),
    Row("QuPath", "OME-TIFF", _ALL, "opens", _BIO),
    Row("OMERO", "OME-TIFF", {"content": "labels"}, "manual", _DISPLAY),
    Row("OMERO", "OME-TIFF", {"content": "planes"}, "manual", _DISPLAY),
    Row("OMERO", "OME-TIFF", _ALL, "opens", _BIO),
    Row("OpenSlide", "OME-TIFF", {"pyramid": "subifds"}, "manual",
        "it sees the full resolution only, as it reads no SubIFDs{to_cog}"),
    Row("OpenSlide", "OME-TIFF", {"tiled": False}, "cannot", "it reads tiles only"),
    Row("napari", "OME-TIFF", {"content": "labels"}, "manual",
        "an image of one level: set its contrast limits to 0 .. {top}{to_zarr}"),
    Row("napari", "OME-TIFF", _ALL, "opens", "an image of one level"),
    Row("QGIS", "OME-TIFF", _ALL, "manual",
        "it has no place on a map, and no styles{to_cog}"),
    Row("GDAL", "OME-TIFF", _ALL, "opens", "levels, without place"),
    Row("xarray", "OME-TIFF", _ALL, "opens", "through rioxarray, without place"),
    Row("spatialdata", "OME-TIFF", _ALL, "manual",
        "read it with tifffile or dask-image, and parse it with Labels2DModel or Image2DModel"),
    # GeoTIFF
    Row("QuPath", "GeoTIFF", {"pyramid": "none", "large": True}, "manual",
        "it has no overviews, and is slow to look at{to_cog}"),
    Row("QuPath", "GeoTIFF", {"dtype": "uint8", "tiled": True, "bands": 1}, "opens",
        "levels and colours, through OpenSlide (by its source, not tried)"),
    Row("OpenSlide", "GeoTIFF", {"tiled": False}, "cannot", "it reads tiles only"),
    Row("OpenSlide", "GeoTIFF", {"dtype": "uint8", "bands": 1, "palette": True}, "opens",
        "levels, colours of the classes and pixel size"),
    Row("napari", "GeoTIFF", {"content": "labels"}, "manual",
        "an image of one level: set its contrast limits to 0 .. {top}{to_zarr}"),
    Row("QGIS", "GeoTIFF", {"placed": False}, "manual",
        "it has no place on a map: QGIS shows it in pixels"),
    Row("QGIS", "GeoTIFF", {"content": "labels", "legend": "classes"}, "opens",
        "place, names, colours; the background is transparent"),
    Row("QGIS", "GeoTIFF", {"content": "labels", "legend": "palette"}, "manual",
        "place, names and colours are right; remove the black entries of the legend that are no "
        "class, and make the background transparent"),
    Row("QGIS", "GeoTIFF", {"content": "planes", "styled": False}, "manual",
        "it shows black: set the minimum of each band to 0 and its maximum to 1"),
    Row("QGIS", "GeoTIFF", {"content": "values", "styled": False}, "manual",
        "it mixes bands to colours: choose a single-band style"),
    Row("QGIS", "GeoTIFF", {"styled": True}, "opens", "place and style"),
    Row("QGIS", "GeoTIFF", _ALL, "opens", "place"),
    Row("GDAL", "GeoTIFF", {"placed": False}, "opens", "levels, without place"),
    Row("GDAL", "GeoTIFF", _ALL, "opens", "place, levels, names of classes"),
    Row("xarray", "GeoTIFF", {"placed": False}, "opens", "through rioxarray, without place"),
    Row("xarray", "GeoTIFF", _ALL, "opens", "through rioxarray, with place and nodata"),
    Row("spatialdata", "GeoTIFF", _ALL, "manual",
        "read it with rioxarray, and parse it with Labels2DModel or Image2DModel"),
    # OME-Zarr
    Row("QuPath", "OME-Zarr", {"zarr": 2}, "opens", "by its source, not tried"),
    Row("QuPath", "OME-Zarr", {"zarr": 3}, "cannot",
        "QuPath up to 0.8 reads zarr 2 only, as of tilepipe run --ngff 0.4 (by its source, not "
        "tried){to_ome_tiff}"),
    Row("OMERO", "OME-Zarr", {"zarr": 2}, "opens", "by its source, not tried"),
    Row("OMERO", "OME-Zarr", {"zarr": 3}, "cannot",
        "OMERO reads zarr 2 only, as of tilepipe run --ngff 0.4 (by its source, not "
        "tried){to_ome_tiff}"),
    Row("OpenSlide", "OME-Zarr", _ALL, "cannot",
        "it reads slides in single files{to_cog}"),
    Row("napari", "OME-Zarr", {"content": "labels", "in_image": True}, "opens",
        "with napari-ome-zarr: open the image, and its labels come along, with place, names and "
        "colours"),
    Row("napari", "OME-Zarr", {"content": "labels"}, "manual",
        "with napari-ome-zarr: place, names and colours are right, but the layer is hidden: click "
        "on its eye"),
    Row("napari", "OME-Zarr", {"content": "probabilities", "no_answer": 255}, "manual",
        "with napari-ome-zarr: pixels without an answer (255) look like the highest probability: "
        "set the contrast limits to 0 .. 254"),
    Row("napari", "OME-Zarr", _ALL, "opens", "with napari-ome-zarr: a layer for each channel"),
    Row("QGIS", "OME-Zarr", {"coordinates": True}, "manual",
        "with GDAL 3.12 or newer only{to_cog}"),
    Row("QGIS", "OME-Zarr", _ALL, "cannot", "it finds no place in it{to_cog}"),
    Row("GDAL", "OME-Zarr", {"zarr": 3, "coordinates": True}, "opens",
        "3.12 and newer, with place; GDAL up to 3.10 does not open it"),
    Row("GDAL", "OME-Zarr", {"zarr": 3}, "manual",
        "3.12 and newer only, a level at a time, without place{to_cog}"),
    Row("xarray", "OME-Zarr", {"levels_conflict": True, "coordinates": True}, "manual",
        "the levels have sizes that conflict: xarray.open_zarr(PATH, drop_variables=[{coarser}]); "
        "then with place"),
    Row("xarray", "OME-Zarr", {"levels_conflict": True}, "manual",
        "the levels have sizes that conflict: xarray.open_zarr(PATH, drop_variables=[{coarser}]); "
        "without place"),
    Row("xarray", "OME-Zarr", {"coordinates": True}, "opens", "with place"),
    Row("xarray", "OME-Zarr", _ALL, "opens", "without place"),
    Row("spatialdata", "OME-Zarr", {"spatialdata": True}, "opens", "as a SpatialData object"),
    Row("spatialdata", "OME-Zarr", _ALL, "cannot",
        "it gives an empty object, without an error, as this is no SpatialData folder: open it "
        "with ome-zarr-py, and parse it with Labels2DModel or Image2DModel"),
    # Objects
    Row("QuPath", "GeoJSON", {"qupath": True}, "opens",
        "names, colours and measurements: drag it onto the image (by its source, not tried)"),
    Row("QuPath", "GeoJSON", {"qupath": False}, "cannot",
        "its coordinates are of the map, and QuPath takes pixels"),
    Row("QuPath", "", {"content": "objects"}, "cannot", "it reads objects as GeoJSON only"),
    Row("OpenSlide", "", {"content": "objects"}, "cannot", "it reads images only"),
    Row("QGIS", "GeoJSON", {"qupath": True}, "manual",
        "its coordinates are pixels of the image, which QGIS takes for degrees: set the layer to "
        "no CRS"),
    Row("QGIS", "GeoJSON", {"qupath": False}, "opens", "place and attributes"),
    Row("QGIS", "GeoPackage", _ALL, "opens", "attributes, and the colours of classes"),
    Row("QGIS", "FlatGeobuf", _ALL, "opens", "attributes"),
    Row("QGIS", "GeoParquet", _ALL, "manual", "where its GDAL has the Parquet driver"),
    Row("GDAL", "GeoParquet", _ALL, "manual", "where it has the Parquet driver"),
    Row("GDAL", "", {"content": "objects"}, "opens", "outlines and attributes"),
    Row("xarray", "", {"content": "objects"}, "cannot", "it reads arrays; geopandas reads objects"),
    Row("spatialdata", "", {"content": "objects"}, "manual",
        "read it with geopandas, and parse it with ShapesModel"),
    Row("geopandas", "GeoParquet", _ALL, "opens", "read_parquet: outlines, place and measurements"),
    Row("geopandas", "GeoJSON", {"qupath": True}, "manual",
        "read_file takes its pixels for degrees: set_crs(None, allow_override=True)"),
    Row("geopandas", "", {"content": "objects"}, "opens",
        "read_file: outlines, place and measurements"),
    *(Row("geopandas", of_pixels, _ALL, "cannot", "it reads objects, not pixels")
      for of_pixels in ("OME-TIFF", "GeoTIFF", "OME-Zarr")),
)  # fmt: skip
"""What each reader makes of each kind of file; of a reader's rows the first that fits counts."""


def openings(checked: Checked, name: str) -> tuple[Opening, ...]:
    """What each of `READERS` makes of a file called ``name``."""
    return tuple(_opening(reader, checked, name) for reader in READERS)


def _opening(reader: str, checked: Checked, name: str) -> Opening:
    facts = checked.facts
    words = {"top": 1, "coarser": "", **facts}
    for word, suffix in _INSTEAD.items():
        instead = f"; instead: tilepipe convert {name} NEW{suffix}"
        words[word] = instead if facts.get("content") in MASKS else ""
    for row in TABLE:
        if row.reader not in ("", reader) or row.format not in ("", checked.format):
            continue
        if all(facts.get(fact) == value for fact, value in row.when.items()):
            return Opening(reader, row.verdict, row.what.format(**words))
    return Opening(reader, "unknown", "nobody has tried such a file")
