"""What a file says of its place on the Earth, from the image to plan, mask and summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

import tilepipe
from tests.engine.making import model_of, write_tiled_scene
from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli import call
from tilepipe.cli.show import show_image, show_plan, show_summary
from tilepipe.engine.options import RunOptions
from tilepipe.engine.planning.cautions import implausible_size
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, PixelSize, open_image
from tilepipe.images.convert import convert
from tilepipe.models.file import save_model
from tilepipe.models.unet import UNetArguments

SMALL = UNetArguments(width=2, depth=2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """For images without a scale."""
    save_tiny(tmp_path / "any.safetensors", SMALL, pixel_size_um=None)
    return tmp_path / "any.safetensors"


@pytest.fixture
def metre_model(tmp_path: Path) -> Callable[[float], Path]:
    def save(metres: float) -> Path:
        path = tmp_path / f"{metres}.safetensors"
        save_model(path, model_of(metres, "meter"))
        return path

    return save


def scene(
    path: Path, pixels: NDArray[Any], crs: str, size: float, corner: tuple[float, float]
) -> Path:
    write_tiled_scene(path, pixels, None)
    with rasterio.open(path, "r+") as dataset:
        dataset.crs = CRS.from_string(crs)
        dataset.transform = rasterio.Affine(size, 0, corner[0], 0, -size, corner[1])
    return path


# ------------------------------------------------------------------ on the ground


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crs", "size", "corner", "true"),
    [
        ("EPSG:3857", 0.6, (1e6, 8399737), (0.30026, 0.30076)),
        ("EPSG:4326", 2.7e-6, (7.1, 50.2), (0.30033, 0.19278)),
    ],
)
def test_a_scene_is_resampled_by_its_size_on_the_ground(
    crs: str,
    size: float,
    corner: tuple[float, float],
    true: tuple[float, float],
    tmp_path: Path,
    metre_model: Callable[[float], Path],
) -> None:
    image = scene(tmp_path / "i.tif", make_image(300, 360), crs, size, corner)
    plan, estimate = tilepipe.plan(image, model=metre_model(0.6))
    factors = plan.image.factors
    assert factors == pytest.approx((0.6 / true[0], 0.6 / true[1]), rel=1e-3)
    assert plan.image.pixel_size == PixelSize(0.6, 0.6, "meter")
    shown = show_plan(plan, estimate)
    assert "on the ground at the image's centre" in shown
    assert not estimate.warnings
    assert f"ground {true[1]:.4g} x {true[0]:.4g} m/px" in informed(open_image(image))
    # The mask lies where the image does.
    output = tmp_path / "m.tif"
    summary = tilepipe.run(image, model=metre_model(0.6), outputs=output, verify=2)
    assert summary.verification is not None
    assert summary.verification.exact
    assert "on the ground" in show_summary(summary)
    with rasterio.open(image) as one, rasterio.open(output) as other:
        assert other.crs == one.crs
        assert factors is not None
        assert other.transform.c == one.transform.c
        assert other.transform.a == pytest.approx(one.transform.a * factors[1], rel=1e-12)
        assert other.transform.e == pytest.approx(one.transform.e * factors[0], rel=1e-12)


def test_a_scene_in_utm_is_as_ever(tmp_path: Path, metre_model: Callable[[float], Path]) -> None:
    image = scene(tmp_path / "i.tif", make_image(300, 360), "EPSG:32633", 10.0, (5e5, 5e6))
    plan, estimate = tilepipe.plan(image, model=metre_model(10.0))
    assert plan.image.factors is None
    assert plan.image.pixel_size == PixelSize(10, 10, "meter")
    assert plan.image.crs_pixel_size is None
    assert "on the ground" not in show_plan(plan, estimate)
    assert "crs_pixel_size" not in plan.to_json()
    assert "on the ground" not in show_image(open_image(image))


def true_areas(labels: NDArray[Any], degrees: float, top: float) -> list[float]:
    """km2 of labels 0 and 1 on a grid of degrees, by the area of zones of the ellipsoid."""
    a, f = 6378137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))

    def zone(latitude: float) -> float:
        s = math.sin(math.radians(latitude))
        q = s / (1 - (e * s) ** 2) - math.log((1 - e * s) / (1 + e * s)) / (2 * e)
        return a * a * (1 - e * e) / 2 * q

    sums = [0.0, 0.0]
    for row, line in enumerate(labels):
        north = top - row * degrees
        pixel = (zone(north) - zone(north - degrees)) * math.radians(degrees) / 1e6
        for label in (0, 1):
            sums[label] += int((line == label).sum()) * pixel
    return sums


@pytest.mark.slow
@pytest.mark.parametrize("window", ["auto", 144])
def test_areas_are_true_over_half_the_earth(window: Any, tmp_path: Path, model: Path) -> None:
    pixels = make_image(320, 720)
    image = scene(tmp_path / "i.tif", pixels, "EPSG:4326", 0.25, (-90, 85.0))
    output = tmp_path / "m.ome.zarr"
    summary = tilepipe.run(image, model=model, outputs=output, window=window)
    labels = tilepipe.open_mask(output).read(Window(0, 0, 320, 720))
    expected = true_areas(labels, 0.25, 85.0)
    found = [c.area for c in summary.classes]
    assert summary.area_unit == "km2"
    assert found == pytest.approx(expected, rel=1e-3)
    # Told again, they are the same.
    again = tilepipe.run(image, model=model, outputs=output, window=window)
    assert [c.area for c in again.classes] == found
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert [c["area"] for c in record["classes"]] == found


def test_areas_of_an_export_told_again_are_those_measured(tmp_path: Path, model: Path) -> None:
    image = scene(tmp_path / "i.tif", make_image(200, 220), "EPSG:3857", 30.0, (1e6, 8399737))
    first = tilepipe.run(image, model=model, outputs=tmp_path / "m.tif")
    again = tilepipe.run(image, model=model, outputs=tmp_path / "m.tif")
    assert again.resumed == again.blocks
    total = sum(c.area or 0 for c in first.classes)
    assert total == pytest.approx(200 * 220 * 15.02**2 / 1e6, rel=0.01)
    assert [c.area for c in again.classes] == pytest.approx([c.area for c in first.classes])


def test_what_the_user_says_of_the_pixel_size_wins(tmp_path: Path, model: Path) -> None:
    image = scene(tmp_path / "i.tif", make_image(200, 220), "EPSG:3857", 30.0, (1e6, 8399737))
    plan, estimate = tilepipe.plan(image, model=model, pixel_size=20e6)
    assert plan.image.pixel_size == PixelSize(20, 20, "meter")
    assert plan.image.crs_pixel_size is None
    assert "on the ground" not in show_plan(plan, estimate)


def test_a_scene_of_many_scales_is_warned_of(
    tmp_path: Path, metre_model: Callable[[float], Path]
) -> None:
    image = scene(tmp_path / "i.tif", make_image(300, 300), "EPSG:3857", 20000.0, (0, 9e6))
    _, estimate = tilepipe.plan(image, model=metre_model(14000.0))
    assert any("the scale is that at the image's centre" in w for w in estimate.warnings)


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("size", "warned"), [(0.25, False), (0.025, True), (19.0, False), (24.0, True)]
)
def test_a_slide_of_impossible_pixels_is_warned_of(
    size: float, warned: bool, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "i.tif", make_image(60, 70), size)
    found = implausible_size(open_image(path), RunOptions(str(path)))
    assert (found is not None) == warned
    if found:
        assert "is implausible for a slide" in found


def test_a_band_of_an_electron_microscope_is_not(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "i.tif", make_image(60, 70, 1)[..., 0], 0.004)
    assert implausible_size(open_image(path), RunOptions(str(path))) is None


@pytest.mark.parametrize(("size", "warned"), [(1e-4, True), (0.002, False), (2e5, True)])
def test_a_scene_of_impossible_pixels_is_warned_of(
    size: float, warned: bool, tmp_path: Path
) -> None:
    path = scene(tmp_path / "i.tif", make_image(60, 70), "EPSG:32633", size, (5e5, 5e6))
    found = implausible_size(open_image(path), RunOptions(str(path)))
    assert (found is not None) == warned


def test_the_warnings_reach_plan_summary_record_and_quiet_runs(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.maximum(make_image(200, 240), 1)
    pixels[:60] = 0
    image = scene(tmp_path / "i.tif", pixels, "EPSG:32633", 1e-4, (5e5, 5e6))
    with rasterio.open(image, "r+") as dataset:
        dataset.scales = (0.5, 0.5, 0.5)
    said = ["30% of the image", "declares a scale and offset", "is implausible for a georeferenced"]
    plan, estimate = tilepipe.plan(image, model=model)
    summary = tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr")
    again = tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr", overwrite=True)
    record = json.loads((tmp_path / "m.run.json").read_text())
    for place in (
        show_plan(plan, estimate), show_summary(summary), show_summary(again),
        str(record["warnings"]),
    ):  # fmt: skip
        assert all(text in place for text in said)
    shown = informed(open_image(image))
    assert "note the image declares a scale and offset" in shown
    capsys.readouterr()
    quiet = ["run", str(image), "-m", str(model), "-o", str(tmp_path / "q.ome.zarr"), "-q"]
    assert call(quiet) == 0
    printed = capsys.readouterr().err
    assert all(text in printed for text in said)


# ------------------------------------------------------------------ control points and RPCs

RPCS = {
    "LINE_OFF": "150.25", "SAMP_OFF": "180", "LAT_OFF": "48", "LONG_OFF": "12",
    "HEIGHT_OFF": "100", "LINE_SCALE": "150", "SAMP_SCALE": "180", "LAT_SCALE": "0.03",
    "LONG_SCALE": "0.035", "HEIGHT_SCALE": "100", "LINE_NUM_COEFF": " ".join(["0"] * 20),
    "LINE_DEN_COEFF": "1 " + " ".join(["0"] * 19),
    "SAMP_NUM_COEFF": "0 1 " + " ".join(["0"] * 18),
    "SAMP_DEN_COEFF": "1 " + " ".join(["0"] * 19),
}  # fmt: skip


def controlled(path: Path, kind: str, pixels: NDArray[Any]) -> Path:
    write_tiled_scene(path, pixels, None)
    height, width = pixels.shape[:2]
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=pixels.shape[2],
        dtype=pixels.dtype,
    ) as dataset:  # fmt: skip
        dataset.write(np.moveaxis(pixels, 2, 0))
        if kind == "gcps":
            points = [
                GroundControlPoint(r, c, x=12 + c * 1e-4, y=48 - r * 1e-4, z=r + 1.5, id=f"{r}{c}")
                for r in (0.5, 150, 300)
                for c in (0, 180.25, 360)
            ]
            dataset.gcps = (points, CRS.from_epsg(4326))
        else:
            dataset.update_tags(ns="RPC", **RPCS)
    return path


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def informed(image: Image) -> str:
    """What `info` prints of an image, whatever the width of its columns."""
    return " ".join(show_image(image).split())


def control_of(path: Path) -> tuple[Any, dict[str, float]]:
    with rasterio.open(path) as dataset:
        points, crs = dataset.gcps
        places = [(p.row, p.col, p.x, p.y, p.z) for p in points]
        rpcs = dataset.rpcs
        found = {} if rpcs is None else {
            name: getattr(rpcs, name)
            for name in ("line_off", "samp_off", "line_scale", "samp_scale", "lat_off")
        }  # fmt: skip
        if rpcs is not None:
            assert rpcs.samp_num_coeff[1] == 1
        return (places, crs), found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gcps", "rpcs"])
def test_a_mask_keeps_what_places_its_image(kind: str, tmp_path: Path, model: Path) -> None:
    image = controlled(tmp_path / "i.tif", kind, make_image(300, 360))
    opened = open_image(image)
    assert opened.control is not None
    assert opened.crs is None
    shown = informed(opened)
    words = "9 ground control points, in WGS 84" if kind == "gcps" else "RPCs"
    assert f"control {words}" in shown
    summary = tilepipe.run(
        image, model=model, outputs=f"{tmp_path}/", region=(0, 0, 100, 120), verify=2
    )
    masks = [Path(str(path)) for path in summary.outputs]
    assert [mask.suffix for mask in masks] == [".zarr", ".tif", ".png"]
    (places, crs), rpcs = control_of(masks[1])
    (expected, _), expected_rpcs = control_of(image)
    assert places == expected
    assert rpcs == pytest.approx(expected_rpcs)
    if kind == "gcps":
        assert crs == CRS.from_epsg(4326)
    assert tilepipe.verify(masks[1]).exact
    # As other programs see it: the same place for the same pixel.
    assert open_image(masks[1]).control is not None


@pytest.mark.slow
@pytest.mark.parametrize("like_image", [False, True])
def test_control_moves_with_the_grid(like_image: bool, tmp_path: Path) -> None:
    image = controlled(tmp_path / "gcps.tif", "gcps", make_image(300, 360))
    other = controlled(tmp_path / "rpcs.tif", "rpcs", make_image(300, 360))
    save_tiny(tmp_path / "half.safetensors", SMALL, pixel_size_um=2.0)
    factor = 1.0 if like_image else 2.0
    options: dict[str, Any] = {
        "model": tmp_path / "half.safetensors", "pixel_size": 1.0, "like_image": like_image,
    }  # fmt: skip
    tilepipe.run(image, outputs=tmp_path / "g.tif", **options)
    tilepipe.run(other, outputs=tmp_path / "r.tif", **options)
    (places, _), _ = control_of(tmp_path / "g.tif")
    (expected, _), _ = control_of(image)
    for found, point in zip(places, expected, strict=True):
        assert found == pytest.approx((point[0] / factor, point[1] / factor, *point[2:]))
    _, rpcs = control_of(tmp_path / "r.tif")
    # RPCs count from the centre of the first pixel: 150.25 is 150.75 from the edge.
    assert rpcs["line_off"] == pytest.approx(150.75 / factor - 0.5)
    assert rpcs["samp_off"] == pytest.approx(180.5 / factor - 0.5)
    assert rpcs["line_scale"] == pytest.approx(150 / factor)
    assert rpcs["samp_scale"] == pytest.approx(180 / factor)
    assert rpcs["lat_off"] == 48


def test_rpcs_that_are_none_are_left_alone(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(30, 40))
    side = Path(f"{image}.aux.xml")
    side.write_text(
        '<PAMDataset><Metadata domain="RPC"><MDI key="LINE_OFF">north</MDI></Metadata></PAMDataset>'
    )
    with rasterio.open(image) as dataset:
        assert dataset.tags(ns="RPC") == {"LINE_OFF": "north"}
    assert open_image(image).control is None


@pytest.mark.parametrize("kind", ["gcps", "rpcs"])
def test_a_conversion_keeps_what_places_its_image(kind: str, tmp_path: Path) -> None:
    image = controlled(tmp_path / "i.tif", kind, make_image(60, 70))
    convert(image, tmp_path / "i.ome.zarr")
    assert open_image(tmp_path / "i.ome.zarr").control == open_image(image).control


def test_a_scene_keeps_its_scale_when_it_is_unscaled_for_a_model_of_floats(tmp_path: Path) -> None:
    pixels = make_image(200, 240).astype(np.uint16) * 16
    image = write_tiled_scene(tmp_path / "i.tif", pixels, 0)
    with rasterio.open(image, "r+") as dataset:
        dataset.scales, dataset.offsets = (1 / 16,) * 3, (0.0,) * 3
    made = model_of(None)
    floats = replace(made, input=replace(made.input, dtype="float32"))
    save_model(tmp_path / "f.safetensors", floats)
    save_model(tmp_path / "u.safetensors", made)
    summary = tilepipe.run(
        image, model=tmp_path / "f.safetensors", outputs=tmp_path / "a.ome.zarr", unscale=True,
        verify=2,
    )  # fmt: skip
    assert summary.verification is not None
    assert summary.verification.exact
    assert not summary.warnings
    with pytest.raises(InputError, match="its pixels are float32"):
        tilepipe.plan(image, model=tmp_path / "u.safetensors", unscale=True)
    write_tiled_scene(tmp_path / "b.tif", make_image(200, 240), 0)
    tilepipe.run(
        tmp_path / "b.tif", model=tmp_path / "u.safetensors", outputs=tmp_path / "b.ome.zarr"
    )
    whole = Window(0, 0, 200, 240)
    one, other = (tilepipe.open_mask(tmp_path / f"{n}.ome.zarr").read(whole) for n in "ab")
    assert (one == other).all()


# ------------------------------------------------------------------ STAC items


def test_an_item_lists_the_outputs_of_a_run(
    tmp_path: Path, metre_model: Callable[[float], Path]
) -> None:
    image = scene(tmp_path / "i.tif", make_image(300, 360), "EPSG:32633", 0.6, (5e5, 4e6))
    names = ("i.stac.json", "m.tif", "m.ome.zarr", "n.geojson", "n.objects.tif")
    outputs = [str(tmp_path / name) for name in names]
    options: dict[str, Any] = {"model": metre_model(0.6), "outputs": outputs, "window": 572}
    tilepipe.run(image, **options)
    item = json.loads((tmp_path / "i.stac.json").read_text())
    assert set(item["assets"]) == {*names[1:], "model"}
    assert item["assets"]["m.tif"]["href"] == "./m.tif"
    assert item["properties"]["proj:code"] == "EPSG:32633"
    assert item["properties"]["proj:shape"] == [300, 360]
    west, south, east, north = item["bbox"]
    assert 14.99 < west < east < 15.01
    assert 36.1 < south < north < 36.2
    first = (tmp_path / "i.stac.json").read_bytes()
    again = tilepipe.run(image, **options)
    assert again.resumed == again.blocks
    (tmp_path / "i.stac.json").unlink()
    tilepipe.run(image, **options)
    assert (tmp_path / "i.stac.json").read_bytes() == first


def test_an_item_of_nowhere_or_of_nothing_is_refused(
    tmp_path: Path, model: Path, metre_model: Callable[[float], Path]
) -> None:
    slide = write_tiff(tmp_path / "slide.tif", make_image(300, 360), None)
    item = str(tmp_path / "i.stac.json")
    with pytest.raises(InputError, match="has no CRS and transform"):
        tilepipe.run(slide, model=model, outputs=[str(tmp_path / "m.tif"), item])
    image = scene(tmp_path / "i.tif", make_image(300, 360), "EPSG:32633", 0.6, (5e5, 4e6))
    with pytest.raises(InputError, match="there are none"):
        tilepipe.run(image, model=metre_model(0.6), outputs=[item])
