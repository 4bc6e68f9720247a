"""A mask brought back to the grid of its image lies where the image does, to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.products.making import MemoryImage
from tilepipe.grid import CHUNK, Window
from tilepipe.images.resampled import ResampledImage
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.like_image import Nearest, write_like_image
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask, open_zarr_mask

CLASSES = (MaskClass("a", "#000000"), MaskClass("b", "#ff0000"))


def made(path: Path, labels: np.ndarray) -> ZarrMask:
    height, width = labels.shape
    mask = create_mask(path, MaskSpec(height, width, "labels", CLASSES))
    for y in range(0, height, CHUNK):
        for x in range(0, width, CHUNK):
            part = labels[y : y + CHUNK, x : x + CHUNK]
            mask.write(Window(y, x, *part.shape), part)
    build_pyramid(mask)
    return mask


@pytest.mark.parametrize("factor", [0.5, 0.25 / 0.499, 0.31, 1.0, 1.37, 2.0, 6.0])
def test_an_edge_comes_back_to_where_it_was(factor: float, tmp_path: Path) -> None:
    pixels = np.zeros((700, 613, 1), np.uint8)
    pixels[201:, :, 0] += 100
    pixels[:, 157:, 0] += 100
    image = ResampledImage(MemoryImage(pixels), 0, (factor, factor))
    grid = image.levels[0]
    seen = image.read(Window(0, 0, grid.height, grid.width))[..., 0]
    mask = made(tmp_path / "m.ome.zarr", (seen > 50).astype(np.uint8) + (seen > 150))
    nearest = Nearest(mask.shape, (700, 613), (factor, factor))
    spec = MaskSpec(700, 613, "labels", CLASSES)
    write_like_image(mask, tmp_path / "back.ome.zarr", spec, nearest)
    back = open_zarr_mask(tmp_path / "back.ome.zarr")
    labels = back.read(Window(0, 0, 700, 613))
    # As exact as the grid of the mask: to the pixel where that is no coarser.
    off = 0 if factor <= 1 else int(np.ceil(factor / 2))
    truth = pixels[..., 0] // 100
    far = np.ones(truth.shape, np.bool_)
    far[201 - off : 201 + off] = far[:, 157 - off : 157 + off] = False
    assert (labels == truth)[far].all()
    assert [back.read(Window(0, 0, *size), i).shape for i, size in enumerate(back.levels)] == [
        (700, 613), (350, 307),
    ]  # fmt: skip
    assert not (tmp_path / "back.ome.zarr.part").exists()


@pytest.mark.parametrize("scale", [0.25, 0.501, 1.0, 1.37, 7.3])
def test_the_pixels_over_a_window_are_those_that_take_from_it(scale: float) -> None:
    mask = int(np.ceil(97 / scale))
    nearest = Nearest((mask, mask), (97, 97), (scale, scale))
    taken, _ = nearest.taken(Window(0, 0, 97, 97))
    assert taken.min() >= 0
    assert taken.max() < mask
    assert (np.diff(taken) >= 0).all()
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = int(rng.integers(0, mask))
        length = int(rng.integers(1, mask - start + 1))
        over = nearest.under(Window(start, 0, length, mask))
        expected = np.flatnonzero((taken >= start) & (taken < start + length))
        if over is None:
            assert expected.size == 0
        else:
            assert (over.y, over.stop_y) == (expected[0], expected[-1] + 1)
            assert (over.x, over.stop_x) == (0, 97)
