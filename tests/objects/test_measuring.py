from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from tests.objects.making import Labels, as_bytes, numbered, table_of
from tilepipe.grid import Window
from tilepipe.objects.measuring import Layer, Measures, Scale, Sums, columns_of, measurements

measure = pytest.importorskip("skimage.measure", reason="scikit-image is the other opinion")


@pytest.fixture
def labels() -> Labels:
    return numbered(np.random.default_rng(0).random((60, 70)) < 0.45)


def layer(values: np.ndarray, quantum: float = 1.0) -> Layer:
    def read(window: Window, labels: np.ndarray) -> np.ndarray:
        return values[window.y : window.stop_y, window.x : window.stop_x]

    return Layer("value", read, quantum, has_max=True)


def test_measurements_are_those_of_scikit_image(labels: Labels, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 255, labels.shape)
    found = table_of(labels, (16, 20), tmp_path, [layer(values)]).columns
    other = measure.regionprops_table(
        labels,
        values,
        properties=(
            "area", "perimeter_crofton", "centroid", "bbox", "inertia_tensor_eigvals",
            "intensity_mean", "intensity_max",
        ),
    )  # fmt: skip
    names = {
        "area": "area", "perimeter": "perimeter_crofton", "top": "bbox-0", "left": "bbox-1",
        "bottom": "bbox-2", "right": "bbox-3", "mean_value": "intensity_mean",
        "max_value": "intensity_max",
    }  # fmt: skip
    for ours, theirs in names.items():
        np.testing.assert_allclose(found[ours], other[theirs], rtol=1e-12, err_msg=ours)
    np.testing.assert_allclose(found["centroid_y"] - 0.5, other["centroid-0"])
    np.testing.assert_allclose(found["centroid_x"] - 0.5, other["centroid-1"])
    for axis, eigenvalue in (("major_axis", 0), ("minor_axis", 1)):
        moments = other[f"inertia_tensor_eigvals-{eigenvalue}"]
        # A pixel is a square, not a point: its own moment is 1/12.
        expected = 4 * np.sqrt(moments + 1 / 12)
        np.testing.assert_allclose(found[axis], expected, atol=1e-6, err_msg=axis)


def test_values_without_a_number_are_left_out(tmp_path: Path) -> None:
    labels = np.array([[1, 1, 0, 2]], np.uint32)
    values = np.array([[0.25, np.nan, 9, np.nan]], np.float32)
    found = table_of(labels, (1, 2), tmp_path, [layer(values, 2**-10)]).columns
    np.testing.assert_array_equal(found["mean_value"], [0.25, np.nan])
    np.testing.assert_array_equal(found["max_value"], [0.25, np.nan])


def test_means_of_half_precision_are_exact_in_any_blocks(labels: Labels, tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(labels.shape).astype(np.float16)
    layers = [layer(values, 2**-24)]
    whole = table_of(labels, labels.shape, tmp_path / "whole", layers)
    for tile in ((7, 11), (60, 5)):
        found = table_of(labels, tile, tmp_path / f"{tile}", layers)
        assert as_bytes(found) == as_bytes(whole)
    pixels = values[labels == 1].astype(np.float64)
    assert whole.columns["mean_value"][0] == math.fsum(pixels) / len(pixels)


def test_measurements_alone_are_those_with_outlines(labels: Labels, tmp_path: Path) -> None:
    with_outlines = table_of(labels, (16, 16), tmp_path / "with").columns
    without = table_of(labels, (16, 16), tmp_path / "without", outlines=False)
    assert without.outlines is None
    for name, values in without.columns.items():
        np.testing.assert_array_equal(values, with_outlines[name])


def disc(radius: float) -> Labels:
    y, x = np.mgrid[-60:61, -60:61]
    return (y**2 + x**2 <= radius**2).astype(np.uint32)


def test_a_disc_is_round(tmp_path: Path) -> None:
    found = table_of(disc(50), (64, 64), tmp_path).columns
    assert found["perimeter"][0] == pytest.approx(100 * math.pi, rel=0.01)
    assert found["circularity"][0] == pytest.approx(1, abs=0.02)
    assert found["major_axis"][0] == pytest.approx(100, rel=0.005)


def test_circularity_is_at_most_one(tmp_path: Path) -> None:
    found = table_of(np.ones((1, 1), np.uint32), (1, 1), tmp_path).columns
    assert found["circularity"][0] == 1


def test_lengths_and_areas_have_the_unit_of_the_pixels(tmp_path: Path) -> None:
    wide = disc(50)[::2]
    scale = Scale(0.5, 0.25, "um")
    found = table_of(wide, (64, 64), tmp_path, scale=scale).columns
    assert found["area"][0] == pytest.approx(math.pi * 12.5**2, rel=0.01)
    assert found["perimeter"][0] == pytest.approx(25 * math.pi, rel=0.02)
    assert found["major_axis"][0] == pytest.approx(25, rel=0.01)
    assert found["minor_axis"][0] == pytest.approx(25, rel=0.01)
    units = {column.name: column.unit for column in columns_of(Measures(scale))}
    assert units["area"] == "um2"
    assert units["perimeter"] == units["major_axis"] == "um"
    assert units["centroid_x"] == units["left"] == "px"


def test_an_object_of_a_whole_slide_does_not_overflow() -> None:
    """A square of 300,000 pixels a side: its second moments do not fit into 64 bits."""
    side = 300_000
    total, square = side * (side - 1) // 2, (side - 1) * side * (2 * side - 1) // 6
    added = [[side**2, total * side, total * side, square * side, total**2, square * side, 0, 0, 0]]
    sums = Sums(
        np.array([1]), np.array(added, object), np.array([[0, 0]]), np.array([[side, side]])
    )
    found = measurements(sums.moved(7, 5), Measures())
    assert found["major_axis"][0] == pytest.approx(4 * side / math.sqrt(12), rel=1e-12)
    assert found["minor_axis"][0] == pytest.approx(4 * side / math.sqrt(12), rel=1e-12)
    assert (found["centroid_x"][0], found["centroid_y"][0]) == (side / 2 + 5, side / 2 + 7)


@pytest.mark.parametrize("mask", ["02_2", "04_3", "08_3"])
def test_real_nuclei_are_measured_as_by_scikit_image(mask: str, data: Path, tmp_path: Path) -> None:
    image = np.asarray(Image.open(data / "nuclei" / "tnbc" / "masks" / f"{mask}.png"))
    labels = numbered((image if image.ndim == 2 else image[..., 0]) > 0)
    found = table_of(labels, (100, 130), tmp_path)
    properties = ("area", "perimeter_crofton", "centroid")
    other = measure.regionprops_table(labels, properties=properties)
    np.testing.assert_array_equal(found.columns["area"], other["area"])
    np.testing.assert_allclose(found.columns["perimeter"], other["perimeter_crofton"])
    np.testing.assert_allclose(found.columns["centroid_y"] - 0.5, other["centroid-0"])
    assert found.outlines is not None
    shapes = found.outlines.geometries()
    assert shapely.is_valid(shapes).all()
    np.testing.assert_array_equal(shapely.area(shapes), other["area"])
