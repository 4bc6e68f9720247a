"""Objects of a real slide are those of the whole image, whatever the windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from tests.objects.windows import numbers_of
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.whole import number_parts

pytestmark = pytest.mark.slow

SIDES = (512, 1024, 2048)
RULES = {
    "components": ObjectRule(classes=("a",)),
    "components, clean": ObjectRule(classes=("a",), min_area=20, fill_holes=True, max_hole=40),
    "split": ObjectRule(method="split", classes=("a",), min_area=60, fill_holes=True),
    "split, specks merged": ObjectRule(method="split", classes=("a",), min_area=60, specks="merge"),
}


@pytest.fixture(scope="module")
def stained(data: Path) -> NDArray[Any]:
    """What haematoxylin stains, of 3.6 megapixels: thousands of specks, nuclei and a large clump.

    A threshold, not a network: it costs nothing, and its objects are the rougher for it.
    """
    slide = data / "wsi" / "CMU-1-Small-Region.svs"
    if not slide.exists():
        pytest.skip(f"{slide} is not there")
    return (tifffile.imread(slide, series=0, level=0)[:1800, :2000, 0] < 140).astype(np.uint8)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_objects_do_not_depend_on_windows(
    rule: ObjectRule, stained: NDArray[Any], tmp_path: Path
) -> None:
    whole = number_parts(stained, rule)
    assert whole.max() > 500
    for side in SIDES:
        found = numbers_of(tmp_path, stained, rule, side)
        assert found.tobytes() == whole.astype(found.dtype).tobytes()


def test_components_are_those_of_scipy(stained: NDArray[Any]) -> None:
    _, count = ndimage.label(stained, np.ones((3, 3)))
    assert count > 5000
    assert number_parts(stained, RULES["components"]).max() == count
