"""Objects of masks on an object store: of a run that was killed, and of a finished mask."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tilepipe
from tests.making import WINDOW, make_model
from tests.storage.conftest import Service
from tests.storage.making import answers, at, named, objects, on_disk
from tests.storage.server import BUCKET
from tests.zygote import Zygote
from tilepipe.models.file import save_model
from tilepipe.models.object_rule import ObjectRule
from tilepipe.models.unet import UNetArguments
from tilepipe.objects.table import open_table

pytestmark = pytest.mark.slow

OUTPUTS = ("m.ome.zarr", "m.geojson")
RULE = ObjectRule(
    "seeded", ("nucleus",), "border", 2, min_area=6, specks="merge", fill_holes=True, max_hole=9
)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that tells objects apart."""
    model = make_model(UNetArguments(3, 3, 2, 2), seed=2)
    path = tmp_path_factory.mktemp("finder") / "finder.safetensors"
    save_model(path, replace(model, output=replace(model.output, objects=RULE)))
    return path


@pytest.fixture
def remote(s3: Service, image: Path) -> str:
    """The address of the image."""
    address = f"s3://{BUCKET}/images/image.tif"
    if not at(address).exists():
        at(address).write_bytes(image)
    s3.log()
    return address


@pytest.fixture(scope="module")
def expected(image: Path, finder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a run writes on a disk."""
    folder = tmp_path_factory.mktemp("disk")
    options: dict[str, Any] = {"window": WINDOW, "threads": 1}
    tilepipe.run(image, model=finder, outputs=named(folder, OUTPUTS), **options)
    return folder


KILLED = """
import os, signal, sys
import tilepipe.objects.numbering as numbering
from tilepipe.cli import main

def killed(path, name, window, begin=numbering.run_task):
    begin(path, name, window)
    if name == "grow":
        os.kill(os.getpid(), signal.SIGKILL)

numbering.run_task = killed
main()
"""
"""`tilepipe`, killed when it has grown the objects of one window."""


def test_the_objects_of_a_run_are_those_of_a_disk_even_if_it_was_killed(
    s3: Service,
    remote: str,
    folder: str,
    finder: Path,
    expected: Path,
    zygote: Zygote,
    tmp_path: Path,
) -> None:
    outputs = named(folder, OUTPUTS)
    words = ["-m", str(finder), "--window", str(WINDOW), "--threads", "1"]
    words += [word for path in outputs for word in ("-o", path)]
    words = ["run", remote, *words]
    killed = zygote.start(words, tmp_path / "log", code=KILLED, **s3.variables)
    assert killed.wait() == -signal.SIGKILL, killed.said
    workspace = at(f"{folder}/m.ome.zarr/.tilepipe/objects")
    assert (workspace / "done" / "number").exists()
    summary = tilepipe.run(remote, model=finder, outputs=outputs, window=WINDOW, threads=1)
    assert summary.objects is not None
    assert summary.objects.total.count > 20
    assert answers(objects(folder)) == answers(on_disk(expected))
    assert not workspace.exists()


def test_objects_of_a_mask_are_found_where_it_is(
    remote: str, folder: str, finder: Path, expected: Path
) -> None:
    mask = f"{folder}/m.ome.zarr"
    tilepipe.run(remote, model=finder, outputs=[mask], window=WINDOW, threads=1, objects="none")
    names = ("n.geojson", "n.ome.zarr", "n.spatialdata.zarr")
    tilepipe.find_objects(mask, outputs=named(folder, names), workers=1)
    found = objects(folder)
    assert found["n.geojson"] == (expected / "m.geojson").read_bytes()
    assert not [name for name in found if ".unfinished" in name]
    wanted = on_disk(expected / "m.ome.zarr" / "objects")
    numbers = {name: content for name, content in found.items() if name.startswith("n.ome.zarr/")}
    assert {name.removeprefix("n.ome.zarr/") for name in numbers} == set(wanted)
    for name, content in wanted.items():
        if "/c/" in name:
            assert numbers[f"n.ome.zarr/{name}"] == content
    assert len(open_table(at(f"{folder}/n.ome.zarr/table"))) > 20
