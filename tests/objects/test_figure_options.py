"""Options of figures of objects, and cells as people write them."""

from __future__ import annotations

import pytest

from tilepipe.errors import InputError
from tilepipe.objects.options import ObjectsOptions
from tilepipe.quantities import cell_side


@pytest.mark.parametrize(
    ("text", "side"),
    [("100um", (100.0, False)), ("1 km", (1e9, False)), ("0.5mm", (500.0, False)),
     ("64px", (64.0, True)), (" 64 px ", (64.0, True)), ("250", (250.0, False))],
)  # fmt: skip
def test_cells_are_lengths_or_pixels(text, side):
    assert cell_side(text) == side
    assert ObjectsOptions.parse({"mask": "m.tif", "density": text}).density == text


@pytest.mark.parametrize("text", ["0um", "-1px", "wide", "px", "", "infpx", "nan"])
def test_other_cells_are_refused(text):
    with pytest.raises(InputError, match="density"):
        ObjectsOptions.parse({"mask": "m.tif", "density": text})


def test_outputs_may_be_several():
    options = ObjectsOptions.parse(
        {"mask": "m.tif", "per": "a.gpkg", "per-output": ["b.csv", "c.gpkg"]}
    )
    assert options.per_output == ("b.csv", "c.gpkg")
    one = ObjectsOptions.parse({"mask": "m.tif", "density_output": "b.tif"})
    assert one.density_output == ("b.tif",)
