"""Objects: QGIS, geopandas, spatialdata and napari; and QuPath's GeoJSON, by its own rules."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.readers.asking import reader
from tests.readers.conftest import Facts
from tests.readers.making import OBJECTS, PIXEL_UM, SHAPE, TRANSFORM, Results

pytestmark = pytest.mark.slow

SIZE, _, LEFT, _, _, TOP = TRANSFORM
CLASSES = Counter(name for name, _ in OBJECTS)
COLOURS = {"nucleus": [230, 25, 75], "fibre é": [60, 180, 75]}

_ROWS = [(rows.start, rows.stop) for _, (rows, _) in OBJECTS]
_COLUMNS = [(columns.start, columns.stop) for _, (_, columns) in OBJECTS]
PIXELS = [min(_COLUMNS)[0], min(_ROWS)[0], max(c[1] for c in _COLUMNS), max(r[1] for r in _ROWS)]
"""Left, top, right and bottom of all objects, in pixels."""

GROUND = [
    LEFT + SIZE * PIXELS[0], TOP - SIZE * PIXELS[3], LEFT + SIZE * PIXELS[2], TOP - SIZE * PIXELS[1]
]  # fmt: skip
"""West, south, east and north of all objects, in metres."""

AREAS = [
    (rows.stop - rows.start) * (columns.stop - columns.start) for _, (rows, columns) in OBJECTS
]
"""In pixels."""


# ------------------------------------------------------------------ QGIS

FILES = ("scene_objects.gpkg", "scene_objects.fgb", "scene_objects.geojson")


@pytest.fixture(scope="session")
def layers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    qgis = reader("qgis", "qgis.core")
    results = request.getfixturevalue("results")
    said: dict[str, Any] = qgis.ask(
        "qgis_layers", tmp_path_factory.mktemp("qgis"), *(results[name] for name in FILES)
    )
    return said["layers"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", FILES)
def test_qgis_finds_every_object_and_its_class(layers: dict[str, Any], name: str) -> None:
    assert layers[name]["count"] == len(OBJECTS)
    assert Counter(layers[name]["classes"]) == CLASSES


@pytest.mark.parametrize("name", FILES[:2])
def test_qgis_finds_objects_in_their_place(layers: dict[str, Any], name: str) -> None:
    assert layers[name]["crs"] == "EPSG:32633"
    assert layers[name]["extent"] == GROUND


def test_qgis_finds_geojson_in_degrees(layers: dict[str, Any]) -> None:
    """GeoJSON is in longitude and latitude; the layer lies where the others do."""
    from pyproj import Transformer

    layer = layers["scene_objects.geojson"]
    assert layer["crs"] == "EPSG:4326"
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    expected = to_degrees.transform_bounds(*GROUND)
    np.testing.assert_allclose(layer["extent"], expected, atol=1e-6)


def test_qgis_draws_a_geopackage_in_the_colours_of_classes(layers: dict[str, Any]) -> None:
    layer = layers["scene_objects.gpkg"]
    assert layer["renderer"] == "categorizedSymbol"
    assert dict(layer["legend"][: len(COLOURS)]) == COLOURS
    picture = np.asarray(Image.open(layer["picture"]).convert("RGBA"))
    scale = picture.shape[1] / (PIXELS[2] - PIXELS[0])
    for name, (rows, columns) in OBJECTS:
        y = ((rows.start + rows.stop) / 2 - PIXELS[1]) * scale
        x = ((columns.start + columns.stop) / 2 - PIXELS[0]) * scale
        red, green, blue, alpha = picture[int(y), int(x)].tolist()
        assert alpha > 0
        brightest = int(np.argmax(COLOURS[name]))
        assert int(np.argmax([red, green, blue])) == brightest


# ------------------------------------------------------------------ Python


@pytest.fixture(scope="session")
def frames(facts_of: Callable[..., Facts]) -> Facts:
    return facts_of(reader("rasterio", "geopandas", "pyarrow"), "vectors")


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet"])
def test_geopandas_reads_objects_of_a_scene(frames: Facts, suffix: str) -> None:
    found = frames(f"scene_objects.{suffix}")
    assert found["crs"] == 32633
    assert found["bounds"] == GROUND
    assert found["valid"]
    assert Counter(found["classes"]) == CLASSES
    assert sorted(found["areas"]) == sorted(SIZE**2 * area for area in AREAS)


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet"])
def test_geopandas_reads_objects_of_a_slide_in_micrometres(frames: Facts, suffix: str) -> None:
    found = frames(f"slide_objects.{suffix}")
    assert found["crs"] is None
    assert found["bounds"] == [PIXEL_UM * n for n in PIXELS]
    assert sorted(found["areas"]) == sorted(PIXEL_UM**2 * area for area in AREAS)


def test_geopandas_reads_geojson(frames: Facts) -> None:
    found = frames("scene_objects.geojson")
    assert found.get("valid"), found
    assert Counter(found["classes"]) == CLASSES


def test_spatialdata_reads_shapes_labels_and_table(facts_of: Callable[..., Facts]) -> None:
    found = facts_of(reader("spatialdata", "spatialdata"), "spatial_data")(
        "slide_objects.spatialdata.zarr"
    )
    assert found["shapes"] == {"objects": len(OBJECTS)}
    assert found["bounds"] == PIXELS
    assert found["bounds_um"] == [PIXEL_UM * n for n in PIXELS]
    assert found["labels"] == ["numbers"]
    assert found["labels_extent"] == [0, SHAPE[1], 0, SHAPE[0]]
    assert Counter(found["classes"]) == CLASSES
    assert found["annotates"] == "objects"


# ------------------------------------------------------------------ napari


def test_napari_opens_the_numbers_of_objects_as_labels(request: pytest.FixtureRequest) -> None:
    napari = reader("napari", "napari", "napari_ome_zarr", "PySide6")
    path = request.getfixturevalue("results")["slide_objects.ome.zarr/objects"]
    (layer,) = napari.ask("napari_layers", "napari-ome-zarr", "-", path)["layers"]
    assert layer["type"] == "Labels"
    assert layer["scale"] == [PIXEL_UM, PIXEL_UM]
    assert len({tuple(colour) for colour in layer["colours"]}) == 4


# ------------------------------------------------------------------ QuPath


@pytest.mark.parametrize("name", ["slide_objects.geojson", "slide_coarse.geojson"])
def test_geojson_of_a_slide_is_what_qupath_reads(results: Results, name: str) -> None:
    """QuPath itself is not tried: these are the rules of its reader, as its source has them.

    Coordinates are pixels of the slide, also where those of the mask are larger.
    """
    features = json.loads(Path(results[name]).read_text("utf-8"))["features"]
    assert Counter(f["properties"]["classification"]["name"] for f in features) == CLASSES
    for feature in features:
        assert feature["type"] == "Feature"
        assert uuid.UUID(feature["id"])
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert (
            properties["classification"]["color"] == COLOURS[properties["classification"]["name"]]
        )
        assert all(np.isfinite(list(properties["measurements"].values())))
        assert feature["geometry"]["type"] == "Polygon"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1], "a ring must be closed"
    points = np.concatenate([np.array(f["geometry"]["coordinates"][0]) for f in features])
    assert [*points.min(0), *points.max(0)] == PIXELS
