"""Runs into OME-Zarr 0.4, and with coordinates: resumed, verified and mended like all others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from rasterio.transform import from_origin

import tilepipe
from tests.engine.state.making import Told, edit, flip, stop
from tests.making import digest, make_image, save_tiny
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.grid import Window
from tilepipe.models.unet import UNetArguments
from tilepipe.products.store import open_zarr_mask

SIDE = 700
STORE = "m.ome.zarr"


class Scene:
    """An image on a map, and a model."""

    def __init__(self, folder: Path) -> None:
        self.model = folder / "model.safetensors"
        save_tiny(self.model, UNetArguments(width=1, depth=1, bands=1), pixel_size_um=None)
        self.image = folder / "image.tif"
        with rasterio.open(
            self.image, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint8",
            crs="EPSG:32632", transform=from_origin(5e5, 5e6, 10, 10), tiled=True,
        ) as file:  # fmt: skip
            file.write(make_image(SIDE, SIDE, 1)[..., 0], 1)

    def run(self, to: Path, **more: Any) -> Any:
        to.mkdir(exist_ok=True)
        facts = {"model": self.model, "outputs": [to / STORE, to / "m.tif"], "window": 300}
        return tilepipe.run(self.image, **(facts | more))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def once(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a finished run of each version."""
    folders = {}
    for ngff in ("0.4", "0.5"):
        folders[ngff] = tmp_path_factory.mktemp("once")
        scene.run(folders[ngff], ngff=ngff, probabilities="uint8")
    return folders


def test_both_versions_hold_the_same(once: dict[str, Path]) -> None:
    old, new = (open_zarr_mask(once[ngff] / STORE) for ngff in ("0.4", "0.5"))
    for mask, other in zip(old.layers, new.layers, strict=True):
        for level, shape in enumerate(old.levels):
            window = Window(0, 0, *shape)
            np.testing.assert_array_equal(mask.read(window, level), other.read(window, level))
    assert not list((once["0.4"] / STORE).rglob("zarr.json"))
    assert not list((once["0.5"] / STORE).rglob(".z*"))


def test_masks_on_a_map_have_coordinates(once: dict[str, Path]) -> None:
    for folder in once.values():
        group: Any = zarr.open_group(folder / STORE, mode="r")
        assert group["x"][0] == 500_005
        assert sorted(group["overviews"].array_keys()) == ["1"]


DAMAGE = {
    "0.4": (
        ".zattrs",
        "0/.zarray",
        "x/0",
        "overviews/1/.zattrs",
        "probabilities/.zattrs",
        "0/0/0",
    ),
    "0.5": ("zarr.json", "0/zarr.json", "x/c/0", "overviews/1/zarr.json", "0/c/0/0"),
}


@pytest.mark.parametrize(
    ("ngff", "name"), [(v, name) for v, names in DAMAGE.items() for name in names]
)
def test_damage_is_found_and_mended(
    ngff: str, name: str, once: dict[str, Path], scene: Scene, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(once[ngff], tmp_path / "masks"))
    before = digest(folder)
    path = folder / STORE / name
    if name.endswith(("json", "attrs", "array")):
        path.write_text("{}")
    elif name.endswith("/0/0"):
        os.truncate(path, 10)
    else:
        flip(path)
    damage = tilepipe.verify(folder / STORE, windows=1).damage
    assert any(name in sentence or name.endswith("/0/0") for sentence in damage)
    told = Told()
    scene.run(folder, ngff=ngff, probabilities="uint8", watch=told)
    assert told.said
    assert digest(folder) == before


@pytest.mark.parametrize(("ngff", "name"), [("0.4", ".zattrs"), ("0.5", "zarr.json")])
def test_what_the_user_adds_is_kept(
    ngff: str, name: str, once: dict[str, Path], scene: Scene, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(once[ngff], tmp_path / "masks"))
    path = folder / STORE / name

    def attributes(document: dict[str, Any]) -> dict[str, Any]:
        return document if ngff == "0.4" else document["attributes"]

    edit(path, lambda document: attributes(document).update(mine=1))
    assert tilepipe.verify(folder / STORE, windows=1).exact
    edit(path, lambda document: attributes(document).update(tilepipe={}))
    scene.run(folder, ngff=ngff, probabilities="uint8", watch=Told())
    mended = attributes(json.loads(path.read_text()))
    assert mended["mine"] == 1
    assert mended["tilepipe"]["kind"] == "labels"


def test_an_interrupted_run_ends_with_the_same_bytes(
    once: dict[str, Path], scene: Scene, tmp_path: Path
) -> None:
    more = {"ngff": "0.4", "probabilities": "uint8", "memory": "20GB"}
    with pytest.raises(EnvironmentFailure):
        scene.run(tmp_path / "masks", watch=Told("pyramid", stop), **more)
    summary = scene.run(tmp_path / "masks", **more)
    assert summary.resumed == summary.blocks
    assert digest(tmp_path / "masks") == digest(once["0.4"])


def test_another_version_is_not_resumed(
    once: dict[str, Path], scene: Scene, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(once["0.4"], tmp_path / "masks"))
    with pytest.raises(InputError, match=r"ngff was 0\.4, now 0\.5"):
        scene.run(folder, ngff="0.5", probabilities="uint8")
    scene.run(folder, probabilities="uint8")  # as it was


def test_it_is_for_zarr_alone(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an OME-Zarr output"):
        scene.run(tmp_path, outputs=[tmp_path / "m.tif"], ngff="0.4")


def test_the_mask_on_the_images_grid_has_the_same_version(scene: Scene, tmp_path: Path) -> None:
    scene.run(tmp_path, ngff="0.4", like_image=True)
    group: Any = zarr.open_group(tmp_path / STORE, mode="r")
    assert group.metadata.zarr_format == 2
    assert group["y"][0] == 4_999_995
    assert tilepipe.verify(tmp_path / STORE, windows=1).exact


def test_a_mask_of_version_04_is_replaced_and_started_over(scene: Scene, tmp_path: Path) -> None:
    scene.run(tmp_path, ngff="0.4")
    scene.run(tmp_path, ngff="0.5", overwrite=True)
    assert not list((tmp_path / STORE).rglob(".z*"))
