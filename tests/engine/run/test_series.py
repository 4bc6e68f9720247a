"""A run of one image out of several: the plan, `verify` and a run that goes on read that one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile

import tilepipe
from tests.making import make_image
from tilepipe.cli import call
from tilepipe.errors import InputError


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two scenes, the second of which is larger."""
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, shape in enumerate([(200, 180), (300, 280)]):
            metadata = {"axes": "YXS", "Name": f"scene {number}"}
            metadata |= {f"PhysicalSize{axis}": "0.25" for axis in "XY"}
            pixels = make_image(*shape, seed=number)
            writer.write(pixels, photometric="rgb", tile=(128, 128), metadata=metadata)
    return path


@pytest.mark.parametrize(("series", "shape"), [(None, (300, 280)), ("scene 0", (200, 180))])
def test_the_image_that_was_chosen_is_run_and_verified(
    scenes: Path, model: Path, tmp_path: Path, series: str | None, shape: tuple[int, int]
) -> None:
    mask = tmp_path / "m.ome.zarr"
    tilepipe.run(scenes, model=model, outputs=mask, series=series)
    assert tilepipe.open_mask(mask).shape[-2:] == shape
    assert tilepipe.verify(mask, windows=2).exact


def test_another_image_of_the_same_file_is_another_run(
    scenes: Path, model: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "m.ome.zarr"
    tilepipe.run(scenes, model=model, outputs=mask, series=0)
    with pytest.raises(InputError, match="series was 0, now 1"):
        tilepipe.run(scenes, model=model, outputs=mask, series=1)
    assert tilepipe.run(scenes, model=model, outputs=mask, series=0).resumed


def test_info_lists_all_images_and_describes_the_one_that_is_chosen(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["info", str(scenes)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "series      0 'scene 0' (180 x 200 pixels, 3 bands of uint8, 0.25 um/px)" in said
    assert (
        "series      1 'scene 1' (280 x 300 pixels, 3 bands of uint8, 0.25 um/px), this one" in said
    )
    assert call(["info", "--series", "scene 0", str(scenes)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        "series      0 'scene 0' (180 x 200 pixels, 3 bands of uint8, 0.25 um/px), this one" in said
    )
    assert any(line.startswith("level 0     180 x 200 pixels (width x height)") for line in said)


def test_an_image_that_is_not_there_is_refused(
    scenes: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["info"], ["plan", "-m", str(model)], ["convert"]):
        assert call([*command, str(scenes), "--series", "7"]) == 2
        assert "no image 7; choose by number: 0 'scene 0'" in capsys.readouterr().err
