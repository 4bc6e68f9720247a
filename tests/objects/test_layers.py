from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.objects.making import Labels, as_bytes, table_of
from tilepipe.grid import Window
from tilepipe.objects.layers import band_layers, probability_layer
from tilepipe.products.probabilities import Probabilities

LABELS: Labels = np.array([[1, 1, 0, 2], [0, 0, 0, 2]], np.uint32)
CLASSES = np.array([1, 2], np.uint8)


class Reader:
    """Reads windows of an array whose last two axes are rows and columns."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.windows = values, list[Window]()

    def plane(self, plane: int, window: Window) -> np.ndarray:
        return self(window)[plane]

    def pixels(self, window: Window) -> np.ndarray:
        return np.moveaxis(self(window), 0, -1)

    def __call__(self, window: Window) -> np.ndarray:
        self.windows.append(window)
        return self.values[..., window.y : window.stop_y, window.x : window.stop_x]


@pytest.mark.parametrize("stored", ["float16", "float32", "uint8"])
def test_each_object_has_the_probability_of_its_class(stored: str, tmp_path: Path) -> None:
    product = Probabilities(stored)
    given = np.full((3, 2, 4), 0.0, np.float32)
    given[1, 0, :2] = [0.5, 0.75]
    given[2, :, 3] = [1.0, np.nan]
    read = Reader(product.decoded(product.stored(given))).plane
    layer = probability_layer(read, CLASSES)
    for tile in ((2, 4), (1, 1)):
        found = table_of(LABELS, tile, tmp_path / f"{tile}", [layer]).columns
        near = 1 / 254 if stored == "uint8" else 1e-12
        np.testing.assert_allclose(found["mean_probability"], [0.625, 1.0], atol=near)
        np.testing.assert_allclose(found["max_probability"], [0.75, 1.0], atol=near)


def test_bands_are_averaged_and_read_once(tmp_path: Path) -> None:
    values = np.arange(24).reshape(3, 2, 4).astype(np.uint8)
    reader = Reader(values)
    layers = band_layers(reader.pixels, ("red", "green", "blue"))
    found = table_of(LABELS, (2, 4), tmp_path / "whole", layers)
    assert len(reader.windows) == 1
    for band, name in enumerate(("red", "green", "blue")):
        expected = [values[band][number == LABELS].mean() for number in (1, 2)]
        np.testing.assert_array_equal(found.columns[f"mean_{name}"], expected)
    copied = pickle.loads(pickle.dumps(layers))
    assert as_bytes(table_of(LABELS, (1, 3), tmp_path / "blocks", copied)) == as_bytes(found)
