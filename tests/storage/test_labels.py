"""Labels in an image on an object store, and OME-Zarr 0.4 there, against an S3 server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tilepipe
from tests.making import WINDOW
from tests.storage.making import at, objects
from tilepipe.grid import Window
from tilepipe.images.convert import convert
from tilepipe.products.image_labels import list_label
from tilepipe.products.label_path import LabelPath
from tilepipe.products.store import open_zarr_mask
from tilepipe.storage import as_path

pytestmark = pytest.mark.slow


@pytest.fixture
def remote(folder: str, image: Path) -> str:
    """The address of the image, as OME-Zarr."""
    convert(image, f"{folder}/slide.ome.zarr")
    return f"{folder}/slide.ome.zarr"


def test_a_label_is_written_into_its_image(remote: str, model: Path) -> None:
    before = objects(remote)
    label = f"{remote}/labels/nuclei"
    tilepipe.run(remote, model=model, outputs=[label], window=WINDOW, threads=1)
    after = objects(remote)
    assert {name: after[name] for name in before} == before
    listed = json.loads(at(f"{remote}/labels/zarr.json").read_bytes())
    assert listed["attributes"]["ome"]["labels"] == ["nuclei"]
    assert tilepipe.verify(label, windows=2).exact
    summary = tilepipe.run(remote, model=model, outputs=[label], window=WINDOW, threads=1)
    assert summary.resumed == summary.blocks


def test_labels_added_at_once_are_all_listed(remote: str) -> None:
    names = [f"label{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: list_label(LabelPath(as_path(remote), name)), names))
    listed = json.loads(at(f"{remote}/labels/zarr.json").read_bytes())
    assert sorted(listed["attributes"]["ome"]["labels"]) == names


def test_a_mask_of_version_04_is_what_a_disk_gets(
    folder: str, image: Path, model: Path, tmp_path: Path
) -> None:
    for place in (folder, tmp_path):
        tilepipe.run(
            image,
            model=model,
            outputs=[f"{place}/m.ome.zarr"],
            window=WINDOW,
            threads=1,
            ngff="0.4",
        )
    there, here = (
        open_zarr_mask(as_path(f"{folder}/m.ome.zarr")),
        open_zarr_mask(tmp_path / "m.ome.zarr"),
    )
    for level, shape in enumerate(here.levels):
        window = Window(0, 0, *shape)
        np.testing.assert_array_equal(there.read(window, level), here.read(window, level))
        assert there.stored_chunks(level) == here.stored_chunks(level)
    assert tilepipe.verify(f"{folder}/m.ome.zarr", windows=1, scrub=True).exact


def test_image_and_mask_are_uploaded_together(
    folder: str, image: Path, model: Path, tmp_path: Path
) -> None:
    for place in (folder, tmp_path):
        tilepipe.run(
            image, model=model, outputs=[f"{place}/both.ome.zarr"], window=WINDOW, threads=1,
            with_image=True,
        )  # fmt: skip
    here = {
        path.relative_to(tmp_path / "both.ome.zarr").as_posix(): path.read_bytes()
        for path in (tmp_path / "both.ome.zarr").rglob("*")
        if path.is_file()
    }
    assert objects(f"{folder}/both.ome.zarr") == here
