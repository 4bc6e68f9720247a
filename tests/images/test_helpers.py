"""Threads that help to read a window change nothing but how long it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.making import make_image
from tests.products.making import MemoryImage
from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images import open_image, read_with_valid
from tilepipe.images.helpers import MOST_THREADS, for_each, set_helpers
from tilepipe.images.resampled import ResampledImage

WINDOW = Window(-20, -30, 360, 300)


@pytest.fixture
def helped() -> Iterator[None]:
    set_helpers(99)
    yield
    set_helpers(0)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tif"
    pixels = make_image(320, 256, 3)
    tifffile.imwrite(
        path, pixels, tile=(32, 32), photometric="rgb", compression="jpeg", metadata=None
    )
    return path


def test_no_more_threads_than_a_plan_counts_take_items(helped: None) -> None:
    together = threading.Barrier(MOST_THREADS, timeout=10)
    seen: dict[int, str] = {}

    def meet(number: int) -> None:
        together.wait()
        seen[number] = threading.current_thread().name

    for_each(meet, range(3 * MOST_THREADS))
    assert sorted(seen) == list(range(3 * MOST_THREADS))
    assert len(set(seen.values())) == MOST_THREADS


def test_the_error_is_that_of_the_first_item_that_fails_and_few_others_are_taken(
    helped: None,
) -> None:
    taken: list[int] = []

    def fail(number: int) -> None:
        taken.append(number)
        if number >= 5:
            raise ValueError(str(number))

    for _ in range(20):
        taken.clear()
        with pytest.raises(ValueError, match=r"^5$"):
            for_each(fail, range(1000))
        assert len(taken) < 100


@pytest.mark.parametrize("factor", [None, 0.5, 1.7])
def test_pixels_are_the_same(
    slide: Path, factor: float | None, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    monkeypatch.setattr("tilepipe.images.resampled.STRIP_VALUES", 4000)

    def read() -> Any:
        with open_image(slide) as plain:
            image = plain if factor is None else ResampledImage(plain, 0, (factor, factor))
            return read_with_valid(image, WINDOW)[0]

    alone = read()
    request.getfixturevalue("helped")
    np.testing.assert_array_equal(read(), alone)


def test_what_is_no_data_is_the_same(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("tilepipe.images.resampled.STRIP_VALUES", 1000)
    pixels = make_image(90, 80, 3)
    image = MemoryImage(pixels, valid=np.random.default_rng(0).random((90, 80)) < 0.8)
    resampled = ResampledImage(image, 0, (0.7, 1.3))
    alone = read_with_valid(resampled, WINDOW)
    request.getfixturevalue("helped")
    for ours, expected in zip(read_with_valid(resampled, WINDOW), alone, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_broken_tile_is_named(slide: Path, helped: None) -> None:
    with tifffile.TiffFile(slide) as file:
        page = file.pages.first
        places = [page.dataoffsets[number] for number in (20, 40)]
    content = bytearray(slide.read_bytes())
    for place in places:
        content[place : place + 8] = bytes(8)
    slide.write_bytes(content)
    with open_image(slide) as image, pytest.raises(UnreadableError, match="tile 20"):
        image.read(WINDOW)
