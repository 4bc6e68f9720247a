"""Windows of a resampled image fit together bit for bit, and are what Pillow makes of the whole."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture

from tests.making import make_image, write_tiff
from tests.products.making import MemoryImage
from tilepipe.grid import Window
from tilepipe.images import open_image, read_with_valid, resampled
from tilepipe.images.resampled import ResampledImage

FACTORS = [
    (0.5, 0.5),
    (0.25 / 0.499, 0.25 / 0.499),
    (1.0, 1.07),
    (1.37, 1.37),
    (2.0, 2.0),
    (5.3, 4),
]


def whole_of(image: ResampledImage, level: int = 0) -> Window:
    grid = image.levels[level]
    return Window(0, 0, grid.height, grid.width)


def some_windows(height: int, width: int, count: int = 12) -> list[Window]:
    """Of all sizes, inside the image and beyond it on every side."""
    rng = np.random.default_rng(0)
    windows = [Window(-30, -17, height + 70, width + 51), Window(3, 5, 1, 1)]
    for _ in range(count):
        y, x = (int(rng.integers(-side, side)) for side in (height, width))
        windows.append(Window(y, x, *(int(rng.integers(1, side + 9)) for side in (height, width))))
    return windows


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_pixel_is_a_sum_of_rows_and_then_of_columns_in_order(dtype: str) -> None:
    pixels = (make_image(7, 9, 1).astype(dtype) - (100 if dtype != "uint8" else 0)).astype(dtype)
    image = ResampledImage(MemoryImage(pixels), 0, (0.6, 1.9))
    result = image.read(whole_of(image))

    def terms(position: int, factor: float, size: int) -> list[tuple[int, np.float32]]:
        centre, reach = (position + 0.5) * factor, max(1.0, factor)
        first = math.floor(centre - reach + 0.5)
        places = range(first, first + math.ceil(2 * reach))
        shares = [max(0.0, 1 - abs(place + 0.5 - centre) / reach) for place in places]
        shares = [s if 0 <= p < size else 0.0 for p, s in zip(places, shares, strict=True)]
        total = sum(shares)
        return [
            (place, np.float32(share / total))
            for place, share in zip(places, shares, strict=True)
            if share
        ]

    for y, x in np.ndindex(result.shape[:2]):
        across = np.float32(0)
        for column, share in terms(x, 1.9, 9):
            down = np.float32(0)
            for row, weight in terms(y, 0.6, 7):
                down += np.float32(pixels[row, column, 0]) * weight
            across += down * share
        whole = across if dtype == "float32" else np.floor(across + np.float32(0.5))
        assert result[y, x, 0] == whole.astype(dtype)


@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_a_window_is_bit_for_bit_that_part_of_the_whole_mirrored_after_resampling(
    factors: tuple[float, float], dtype: str
) -> None:
    pixels = make_image(61, 83, 2).astype(dtype) * (1 if dtype == "uint8" else 7)
    image = ResampledImage(MemoryImage(pixels), 0, factors)
    whole = image.read(whole_of(image))
    height, width = whole.shape[:2]
    assert whole.dtype == pixels.dtype
    assert (height, width) == tuple(
        math.ceil(n / f) for n, f in zip((61, 83), factors, strict=True)
    )
    for window in some_windows(height, width):
        before_y, before_x = max(0, -window.y), max(0, -window.x)
        pad = [
            (before_y, max(0, window.stop_y - height)), (before_x, max(0, window.stop_x - width)),
            (0, 0),
        ]  # fmt: skip
        mirrored = np.pad(whole, pad, mode="reflect")
        expected = mirrored[window.shift(before_y, before_x).slices()]
        assert image.read(window).tobytes() == np.ascontiguousarray(expected).tobytes()
        assert image.read_valid(window) is None


@pytest.mark.parametrize("factor", [0.5, 0.25 / 0.499, 0.8, 1.37, 2.0, 3.7, 11.0])
def test_it_is_what_pillow_makes_of_the_whole_image(factor: float, tmp_path: Path) -> None:
    pixels = make_image(230, 310)
    source = open_image(write_tiff(tmp_path / "i.tif", pixels))
    image = ResampledImage(source, 0, (factor, factor))
    rows, columns = int(230 / factor), int(310 / factor)
    ours = image.read(Window(0, 0, rows, columns))
    box = (0, 0, columns * factor, rows * factor)

    def resized(picture: Picture.Image) -> NDArray[Any]:
        return np.asarray(picture.resize((columns, rows), Picture.Resampling.BILINEAR, box=box))

    # Pillow rounds between its two passes, but not where pixels are floats.
    assert np.abs(ours.astype(int) - resized(Picture.fromarray(pixels))).max() <= 1
    for band in range(3):
        exact = resized(Picture.fromarray(pixels[..., band].astype(np.float32)))
        assert np.abs(ours[..., band] - exact).max() <= 0.5 + 1e-3


def test_the_grid_lies_where_it_should() -> None:
    # A ramp holds the coordinates of its pixels, and interpolation keeps it as it is.
    y, x = np.mgrid[:40, :50].astype(np.float64)
    factor = 0.37
    image = ResampledImage(MemoryImage(np.stack([y, x], -1)), 0, (factor, factor))
    inner = Window(6, 6, 80, 90)
    read = image.read(inner)
    rows = (np.arange(6, 86) + 0.5) * factor - 0.5
    columns = (np.arange(6, 96) + 0.5) * factor - 0.5
    assert np.abs(read[..., 0] - rows[:, None]).max() < 1e-12
    assert np.abs(read[..., 1] - columns).max() < 1e-12


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_what_is_even_stays_even_to_the_last_pixel(factors: tuple[float, float]) -> None:
    image = ResampledImage(MemoryImage(np.full((33, 47, 3), 254, np.uint8)), 0, factors)
    assert (image.read(whole_of(image)) == 254).all()


def by_hand(
    pixels: NDArray[np.float64], valid: NDArray[np.bool_], factor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted means over valid pixels, and the share of them: two dense matrices."""

    def matrix(size: int) -> NDArray[np.float64]:
        centres = (np.arange(math.ceil(size / factor)) + 0.5) * factor
        distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(1, factor)
        weights = np.maximum(0, 1 - distance)
        return np.asarray(weights / weights.sum(1, keepdims=True))

    down, across = matrix(pixels.shape[0]), matrix(pixels.shape[1])
    share = down @ valid @ across.T
    total = down @ np.where(valid, pixels, 0) @ across.T
    return total / np.maximum(share, 1e-30), share


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.37, 2.5])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_holds_no_data_does_not_bleed(factor: float, dtype: str, tmp_path: Path) -> None:
    pixels = make_image(90, 110, 1)[..., 0].astype(dtype)
    pixels = np.maximum(pixels, 1)
    valid = np.ones(pixels.shape, np.bool_)
    valid[20:41, 30:70] = valid[60, 60] = valid[85:, :] = False
    nodata = 0 if dtype == "uint8" else np.nan
    pixels[~valid] = nodata
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=90, width=110, count=1, dtype=dtype, nodata=nodata,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as scene:  # fmt: skip
        scene.write(pixels, 1)
    image = ResampledImage(open_image(path), 0, (factor, factor))
    read, known = read_with_valid(image, whole_of(image))
    assert known is not None
    known = known[..., 0]
    expected, share = by_hand(np.nan_to_num(pixels.astype(np.float64)), valid, factor)
    clear = np.abs(share - 0.5) > 1e-6
    assert (known == (share > 0.5))[clear].all()
    assert known.any()
    assert not known.all()
    tolerance = 0.51 if dtype == "uint8" else 1e-4
    assert np.abs(read[..., 0].astype(float) - expected)[known & clear].max() <= tolerance
    assert (read[~known] == 0).all()
    # A window that sees nothing of it gives the same bits as one that does.
    for window in some_windows(*read.shape[:2]):
        inside = window.intersect(whole_of(image))
        if inside is None:
            continue
        again, some = read_with_valid(image, inside)
        assert again.tobytes() == np.ascontiguousarray(read[inside.slices()]).tobytes()
        answer = np.ones(inside.shape, np.bool_) if some is None else some[..., 0]
        assert (answer == known[inside.slices()]).all()
        valid_only = image.read_valid(inside)
        assert (valid_only is None) == (some is None)


def test_reading_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = ResampledImage(
        open_image(write_tiff(tmp_path / "i.tif", make_image(300, 200))), 0, (1.9, 1.9)
    )
    window = Window(-20, -20, 210, 150)
    before = image.read(window)
    monkeypatch.setattr(resampled, "SOURCE_BYTES", 4000)
    monkeypatch.setattr(resampled, "STRIP_VALUES", 100)
    assert (image.read(window) == before).all()


def test_the_other_levels_are_as_they_were(tmp_path: Path) -> None:
    pixels, half = make_image(120, 160), make_image(60, 80, seed=1)
    source = MemoryImage(pixels, (half,))
    image = ResampledImage(source, 0, (1.5, 1.5))
    assert [(level.height, level.width) for level in image.levels] == [(80, 107), (60, 80)]
    assert image.levels[0].scale_y == 1.5
    assert image.shape == (80, 107, 3)
    assert (image.read(Window(0, 0, 60, 80), 1) == half).all()
    coarser = ResampledImage(source, 1, (1.5, 1.5))
    assert coarser.levels[1].scale_x == 3.0
    assert (coarser.read(Window(0, 0, 120, 160)) == pixels).all()


def test_it_travels_to_other_processes_and_reads_lazily(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "i.tif", make_image(300, 250))
    image = ResampledImage(open_image(path), 0, (0.6, 0.6))
    whole = image.read(whole_of(image))
    again = pickle.loads(pickle.dumps(image))
    assert (again.read(whole_of(image)) == whole).all()
    assert (image.as_dask(0).compute() == whole).all()
    assert image.as_dask(0).name != ResampledImage(open_image(path), 0, (0.7, 0.7)).as_dask(0).name
    assert image.fingerprint() == open_image(path).fingerprint()


def test_an_axis_of_one_pixel(tmp_path: Path) -> None:
    image = ResampledImage(MemoryImage(make_image(1, 1)), 0, (0.5, 3))
    assert image.read(Window(-5, -5, 12, 9)).shape == (12, 9, 3)
    assert (image.read(Window(-5, -5, 12, 9)) == make_image(1, 1)).all()


def test_a_place_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    from tilepipe.errors import UnreadableError

    path = write_tiff(tmp_path / "i.tif", make_image(512, 512))
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    image = ResampledImage(open_image(path), 0, (2.0, 2.0))
    image.read(Window(0, 0, 60, 60))
    with pytest.raises(UnreadableError, match="row 1"):
        image.read(Window(60, 60, 60, 60))
