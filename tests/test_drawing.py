"""Legends, overlays and contact sheets of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from tilepipe.drawing import (
    NO_DATA_COLOUR,
    LegendEntry,
    Panel,
    ScaleBar,
    as_rgb,
    beside,
    blend,
    centres,
    colour_mapped,
    contact_sheet,
    fitted,
    stretched,
    with_legend,
    write_png,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("shape", "expected"), [((50, 20), (50, 20)), ((300, 100), (90, 30)), ((900, 2), (90, 1))]
)
def test_a_shape_is_scaled_down_but_never_up(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted(shape, 90) == expected


def test_centres_are_those_of_equal_parts() -> None:
    assert centres(9, 3).tolist() == [1, 4, 7]
    assert centres(5, 5).tolist() == [0, 1, 2, 3, 4]


def test_values_are_stretched_band_by_band_where_they_are_valid() -> None:
    values = np.stack([np.arange(100.0), np.arange(100.0) * 7 + 3], -1).reshape(10, 10, 2)
    values[0, 0] = np.nan
    shares = stretched(values, np.isfinite(values).all(2))
    assert (shares.min(), shares.max()) == (0, 1)
    np.testing.assert_allclose(shares[..., 0], shares[..., 1], atol=1e-12)
    assert (shares[0, 0] == 0).all()
    assert not stretched(values, np.zeros((10, 10), bool)).any()


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_an_image_of_any_number_of_bands_becomes_a_picture(bands: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, bands)).astype(np.uint8)
    rgb = as_rgb(pixels, as_bytes=True)
    assert (as_rgb(pixels) == rgb).all() == (bands != 2)
    assert (rgb == pixels[:, :, :3] if bands >= 3 else rgb == pixels[:, :, :1]).all()


def test_pixels_without_data_are_grey() -> None:
    pixels = np.ones((2, 2, 1), np.float32)
    pixels[0, 0] = np.inf
    assert tuple(as_rgb(pixels)[0, 0]) == NO_DATA_COLOUR
    assert tuple(colour_mapped(pixels[..., 0] * np.nan, "viridis", 0, 1)[1, 1]) == NO_DATA_COLOUR


def test_a_colour_is_painted_as_opaque_as_told() -> None:
    canvas = np.zeros((1, 2, 3))
    blend(canvas, (100, 50, 0), np.array([[0.5, 0.0]]))
    assert canvas.tolist() == [[[50, 25, 0], [0, 0, 0]]]


def test_a_legend_has_a_swatch_for_each_entry_and_wraps() -> None:
    paper = np.full((10, 400, 3), 255)
    entries = [
        LegendEntry("one", RED),
        LegendEntry("two", BLUE, filled=False),
        LegendEntry("none", None),
    ]
    picture = np.asarray(with_legend(paper, entries))
    for colour in (RED, BLUE, (96, 96, 96)):
        assert (picture[10:] == colour).all(2).any()
    assert (picture[10:] == RED).all(2).sum() > (picture[10:] == BLUE).all(2).sum()
    rows = [with_legend(paper, entries * times).height for times in (1, 4, 8)]
    assert rows[0] < rows[1] < rows[2]
    assert with_legend(paper, entries, left_out=3).height > rows[0]


@pytest.mark.parametrize(
    ("metres", "width", "pixels", "text"),
    [
        (1e-6, 1024, 200, "200 µm"),
        (0.25e-6, 800, 200, "50 µm"),
        (4e-6, 1024, 250, "1 mm"),
        (5.0, 724, 100, "500 m"),
        (60.0, 1000, 10000 / 60, "10 km"),
        (1e-10, 40, 10, "1 nm"),
        (1e-10, 400, 100, "10 nm"),
        (1e-6, 3, None, ""),
    ],
)
def test_a_scale_bar_is_a_round_length_within_a_quarter(
    metres: float, width: int, pixels: float | None, text: str
) -> None:
    bar = ScaleBar.fitting(metres, width)
    if pixels is None:
        assert bar is None
        return
    assert bar is not None
    assert (round(bar.pixels, 6), bar.text) == (round(pixels, 6), text)
    assert bar.pixels <= width / 4 + 1e-6


def test_a_scale_bar_is_drawn_as_long_as_it_says() -> None:
    paper = np.full((5, 400, 3), 255.0)
    picture = np.asarray(with_legend(paper, [], scale=ScaleBar(80.0, "1 m")))
    row = picture[5 + 12, :, 0] == 0
    assert np.flatnonzero(row[:95]).tolist() == list(range(10, 90))


def test_letters_of_many_scripts_are_drawn_and_not_as_boxes() -> None:
    drawn = {
        letter: np.asarray(with_legend(np.zeros((1, 9, 3)), [LegendEntry(letter, None)])).tobytes()
        for letter in ["é", "µ", "ß", "Ω", "я", "≥", "ş", "đ", "\uffff"]
    }
    assert len(set(drawn.values())) == len(drawn)


def test_pictures_are_beside_each_other_unless_they_are_wide() -> None:
    assert beside([np.zeros((60, 80, 3))] * 2).shape == (60, 170, 3)
    assert beside([np.zeros((60, 100, 3))] * 2).shape == (130, 100, 3)


def test_a_contact_sheet_holds_panels_of_any_shape_in_equal_cells() -> None:
    red, blue = (
        np.full((*shape, 3), c, np.uint8) for shape, c in (((9, 3), RED), ((40, 80), BLUE))
    )
    one = contact_sheet([[Panel("a", red), Panel("b", blue)]])
    two = contact_sheet([[Panel("a", red), Panel("b", blue)], [Panel("long " * 99, red)]])
    assert (two.width, two.height > 1.9 * one.height) == (one.width, True)
    found = [(np.asarray(one) == colour).all(2) for colour in (RED, BLUE)]
    heights = [int(colour.any(1).sum()) for colour in found]
    assert heights == [384, 192]
    assert contact_sheet([[Panel("a", red)]], [LegendEntry("red", RED)]).height > one.height


def test_equal_pictures_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(with_legend(np.zeros((9, 9, 3)), [LegendEntry("one", RED)]), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.width == 320
