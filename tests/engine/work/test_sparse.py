"""A small region of a huge image costs what is computed, not what the image spans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image as Picture

import tilepipe
from tests.making import make_image
from tilepipe.engine.work import block
from tilepipe.grid import Window
from tilepipe.images import ngff
from tilepipe.products import like_image
from tilepipe.products.layer import Layer

SIDE = 100_000
CORNER = 50_000
REGION = (CORNER, CORNER, 700, 900)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 gigapixels of OME-Zarr, of which four chunks are there."""
    path = tmp_path_factory.mktemp("sparse") / "sparse.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array(
        "0", shape=(3, SIDE, SIDE), chunks=(3, 1000, 1000), dtype="uint8",
        dimension_names=("c", "y", "x"),
    )  # fmt: skip
    array[:, CORNER : CORNER + 2000, CORNER : CORNER + 2000] = make_image(2000, 2000).transpose(
        2, 0, 1
    )
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = {"type": "scale", "scale": [1.0, 0.25, 0.25]}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": "c", "type": "channel"}, *space],
                "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
            }
        ],
    }
    return path


class Counts:
    """How often things are done whose number could grow with the image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pyramid: list[Window] = []
        self.image: list[Window] = []
        self.mask: list[Window] = []
        self._count(monkeypatch, block, "downsample_block", self.pyramid, 2)
        self._count(monkeypatch, ngff.NgffSource, "read", self.image, 1)
        self._count(monkeypatch, Layer, "read_plane", self.mask, 2)
        self._count(monkeypatch, Layer, "read", self.mask, 1)

    @staticmethod
    def _count(
        monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, into: list[Window], place: int
    ) -> None:
        kept = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            into.append(arguments[place])
            assert len(into) < 100, f"{name} is called for more than the region"
            return kept(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)


@pytest.mark.slow
def test_reads_and_writes_are_those_of_the_region(
    sparse: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(monkeypatch)
    outputs = [tmp_path / name for name in ("m.ome.zarr", "m.ome.tif", "m.png")]
    summary = tilepipe.run(sparse, model=model, region=REGION, outputs=outputs)
    assert summary.answered >= 700 * 900
    assert counts.pyramid
    for path in outputs[:2]:
        mask = tilepipe.open_mask(path)
        assert mask.shape == (SIDE, SIDE)
        inside = mask.read(Window(CORNER, CORNER, 700, 900))
        assert set(np.unique(inside)) <= {0, 1}
        assert (mask.read(Window(0, 0, 600, 600)) == 255).all()
        assert (mask.read(Window(SIDE - 600, SIDE - 600, 600, 600)) == 255).all()
        coarse = len(mask.levels) - 1
        top = mask.read(Window(0, 0, *mask.levels[coarse]), coarse)
        assert (top != 255).any()
        mask.close()
    picture = np.asarray(Picture.open(outputs[2]).convert("RGB"))
    assert picture.shape[:2] > (1000, 1000)
    assert tilepipe.run(sparse, model=model, region=REGION, outputs=outputs).resumed == 1
    assert tilepipe.verify(outputs[0], windows=1, scrub=True).exact
    next((outputs[0] / "1/c").rglob("[0-9]*/[0-9]*")).write_bytes(b"damaged")
    assert not tilepipe.verify(outputs[0], windows=1, scrub=True).exact
    tilepipe.run(sparse, model=model, region=REGION, outputs=outputs)
    assert tilepipe.verify(outputs[0], windows=1, scrub=True).exact


@pytest.mark.slow
def test_masks_on_the_grid_of_the_image_too(
    sparse: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(monkeypatch)
    monkeypatch.setattr(like_image, "squares", _few(like_image.squares))
    output = tmp_path / "m.ome.zarr"
    options: dict[str, Any] = {"region": REGION, "pixel_size": 0.4, "like_image": True}
    tilepipe.run(sparse, model=model, outputs=output, **options)
    mask = tilepipe.open_mask(output)
    assert mask.shape == (SIDE, SIDE)
    assert (mask.read(Window(CORNER + 20, CORNER + 20, 600, 600)) != 255).all()
    assert (mask.read(Window(CORNER - 2000, CORNER, 600, 600)) == 255).all()
    assert counts.mask


def _few(function: Any) -> Any:
    def few(*arguments: Any) -> Any:
        found = function(*arguments)
        assert len(found) < 100
        return found

    return few
