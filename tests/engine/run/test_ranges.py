"""The range that viewers show of a mask of values follows from its pixels alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilepipe
from tests.making import WINDOW, digest, make_image, save_tiny, write_tiff
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.grid import Window
from tilepipe.models.unet import UNetArguments
from tilepipe.products.store import open_zarr_mask

SIZE = 540, 1100
"""Six blocks, and two coarser levels."""


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inputs")
    image, model = write_tiff(folder / "image.tif", make_image(*SIZE)), folder / "m.safetensors"
    save_tiny(model, UNetArguments(width=2, depth=2, outputs=2), activation="linear", seed=2)
    return {"image": image, "model": model, "window": WINDOW, "runtime": "torch"}


@pytest.fixture(scope="module")
def straight(request_: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("straight")
    tilepipe.run(outputs=[folder / name for name in OUTPUTS], **request_)
    check(folder / OUTPUTS[0])
    assert tilepipe.verify(folder / OUTPUTS[0], windows=2, scrub=True).exact
    return folder


OUTPUTS = ("m.ome.zarr", "m.tif")


def windows(path: Path) -> list[dict[str, float]]:
    omero = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    return [channel["window"] for channel in omero["channels"]]


def check(path: Path) -> None:
    mask = open_zarr_mask(path)
    level = len(mask.levels) - 1
    smallest = mask.read(Window(0, 0, *mask.levels[level]), level)
    for plane, window in zip(smallest, windows(path), strict=True):
        assert window["min"] == plane.min()
        assert window["max"] == plane.max()
        assert 0.97 < np.mean((plane >= window["start"]) & (plane <= window["end"])) < 0.99


class Stop(RunCallbacks):
    """Ends a run at its second block, or before a step."""

    def __init__(self, title: str) -> None:
        self._title, self._blocks = title, 0

    def block(self, report: BlockReport) -> None:
        self._blocks += 1
        if self._title == "block" and self._blocks == 2:
            raise KeyboardInterrupt

    def stage(self, name: str) -> None:
        if self._title in name:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["block", "pyramid level 2", "range of values", "m.tif"])
def test_a_resumed_run_has_the_same_range(
    request_: dict[str, Any], straight: Path, tmp_path: Path, stop: str
) -> None:
    outputs = [tmp_path / name for name in OUTPUTS]
    with pytest.raises(KeyboardInterrupt):
        tilepipe.run(outputs=outputs, watch=Stop(stop), **request_)
    tilepipe.run(outputs=outputs, **request_)
    check(outputs[0])
    assert tilepipe.verify(outputs[0], windows=2, scrub=True).exact
    assert digest(straight) == digest(tmp_path)


@pytest.mark.slow
def test_metadata_that_is_mended_has_the_range_again(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(outputs=path, **request_)
    before = (path / "zarr.json").read_bytes()
    (path / "zarr.json").write_text("{}")
    tilepipe.run(outputs=path, **request_)
    assert (path / "zarr.json").read_bytes() == before
    check(path)


@pytest.mark.slow
def test_a_mask_on_the_grid_of_its_image_has_its_range(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(outputs=path, like_image=True, **request_)
    check(path)
    assert tilepipe.verify(path, windows=2, scrub=True).exact
    assert tilepipe.run(outputs=path, like_image=True, **request_).resumed
