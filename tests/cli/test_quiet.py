"""What may make a mask wrong is printed, however quiet the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli import call
from tilepipe.models.unet import UNetArguments


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run whose image is coarser than its model."""
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("tiny.safetensors"), UNetArguments(width=2, depth=2))
    write_tiff(Path("coarse.tif"), make_image(120, 150), pixel_size_um=0.5)
    return ["coarse.tif", "-m", "tiny.safetensors", "-o", "mask.ome.zarr"]


@pytest.mark.parametrize("flag", ["-q", "--json"])
def test_a_quiet_run_prints_the_warnings_of_its_plan(
    arguments: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["run", *arguments, flag]) == 0
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if "coarser than model tiny" in line]
    assert line.startswith("tilepipe: warning: ")
    assert flag == "-q" or any("coarser" in text for text in json.loads(printed.out)["warnings"])


def test_a_quiet_batch_names_the_image_that_it_warns_of(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiff(Path("fine.tif"), make_image(120, 150))
    assert call(["run", "fine.tif", *arguments[:3], "-o", "masks/", "-q"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "coarser" in line]
    assert line.startswith("tilepipe: warning: coarse.tif: ")
