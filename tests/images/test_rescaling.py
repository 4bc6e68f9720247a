"""Values are mapped linearly onto the range of a type, and clipped; never what is no data."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.images.making import geotiff
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.images.convert import convert
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import ResampledImage
from tilepipe.images.rescaling import SLAB_VALUES, Rescaling
from tilepipe.images.sampling import usual_range

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]


def exact(value: int, low: int, high: int, dtype: str) -> int:
    """The map in exact arithmetic; Python rounds halves to even, too."""
    limits = np.iinfo(dtype)
    share = min(max(Fraction(value - low, high - low), Fraction(0)), Fraction(1))
    return round(share * (int(limits.max) - int(limits.min)) + int(limits.min))


@given(st.data(), st.sampled_from(INTEGERS), st.sampled_from(["uint8", "int16", "uint16"]))
def test_whole_numbers_are_mapped_as_in_exact_arithmetic(
    data: st.DataObject, source: str, target: str
) -> None:
    limits = np.iinfo(source)
    number = st.integers(int(limits.min), int(limits.max))
    low, high = sorted(data.draw(st.tuples(number, number).filter(lambda pair: len({*pair}) == 2)))
    values = data.draw(st.lists(number, min_size=1, max_size=8))
    found = Rescaling(low, high, np.dtype(target))(np.array(values, source).reshape(-1, 1, 1))
    assert found.dtype == target
    for value, mapped in zip(values, found.ravel(), strict=True):
        true = exact(value, low, high, target)
        # Where float64 cannot tell which side of a half a value lies, the next one is as good.
        halfway = Fraction(value - low, high - low) * (2 ** (8 * np.dtype(target).itemsize) - 1) % 1
        assert int(mapped) == true or abs(halfway - Fraction(1, 2)) < Fraction(1, 10**9)


def test_low_becomes_the_lowest_and_high_the_highest_and_halves_are_even() -> None:
    rescale = Rescaling(0, 510, np.dtype("uint8"))
    pixels = np.array([[[0, 1, 2, 3, 5, 509, 510, 511, 4000]]], np.uint16)
    assert rescale(pixels).tolist() == [[[0, 0, 1, 2, 2, 254, 255, 255, 255]]]


def test_floats_become_whole_numbers_and_what_is_not_finite_is_no_undefined_one() -> None:
    pixels = np.array([[[-1, 0, 0.5, 1, np.nan, np.inf, -np.inf]]], np.float32)
    found = Rescaling(0, 1, np.dtype("uint8"))(pixels)
    assert found.tolist() == [[[0, 0, 128, 255, 0, 255, 0]]]


def test_to_floats_nothing_is_clipped() -> None:
    pixels = np.array([[[0, 5000, 10000, 15000]]], np.uint16)
    found = Rescaling(0, 10000, np.dtype("float32"))(pixels)
    assert found.dtype == np.float32
    assert found.ravel().tolist() == [0, 0.5, 1, 1.5]


def test_large_windows_are_mapped_in_slabs() -> None:
    pixels = np.arange(3 * SLAB_VALUES, dtype=np.uint32).reshape(3, -1, 1)
    rescale = Rescaling(0, pixels.max(), np.dtype("uint8"))
    found = rescale(pixels)
    np.testing.assert_array_equal(found[2], rescale(pixels[2:])[0])
    assert found[0, 0, 0] == 0
    assert found[-1, -1, 0] == 255


def image_of(path: Path, dtype: str = "uint16", nodata: float | None = 0) -> np.ndarray:
    rng = np.random.default_rng(3)
    pixels = rng.integers(1, 4000, (90, 80, 1)).astype(dtype)
    pixels[:20] = nodata if nodata is not None else 1
    geotiff(path, pixels, nodata=nodata)
    return pixels


def test_an_image_is_of_the_new_type_and_nodata_is_told_from_its_own_values(tmp_path: Path) -> None:
    pixels = image_of(tmp_path / "a.tif")
    reading = Reading(rescale=(500, 3000), dtype="uint8")
    with closing(open_image(tmp_path / "a.tif", reading)) as image:
        window = Window(0, 0, 90, 80)
        found, valid = image.read(window), image.read_valid(window)
        assert image.dtype == found.dtype == np.uint8
        assert image.nodata is None, "0 is also what dark pixels become"
    assert (found[20:] == 0).any()
    np.testing.assert_array_equal(valid, pixels[..., 0] != 0)


def test_nan_is_no_data_after_it_was_rescaled(tmp_path: Path) -> None:
    pixels = image_of(tmp_path / "a.tif", "float32", None)
    pixels[5:9, 7] = np.nan
    geotiff(tmp_path / "b.tif", pixels)
    reading = Reading(rescale=(0, 4000), dtype="uint8")
    with closing(open_image(tmp_path / "b.tif", reading)) as image:
        valid = image.read_valid(Window(0, 0, 90, 80))
    np.testing.assert_array_equal(valid, np.isfinite(pixels[..., 0]))


def test_values_are_rescaled_before_they_are_resampled(tmp_path: Path) -> None:
    image_of(tmp_path / "a.tif", nodata=None)
    reading = Reading(rescale=(1000, 2000), dtype="uint8")
    convert(tmp_path / "a.tif", tmp_path / "b.ome.zarr", reading=reading)
    with (
        closing(open_image(tmp_path / "a.tif", reading)) as one,
        closing(open_image(tmp_path / "b.ome.zarr")) as other,
    ):
        shrunk = (ResampledImage(image, 0, (2.0, 2.0)) for image in (one, other))
        window = Window(0, 0, 45, 40)
        np.testing.assert_array_equal(*(image.read(window) for image in shrunk))


def test_a_converted_image_keeps_where_its_data_was(tmp_path: Path) -> None:
    pixels = image_of(tmp_path / "a.tif")
    reading = Reading(rescale=(500, 3000), dtype="uint8")
    convert(tmp_path / "a.tif", tmp_path / "b.ome.zarr", reading=reading)
    with closing(open_image(tmp_path / "b.ome.zarr")) as image:
        valid = image.read_valid(Window(0, 0, 90, 80))
    np.testing.assert_array_equal(valid, pixels[..., 0] != 0)


def test_a_rescaling_without_a_type_is_refused(tmp_path: Path) -> None:
    image_of(tmp_path / "a.tif")
    with pytest.raises(InputError, match="dtype"):
        open_image(tmp_path / "a.tif", Reading(rescale=(0, 4000)))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.linspace(100, 3517, 10000), (0, 3520)),
        (np.linspace(2001, 9994, 10000), (2000, 9990)),
        (np.linspace(-10, 10, 10000), (-9.98, 9.98)),
        (np.full(10000, 5.0), None),
        (np.full(10000, np.nan), None),
    ],
)
def test_the_usual_range_holds_nearly_all_values(
    tmp_path: Path, pixels: np.ndarray, expected: tuple[float, float] | None
) -> None:
    geotiff(tmp_path / "a.tif", pixels.reshape(100, 100, 1).astype(np.float32))
    with closing(open_image(tmp_path / "a.tif")) as image:
        assert usual_range(image) == expected
