"""Images, masks and summaries show themselves: in a line, and in notebooks with a picture."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

import tilepipe
from tests.making import WINDOW, make_image, write_tiff
from tilepipe.images.base import Level
from tilepipe.images.shown import ShownImage
from tilepipe.notebook import SIDE


def picture_in(html: str) -> Any:
    found = re.search('base64,([^"]+)', html)
    assert found is not None
    return np.asarray(Picture.open(BytesIO(base64.b64decode(found[1]))))


@pytest.fixture(scope="module")
def summary(image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("shown") / "mask.ome.zarr"
    return tilepipe.run(image, model=model, outputs=output, window=WINDOW)


def test_an_image_is_a_line_and_a_small_picture_of_its_pixels(tmp_path: Path) -> None:
    pixels = make_image(300, 600)
    with tilepipe.open_image(write_tiff(tmp_path / "i.tif", pixels)) as image:
        assert "600 x 300 pixels (width x height), 3 bands of uint8, 0.25 um/px" in repr(image)
        html = image._repr_html_()
    assert (picture_in(html) == pixels[1::3, 1::3]).all()
    assert max(picture_in(html).shape) <= SIDE


def test_a_closed_image_has_no_picture(tmp_path: Path) -> None:
    image = tilepipe.open_image(write_tiff(tmp_path / "i.tif", make_image(300, 300)))
    image.close()
    assert "300 x 300" in image._repr_html_()
    assert "<img" not in image._repr_html_()


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "<b>x.tif", make_image(64, 64))
    with tilepipe.open_image(path) as image:
        assert "&lt;b&gt;x.tif" in image._repr_html_()


class Huge(ShownImage):
    """An image without a small level; it must not be read."""

    path, kind, bands, decoded_bytes, dtype = "huge", "TIFF", 3, 3, np.dtype("uint8")
    pixel_size = None
    levels = (Level(10**6, 10**6, 1, 1),)
    shape = (10**6, 10**6, 3)

    def read(self, *_: Any) -> Any:
        raise AssertionError("it is read")


def test_an_image_without_a_small_level_is_not_read() -> None:
    assert "<img" not in Huge()._repr_html_()
    assert "1000000 x 1000000" in repr(Huge())


def test_a_mask_is_shown_in_the_colours_of_its_classes(summary: Any) -> None:
    with_colours = {c.rgb for c in summary.plan.mask.classes}
    mask = tilepipe.open_mask(summary.outputs[0])
    shown = picture_in(mask._repr_html_())
    assert {tuple(colour) for colour in shown.reshape(-1, 3).tolist()} <= with_colours
    assert "700 x 600 pixels (width x height), labels" in repr(mask)


def test_a_summary_is_short(summary: Any) -> None:
    assert "4 blocks" in repr(summary)
    assert len(repr(summary)) < 400
    assert picture_in(summary._repr_html_()).shape[2] == 3
