"""Tiles to try a network on: always the same, from all over, what holds something first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tilepipe.engine.planning.tiles as tiles_module
from tests.making import make_image, make_model, write_tiff
from tilepipe.engine.planning.tiles import choose_tiles, read_tiles
from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images import open_image, read_with_valid
from tilepipe.models.unet import UNetArguments
from tilepipe.regions.cells import Region

MODEL = make_model(UNetArguments(width=1, depth=2))


def chosen(
    path: Path, pixels: NDArray[Any], wanted: int, region: Region | None = None
) -> tuple[list[Window], bool]:
    with open_image(str(write_tiff(path / "image.tif", pixels))) as image:
        unreadable: list[str] = []
        found = choose_tiles(image, 0, MODEL.geometry, MODEL.input, region, wanted, unreadable)
    assert not unreadable
    return found


def half_glass(height: int, width: int) -> NDArray[np.uint8]:
    pixels = make_image(height, width)
    pixels[:, width // 2 :] = 240
    return pixels


def test_tissue_is_taken_before_glass(tmp_path: Path) -> None:
    places, plain = chosen(tmp_path, half_glass(600, 1200), 12)
    assert len(places) == 12
    assert not plain
    assert all(place.x < 600 for place in places)
    assert places == chosen(tmp_path, half_glass(600, 1200), 12)[0], "always the same"
    assert places == sorted(places, key=lambda place: (place.y, place.x))


def test_tiles_lie_on_the_grid_apart_and_all_over(tmp_path: Path) -> None:
    places, _ = chosen(tmp_path, make_image(700, 900), 20)
    assert len(places) == 20
    assert all(p.y % 4 == p.x % 4 == p.height % 4 == 0 for p in places)
    for i, place in enumerate(places):
        assert all(place.intersect(other) is None for other in places[i + 1 :])
    rows, columns = ({getattr(p, axis) for p in places} for axis in ("y", "x"))
    assert min(rows) == min(columns) == 0
    assert max(rows) > 450
    assert max(columns) > 600


def test_glass_alone_is_called_so_and_taken_all_the_same(tmp_path: Path) -> None:
    places, plain = chosen(tmp_path, np.full((400, 400, 3), 240, np.uint8), 6)
    assert plain
    assert len(places) == 6


def test_only_the_region_is_used(tmp_path: Path) -> None:
    cells = np.zeros((40, 40), np.bool_)
    cells[20:, 20:] = True
    region = Region(640, 640, 16, cells)
    places, _ = chosen(tmp_path, make_image(640, 640), 12, region)
    assert len(places) >= 9
    assert all(place.stop_y > 320 and place.stop_x > 320 for place in places)


def test_what_is_measured_was_not_calibrated_on(tmp_path: Path) -> None:
    for side, wanted in ((40, 12), (150, 12), (600, 12), (600, 2)):
        path = write_tiff(tmp_path / f"{side}.tif", make_image(side, side))
        with open_image(str(path)) as image:
            tiles = read_tiles(image, 0, MODEL, None, wanted)
        assert tiles.calibrating
        assert tiles.measuring
        assert tiles.is_shared == (side == 40)
        assert not tiles.unreadable
        shared = [a for a in tiles.calibrating for b in tiles.measuring if a is b]
        assert bool(shared) == (side == 40), "one tile has to do for both"
        shapes = {s.pixels.shape for s in (*tiles.calibrating, *tiles.measuring)}
        assert len(shapes) == 1


def test_threads_that_read_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "image.tif", half_glass(700, 900))
    found = []
    for readers in (1, 4):
        monkeypatch.setattr(tiles_module, "READERS", readers)
        monkeypatch.setattr(tiles_module, "cores", lambda: 4)
        with open_image(str(path)) as image:
            monkeypatch.setattr(tiles_module, "read_with_valid", in_turn_unreadable())
            found.append(read_tiles(image, 0, MODEL, None, 12))
    for one, several in zip(found[0].calibrating, found[1].calibrating, strict=True):
        np.testing.assert_array_equal(one.pixels, several.pixels)
    assert found[0].unreadable == found[1].unreadable != ()


def in_turn_unreadable() -> Any:
    """Reads that take unequally long, of which those that begin in some rows fail."""

    def read(image: Any, window: Window, level: int) -> Any:
        time.sleep(0.002 * (window.x % 3))
        if window.y % 5 == 1:
            raise UnreadableError(f"row {window.y}, column {window.x}")
        return read_with_valid(image, window, level)

    return read
