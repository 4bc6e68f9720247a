"""A region from a file: where polygons and masks lie, and what is refused."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.models.unet import UNetArguments
from tilepipe.regions.cells import Bools, CellGrid
from tilepipe.regions.mask_image import cells_of_image
from tilepipe.regions.polygons import cells_of_polygons, looks_like_polygons

HEIGHT, WIDTH = 640, 800
SQUARE = [[320, 160], [480, 160], [480, 320], [320, 320], [320, 160]]
"""(x, y), on cells of 16."""


def feature(*rings: Any, **more: Any) -> dict[str, Any]:
    """As QuPath exports an annotation."""
    return {
        "type": "Feature",
        "id": "8f5e6c2a-0001",
        "geometry": {"type": "Polygon", "coordinates": list(rings), **more},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
    }


def square_cells(grown: int = 0) -> Bools:
    cells = np.zeros((HEIGHT // 16, WIDTH // 16), bool)
    cells[10 - grown : 20 + grown, 20 - grown : 30 + grown] = True
    return cells


def near(found: Bools, square: Bools, other: Bools) -> bool:
    """All of one, and nothing that is not in the other."""
    return bool(found[square].all() and not found[~other].any())


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "slide.tif", make_image(HEIGHT, WIDTH))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", make_image(HEIGHT, WIDTH))


def write_scene(path: Path, pixels: NDArray[Any], step: float = 10, **more: Any) -> Path:
    import rasterio

    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, count = pixels.shape
    options = {
        "crs": "EPSG:32633", "transform": rasterio.Affine(step, 0, 5e5, 0, -step, 5e6), **more,
    }  # fmt: skip
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype="uint8", **options
    ) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def polygons(path: Path, document: Any, image: Path) -> Bools:
    path.write_text(json.dumps(document))
    assert looks_like_polygons(str(path))
    with closing(open_image(image)) as opened:
        return cells_of_polygons(str(path), opened, CellGrid.of(opened.levels[0], 16))


def masked(path: Path, image: Path) -> Bools:
    assert not looks_like_polygons(str(path))
    with closing(open_image(image)) as opened:
        return cells_of_image(str(path), opened, CellGrid.of(opened.levels[0], 16))


def on_map(ring: list[list[float]], crs: str = "EPSG:32633") -> list[list[float]]:
    from rasterio.warp import transform

    x, y = zip(*((5e5 + 10 * px, 5e6 - 10 * py) for px, py in ring), strict=True)
    xs, ys = transform("EPSG:32633", crs, x, y)
    return [[a, b] for a, b in zip(xs, ys, strict=True)]


@pytest.mark.parametrize("shape", ["collection", "list", "feature", "geometry", "multi"])
def test_qupaths_polygons_are_in_pixels_of_level_0(shape: str, slide: Path, tmp_path: Path) -> None:
    inner = [[x + (4 if x == 320 else -4), y + (4 if y == 160 else -4)] for x, y in SQUARE]
    one = feature(inner)
    line = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}}
    document: Any = {
        "collection": {"type": "FeatureCollection", "features": [line, one]},
        "list": [one, {**one, "geometry": None}],
        "feature": one,
        "geometry": one["geometry"],
        "multi": {"type": "MultiPolygon", "coordinates": [[inner], []]},
    }[shape]
    assert (polygons(tmp_path / "p.geojson", document, slide) == square_cells()).all()


def test_a_polygon_within_a_cell_and_one_half_outside_touch_cells(
    slide: Path, tmp_path: Path
) -> None:
    tiny = [[101, 101], [103, 101], [102, 103], [101, 101]]
    over = [[-50, 630], [-50, 900], [10, 900], [10, 630], [-50, 630]]
    cells = polygons(tmp_path / "p.json", [feature(tiny), feature(over)], slide)
    assert sorted(map(tuple, np.argwhere(cells))) == [(6, 6), (39, 0)]


def test_holes_are_outside(slide: Path, tmp_path: Path) -> None:
    hole = [[360, 200], [440, 200], [440, 280], [360, 280], [360, 200]]
    cells = polygons(tmp_path / "p.json", feature(SQUARE, hole), slide)
    assert cells[11, 21]
    assert not cells[15, 25]


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "urn:ogc:def:crs:EPSG::32633", "EPSG:3857"])
def test_polygons_of_a_gis_lie_where_their_crs_says(
    crs: str | None, scene: Path, tmp_path: Path
) -> None:
    ring = on_map(SQUARE, crs or "EPSG:4326")
    document = {"type": "FeatureCollection", "features": [feature(ring)]}
    if crs is not None:
        document["crs"] = {"type": "name", "properties": {"name": crs}}
    found = polygons(tmp_path / "p.geojson", document, scene)
    assert near(found, square_cells(), square_cells(1))


def test_layers_of_a_gis_lie_where_their_crs_says(scene: Path, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    import shapely

    path = tmp_path / "p.gpkg"
    shape = shapely.to_wkb(np.array([shapely.Polygon(on_map(SQUARE, "EPSG:3857"))]))
    pyogrio.raw.write(path, shape, [], [], geometry_type="Polygon", crs="EPSG:3857")
    assert looks_like_polygons(str(path))
    with closing(open_image(scene)) as opened:
        found = cells_of_polygons(str(path), opened, CellGrid.of(opened.levels[0], 16))
    assert near(found, square_cells(), square_cells(1))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "FeatureCollection", "features": []}, "holds no polygon"),
        ({"type": "Point", "coordinates": [3, 4]}, "holds no polygon"),
        ({"hello": 1}, "not GeoJSON"),
        ([1, 2], "not GeoJSON"),
        (feature([[x + 5000, y] for x, y in SQUARE]), "no polygon touches .* pixels of level 0"),
        (feature([[1, 2], [3, 4]]), "'Tumor' is not a polygon"),
        (feature([["a", 2], [3, 4], [5, 6], [1, 2]]), "'Tumor' is not a polygon"),
        (feature([[float("nan"), 2], [3, 4], [5, 6], [1, 2]]), "'Tumor' is not a polygon"),
        (
            {**feature(SQUARE), "crs": {"type": "name", "properties": {"name": "EPSG:4326"}}},
            "has no CRS",
        ),
        ({**feature(SQUARE), "crs": {"type": "link"}}, "its crs has no name"),
    ],
)
def test_polygons_that_cannot_be_placed_are_refused(
    document: Any, message: str, slide: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        polygons(tmp_path / "p.geojson", document, slide)


def test_polygons_of_a_scene_need_a_crs_or_degrees(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no CRS"):
        polygons(tmp_path / "p.geojson", feature(SQUARE), scene)
    nowhere = {**feature(SQUARE), "crs": {"properties": {"name": "EPSG:999999"}}}
    with pytest.raises(InputError, match="is not known"):
        polygons(tmp_path / "p.geojson", nowhere, scene)
    elsewhere = feature([[0, 0], [1, 0], [1, 1], [0, 0]])
    with pytest.raises(InputError, match="longitude and latitude"):
        polygons(tmp_path / "p.geojson", elsewhere, scene)


def test_what_is_no_polygons_and_no_image_is_refused(slide: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2, depth=2))
    options: dict[str, Any] = {"model": tmp_path / "m.safetensors"}
    with pytest.raises(InputError, match=r"ogr2ogr a\.gpkg a\.kmz"):
        tilepipe.plan(slide, tissue=str(tmp_path / "a.kmz"), **options)
    with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
        tilepipe.plan(slide, tissue=str(tmp_path / "nowhere.png"), **options)
    (tmp_path / "broken.json").write_text('{"type": ')
    with pytest.raises(InputError, match="is not GeoJSON"):
        tilepipe.plan(slide, tissue=str(tmp_path / "broken.json"), **options)
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    with pytest.raises(InputError, match=r"notes\.txt"):
        tilepipe.plan(slide, tissue=str(tmp_path / "notes.txt"), **options)


@pytest.mark.parametrize(("name", "scale"), [("m.png", 4), ("m.tif", 1), ("m.tif", 16)])
def test_a_mask_is_stretched_over_the_image(
    name: str, scale: int, slide: Path, tmp_path: Path
) -> None:
    inside = np.kron(square_cells(), np.ones((16, 16), np.uint8))[::scale, ::scale] * 255
    path = tmp_path / name
    if name.endswith(".png"):
        Picture.fromarray(inside).save(path)
    else:
        tifffile.imwrite(path, inside)
    assert (masked(path, slide) == square_cells()).all()


def test_a_small_mask_may_lack_a_row(slide: Path, tmp_path: Path) -> None:
    inside = np.zeros((HEIGHT // 30, WIDTH // 30), np.uint8)  # 21 x 26: cut off below
    inside[6:10, 11:16] = 1
    path = tmp_path / "m.png"
    Picture.fromarray(inside).save(path)
    assert near(masked(path, slide), square_cells(-1), square_cells(3))


def test_any_band_counts_and_nodata_does_not(scene: Path, tmp_path: Path) -> None:
    inside = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    inside[160:320, 320:480, 2] = 7
    assert (masked(write_scene(tmp_path / "m.tif", inside), scene) == square_cells()).all()
    flat = np.full((HEIGHT, WIDTH), 255, np.uint8)
    flat[160:320, 320:480] = 1
    path = write_scene(tmp_path / "n.tif", flat, nodata=255)
    assert (masked(path, scene) == square_cells()).all()


def test_a_georeferenced_mask_lies_where_it_lies(scene: Path, tmp_path: Path) -> None:
    from rasterio import Affine

    corner = Affine(20, 0, 5e5 + 3000, 0, -20, 5e6 - 1400)
    inside = np.zeros((100, 120), np.uint8)
    inside[10:90, 10:90] = 1  # 20 m pixels from x 3200 m, y 1600 m
    path = write_scene(tmp_path / "m.tif", inside, transform=corner)
    assert (masked(path, scene) == square_cells()).all()
    upside = write_scene(
        tmp_path / "u.tif", inside[::-1], transform=corner * Affine(1, 0, 0, 0, -1, 100)
    )
    assert (masked(upside, scene) == square_cells()).all()


def test_masks_that_cannot_be_placed_are_refused(slide: Path, scene: Path, tmp_path: Path) -> None:
    from rasterio import Affine

    inside = np.ones((HEIGHT, WIDTH), np.uint8)
    with pytest.raises(InputError, match="is georeferenced, and"):
        masked(write_scene(tmp_path / "a.tif", inside), slide)
    with pytest.raises(InputError, match="its CRS is not that of"):
        masked(write_scene(tmp_path / "b.tif", inside, crs="EPSG:32632"), scene)
    turned = Affine(10, 0, 5e5, 0, -10, 5e6) * Affine.rotation(20)
    with pytest.raises(InputError, match="is turned against"):
        masked(write_scene(tmp_path / "c.tif", inside, transform=turned), scene)
    away = Affine(10, 0, 9e5, 0, -10, 5e6)
    with pytest.raises(InputError, match="has no pixel above 0 within"):
        masked(write_scene(tmp_path / "d.tif", inside, transform=away), scene)
    tifffile.imwrite(tmp_path / "e.tif", inside[:, :400])
    with pytest.raises(InputError, match="proportions differ"):
        masked(tmp_path / "e.tif", slide)
    tifffile.imwrite(tmp_path / "f.tif", inside * 0)
    with pytest.raises(InputError, match="has no pixel above 0"):
        masked(tmp_path / "f.tif", slide)


@pytest.mark.slow
def test_a_mask_of_tilepipes_own_making_is_a_region(scene: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2, depth=2), pixel_size_um=None)
    first = tmp_path / "first.tif"
    tilepipe.run(scene, model=model, outputs=first, region=(160, 320, 160, 160))
    second = tmp_path / "second.ome.zarr"
    tilepipe.run(scene, model=model, outputs=second, tissue=first)
    one, two = (
        tilepipe.open_mask(path).read(Window(0, 0, HEIGHT, WIDTH)) for path in (first, second)
    )
    assert ((two != 255) <= (one != 255)).all()
    assert (two[one == 1] != 255).all()
    assert (two[two != 255] == one[two != 255]).all()
