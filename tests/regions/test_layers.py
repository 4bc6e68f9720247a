"""Layers of named regions: what is read of them, where they lie on a mask, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from pyproj import CRS, Transformer

from tilepipe.errors import InputError
from tilepipe.images.base import RasterGrid
from tilepipe.regions.layers import WHOLE_IMAGE, read_layer

SLIDE = RasterGrid(400, 500)
BOX = shapely.box(10, 20, 60, 80)


def feature(geometry, **properties):
    return {
        "type": "Feature",
        "geometry": json.loads(shapely.to_geojson(geometry)),
        "properties": properties,
    }


def write(path, *features, **more):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return str(path)


def scene(code="EPSG:32633", metres=10.0):
    x, y = Transformer.from_crs("OGC:CRS84", code, always_xy=True).transform(15.1, 60.0)
    wkt = str(CRS.from_user_input(code).to_wkt())
    return RasterGrid(400, 500, None, wkt, (metres, 0, x, 0, -metres, y))


def on_earth(geometry, grid, code):
    """Bring pixels of a grid to coordinates of a CRS."""
    a, _, c, _, e, f = grid.transform
    transformer = Transformer.from_crs(grid.crs, code, always_xy=True)
    return shapely.transform(
        geometry, lambda p: np.stack(transformer.transform(a * p[:, 0] + c, e * p[:, 1] + f), -1)
    )


def write_gdal(path, shapes, crs, **columns):
    pyogrio = pytest.importorskip("pyogrio")
    kind = "MultiPolygon" if path.suffix == ".gpkg" else "Polygon"
    several = [shapely.multipolygons([s]) if kind == "MultiPolygon" else s for s in shapes]
    fields = list(columns)
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(several, object)),
        [np.array(columns[name]) for name in fields], fields, geometry_type=kind, crs=crs,
    )  # fmt: skip
    return str(path)


def test_regions_of_qupath_are_in_pixels_of_the_image(tmp_path):
    path = write(
        tmp_path / "a.geojson",
        feature(BOX, objectType="annotation", name="core 1"),
        feature(BOX, objectType="annotation", classification={"name": "Tumor", "color": [1, 2, 3]}),
        feature(BOX, objectType="annotation"),
    )
    layer = read_layer(path, SLIDE, (4.0, 8.0, 2.0, 4.0))
    assert [region.name for region in layer.regions] == ["core 1", "Tumor", "region 3"]
    # The mask begins 4 columns and 8 rows in, and its pixels take 2 columns and 4 rows.
    expected = shapely.box(3, 3, 28, 18)
    assert all(shapely.equals(region.shape, expected) for region in layer.regions)
    assert all(shapely.equals(region.drawn.geometry, BOX) for region in layer.regions)
    assert layer.crs is None
    assert not layer.warnings


def test_what_has_no_area_or_was_detected_is_passed_over(tmp_path):
    path = write(
        tmp_path / "a.geojson",
        feature(shapely.Point(3, 3), name="point"),
        feature(shapely.LineString([(0, 0), (9, 9)]), name="line"),
        feature(BOX, objectType="detection", name="nucleus"),
        {"type": "Feature", "geometry": None, "properties": None},
        {"type": "Feature", "properties": None, "geometry": feature(BOX)["geometry"]},
    )
    assert [r.name for r in read_layer(path, SLIDE, WHOLE_IMAGE).regions] == ["region 5"]
    path = write(tmp_path / "b.geojson", feature(shapely.Point(3, 3)))
    with pytest.raises(InputError, match="holds no polygon"):
        read_layer(path, SLIDE, WHOLE_IMAGE)


def test_bare_lists_and_collections_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([feature(BOX, name="one"), feature(BOX, ID=7)]))
    assert [r.name for r in read_layer(str(path), SLIDE, WHOLE_IMAGE).regions] == ["one", "7"]
    both = shapely.GeometryCollection([BOX, shapely.Point(1, 1), shapely.box(50, 20, 90, 80)])
    path.write_text(json.dumps(feature(both)))
    (region,) = read_layer(str(path), SLIDE, WHOLE_IMAGE).regions
    assert shapely.equals(region.shape, shapely.box(10, 20, 90, 80))


def test_a_third_coordinate_is_dropped(tmp_path):
    path = write(tmp_path / "a.geojson", feature(shapely.force_3d(BOX, 5.0)))
    (region,) = read_layer(path, SLIDE, WHOLE_IMAGE).regions
    assert shapely.equals(region.shape, BOX)
    assert not shapely.has_z(region.shape)


def test_a_region_that_crosses_itself_is_repaired_and_named(tmp_path):
    bow = shapely.Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    path = write(tmp_path / "a.geojson", feature(bow, name="bow"), feature(BOX, name="box"))
    layer = read_layer(path, SLIDE, WHOLE_IMAGE)
    (warning,) = layer.warnings
    assert "'bow'" in warning
    assert "box" not in warning
    assert all(shapely.is_valid(region.shape) for region in layer.regions)
    assert layer.regions[0].shape.area == 800


def test_regions_beside_the_mask_are_named(tmp_path):
    far = shapely.box(1000, 1000, 1010, 1010)
    path = write(tmp_path / "a.geojson", feature(BOX, name="here"), feature(far, name="there"))
    layer = read_layer(path, SLIDE, WHOLE_IMAGE)
    assert len(layer.regions) == 2
    (warning,) = layer.warnings
    assert "'there'" in warning
    assert "'here'" not in warning
    path = write(tmp_path / "b.geojson", feature(far, name="there"))
    with pytest.raises(InputError, match=r"no region lies on the mask.*pixels of level 0"):
        read_layer(path, SLIDE, WHOLE_IMAGE)


def test_without_a_place_on_the_image_a_warning_says_how_coordinates_are_read(tmp_path):
    layer = read_layer(write(tmp_path / "a.geojson", feature(BOX)), SLIDE, None)
    assert shapely.equals(layer.regions[0].shape, BOX)
    assert "as pixels of the mask" in layer.warnings[0]


@pytest.mark.parametrize("code", ["EPSG:32633", "EPSG:3857", "EPSG:4326"])
def test_geojson_is_longitude_and_latitude_unless_it_says_otherwise(tmp_path, code):
    grid = scene(code, 10.0 if code != "EPSG:4326" else 1e-4)
    path = write(tmp_path / "a.geojson", feature(on_earth(BOX, grid, "OGC:CRS84"), name="field"))
    (region,) = read_layer(path, grid, WHOLE_IMAGE).regions
    assert shapely.hausdorff_distance(region.shape, BOX) < 1e-4
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}}
    shape = on_earth(BOX, grid, "EPSG:3035")
    path = write(tmp_path / "b.geojson", feature(shape), crs=named)
    (region,) = read_layer(path, grid, WHOLE_IMAGE).regions
    assert shapely.hausdorff_distance(region.shape, BOX) < 1e-4


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp"])
@pytest.mark.parametrize("code", ["EPSG:32633", "EPSG:4326", "EPSG:3035"])
def test_layers_of_a_gis_are_brought_to_the_crs_of_the_mask(tmp_path, suffix, code):
    grid = scene()
    path = write_gdal(
        tmp_path / f"fields{suffix}", [on_earth(BOX, grid, code)] * 2, code, NAME=["a", "b"]
    )
    layer = read_layer(path, grid, WHOLE_IMAGE)
    assert [region.name for region in layer.regions] == ["a", "b"]
    for region in layer.regions:
        assert shapely.hausdorff_distance(region.shape, BOX) < 1e-3


def test_names_come_from_a_number_too(tmp_path):
    grid = scene()
    path = write_gdal(tmp_path / "a.gpkg", [on_earth(BOX, grid, "EPSG:4326")], "EPSG:4326", id=[7])
    assert read_layer(path, grid, WHOLE_IMAGE).regions[0].name == "7"


def test_a_layer_without_a_crs_is_refused_for_a_mask_that_has_one(tmp_path):
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        path = write_gdal(tmp_path / "a.gpkg", [BOX], None, name=["a"])
    with pytest.raises(InputError, match="does not say what CRS it is in"):
        read_layer(path, scene(), WHOLE_IMAGE)
    assert read_layer(path, SLIDE, WHOLE_IMAGE).regions[0].name == "a"
    pixels = write(tmp_path / "b.geojson", feature(shapely.box(200, 20, 300, 80)))
    with pytest.raises(InputError, match="not longitude and latitude"):
        read_layer(pixels, scene(), WHOLE_IMAGE)


def test_a_layer_with_a_crs_is_refused_for_a_mask_without_one(tmp_path):
    path = write_gdal(tmp_path / "a.fgb", [BOX], "EPSG:32633", name=["a"])
    with pytest.raises(InputError, match="EPSG:32633, and the mask has no CRS"):
        read_layer(path, SLIDE, WHOLE_IMAGE)


def test_a_layer_that_is_elsewhere_is_refused(tmp_path):
    path = write(tmp_path / "a.geojson", feature(shapely.box(-70, -30, -69, -29)))
    with pytest.raises(InputError, match="being read as longitude and latitude"):
        read_layer(path, scene(), WHOLE_IMAGE)


def test_a_file_of_several_layers_is_refused(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    path = tmp_path / "a.gpkg"
    for name in ("roads", "fields"):
        pyogrio.raw.write(
            path, shapely.to_wkb(np.array([BOX])), [], [], geometry_type="Polygon",
            crs="EPSG:32633", layer=name, append=path.exists(),
        )  # fmt: skip
    with pytest.raises(InputError, match=r"2 layers of shapes \(roads, fields\)"):
        read_layer(str(path), scene(), WHOLE_IMAGE)


def broken(shape, **properties):
    return {"type": "Feature", "geometry": shape, "properties": properties}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not GeoJSON"),
        ("3", "but not GeoJSON"),
        ('{"type": "Feature"}', "but not GeoJSON"),
        ('{"crs": 3, "type": "FeatureCollection", "features": []}', "crs has no name"),
        ('{"type": "FeatureCollection", "features": []}', "holds no polygon"),
        (json.dumps(broken({"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}, name="x")),
         "'x' is not a polygon"),
        (json.dumps(broken({"type": "Polygon", "coordinates": [[1, 2]]})), "not"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [1, 1], [0, 0]]]}',
         "'region 1' is not a polygon"),
        ('{"type": "Polygon", "coordinates": [[["a", 0], [1, 2], [1, 1], [0, 0]]]}', "not"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [3, 3], [0, 0]]]}', "has no area"),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_refused(tmp_path, content, said):
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_layer(str(path), SLIDE, WHOLE_IMAGE)


@pytest.mark.parametrize("name", ["none.geojson", "none.gpkg", "none.csv"])
def test_what_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="none"):
        read_layer(str(tmp_path / name), SLIDE, WHOLE_IMAGE)


def test_what_is_no_geopackage_is_refused(tmp_path):
    pytest.importorskip("pyogrio")
    path = tmp_path / "a.gpkg"
    path.write_text("nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        read_layer(str(path), SLIDE, WHOLE_IMAGE)
