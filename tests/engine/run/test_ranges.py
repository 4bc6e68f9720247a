"""The range that viewers show of a mask of values follows from its pixels alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilepipe
from tests.making import digest, make_image, save_tiny, write_tiff
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.grid import Window
from tilepipe.models.unet import UNetArguments
from tilepipe.products.store import open_zarr_mask

SIZE = 1100, 1300


@pytest.fixture
def request_(tmp_path: Path) -> dict[str, Any]:
    image = write_tiff(tmp_path / "image.tif", make_image(*SIZE))
    arguments = UNetArguments(width=2, depth=2, outputs=2)
    save_tiny(tmp_path / "m.safetensors", arguments, activation="linear")
    return {
        "image": image, "model": tmp_path / "m.safetensors", "window": 572, "runtime": "torch",
    }  # fmt: skip


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
    request_: dict[str, Any], tmp_path: Path, stop: str
) -> None:
    for name, watch in (("straight", None), ("resumed", Stop(stop))):
        (tmp_path / name).mkdir()
        outputs = [tmp_path / name / "m.ome.zarr", tmp_path / name / "m.tif"]
        try:
            tilepipe.run(outputs=outputs, watch=watch, **request_)
        except KeyboardInterrupt:
            tilepipe.run(outputs=outputs, **request_)
        check(outputs[0])
        assert tilepipe.verify(outputs[0], windows=2, scrub=True).exact
    assert digest(tmp_path / "straight") == digest(tmp_path / "resumed")


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
