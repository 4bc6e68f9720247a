"""A disk that is full while objects are made: one sentence, and the same command goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tilepipe
from tests.making import digest, make_image, make_model, write_tiff
from tilepipe.engine.events import RunCallbacks
from tilepipe.errors import EnvironmentFailure
from tilepipe.models.file import save_model
from tilepipe.models.object_rule import ObjectRule
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.slow

FORMATS = (
    "n.geojson", "n.csv", "n.objects.tif", "n.objects.ome.tif",
    *(("n.parquet", "n.spatialdata.zarr") if find_spec("pyarrow") else ()),
    *(("n.gpkg", "n.fgb") if find_spec("pyogrio") and find_spec("pyarrow") else ()),
)  # fmt: skip
RULE = ObjectRule(
    "seeded", ("nucleus",), "border", 2, min_area=6, specks="merge", fill_holes=True, max_hole=90
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a model, and what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("objects")
    write_tiff(folder / "slide.tif", make_image(520, 600))
    model = make_model(UNetArguments(3, 3, 2, 4))
    save_model(folder / "m.safetensors", replace(model, output=replace(model.output, objects=RULE)))
    (folder / "whole").mkdir()
    run(folder, folder / "whole")
    return folder


def run(place: Path, to: Path, watch: RunCallbacks | None = None) -> Any:
    outputs = [str(to / name) for name in ("m.ome.zarr", *FORMATS)]
    return tilepipe.run(
        place / "slide.tif", model=place / "m.safetensors", outputs=outputs, window=572, threads=1,
        watch=watch,
    )  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class FullFrom(RunCallbacks):
    """Fills a disk when a part of the run begins."""

    def __init__(self, title: str, filler: Path) -> None:
        self.title, self.filler = title, filler

    def stage(self, name: str) -> None:
        if name != self.title or self.filler.exists():
            return
        with self.filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 12)):
                    pass
            except OSError:
                return


@pytest.mark.parametrize(
    "title",
    ["growing objects", "table of objects", *(f"writing {name}" for name in FORMATS[::4])],
)  # fmt: skip
def test_a_disk_that_is_full_stops_the_run_which_can_be_resumed(
    title: str, place: Path, disk: Path
) -> None:
    filler = disk / "filler"
    with pytest.raises(EnvironmentFailure, match="make room") as stopped:
        run(place, disk, FullFrom(title, filler))
    assert stopped.value.exit_code == 4
    assert filler.exists()
    filler.unlink()
    run(place, disk)
    assert digest(disk) == digest(place / "whole")
