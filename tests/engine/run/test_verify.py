"""`verify` finds a mask that is not the whole-image answer, and no fault in one that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tilepipe
from tests.making import WINDOW, make_image, make_model, save_tiny, write_tiff
from tilepipe.engine.planning.planning import NewPlan
from tilepipe.engine.run import job as engine
from tilepipe.engine.run.seams import seam_windows
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Tiling, Window, paper_tiling
from tilepipe.models.file import save_model
from tilepipe.models.unet import UNetArguments
from tilepipe.products.store import open_zarr_mask


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "suffix"),
    [("auto", ".ome.zarr"), (WINDOW, ".ome.zarr"), (WINDOW, ".ome.tif"), ("auto", ".tif")],
)
def test_a_sound_mask_is_exact_in_every_format(
    window: str | int, suffix: str, image: Path, model: Path, tmp_path: Path
) -> None:
    mask = tmp_path / f"m{suffix}"
    tilepipe.run(image, model=model, outputs=mask, window=window)
    result = tilepipe.verify(mask, windows=4, seed=3)
    assert result.exact
    assert result.windows == 4
    assert result.pixels > 200_000


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float16", "uint8"])
def test_stored_probabilities_are_compared(
    stored: str, image: Path, model: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "m.ome.zarr"
    summary = tilepipe.run(image, model=model, outputs=mask, probabilities=stored, verify=3)
    assert summary.verification is not None
    assert summary.verification.exact
    assert summary.verification.largest_difference is not None
    assert 0 < summary.verification.largest_difference < 0.003


def misalign(tiling: Tiling) -> Tiling:
    """The same image in steps of 388, which is what many do: the network's whole output."""
    geometry = Geometry(input=572, output=388, margin=92, stride_factor=4)
    return paper_tiling(tiling.height, tiling.width, geometry)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tiles_in_steps_of_388_are_caught(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2))
    true_plan: Callable[..., NewPlan] = engine.new_plan

    def wrong_plan(*arguments: object) -> NewPlan:
        found = true_plan(*arguments)
        return found._replace(plan=replace(found.plan, tiling=misalign(found.plan.tiling)))

    monkeypatch.setattr(engine, "new_plan", wrong_plan)
    mask = tmp_path / "m.ome.zarr"
    model = tmp_path / "m.safetensors"
    summary = tilepipe.run(image, model=model, outputs=mask, precision=precision)
    assert summary.plan.tiling.keep == (388, 388)
    result = tilepipe.verify(mask, windows=6)
    assert not result.exact
    assert result.differing > 0.001 * result.pixels


@pytest.mark.slow
def test_a_single_wrong_label_is_caught(image: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=path, window=WINDOW)
    mask = open_zarr_mask(path)
    chunk = Window(0, 0, 512, 512)
    labels = mask.read(chunk)
    labels[200, 300] = 1 - labels[200, 300]
    mask.write(chunk, labels)
    result = tilepipe.verify(path, windows=40)
    assert result.differing + result.ties > 0
    assert not result.exact


@pytest.mark.slow
def test_a_hole_in_the_mask_is_caught(image: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=path, window=WINDOW)
    mask = open_zarr_mask(path)
    chunk = Window(512, 0, 88, 512)
    mask.write(chunk, np.full(chunk.shape, 255, np.uint8))
    assert tilepipe.verify(path, windows=9).differing > 0


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "outputs"), [("sigmoid", 1), ("sigmoid", 3), ("linear", 2)])
def test_every_kind_of_mask_is_verified(activation: str, outputs: int, tmp_path: Path) -> None:
    arguments = UNetArguments(width=2, depth=3, outputs=outputs)
    save_tiny(tmp_path / "m.safetensors", arguments, activation=activation)
    image = write_tiff(tmp_path / "image.tif", make_image(700, 650))
    mask = tmp_path / "m.ome.zarr"
    stored = "uint8" if activation == "sigmoid" else None
    summary = tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=mask, window=572, probabilities=stored
    )
    assert summary.plan.mask.kind == {1: "labels", 3: "planes", 2: "values"}[outputs]
    result = tilepipe.verify(mask, windows=4)
    assert result.exact
    assert result.pixels > 0


@pytest.mark.slow
def test_half_precision_is_verified_within_a_measured_bound(image: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", make_model(UNetArguments(width=4)))
    mask = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=tmp_path / "m.safetensors", outputs=mask, precision="bf16")
    result = tilepipe.verify(mask, windows=4)
    assert result.exact
    assert 1e-5 <= result.tie_bound < 0.2


def test_windows_lie_on_seams_on_the_phase_and_are_none_of_the_runs() -> None:
    tiling = paper_tiling(3000, 2500, Geometry())
    own = {(p.keep.y, p.keep.x) for number in tiling for p in tiling.patches(number)}
    windows = seam_windows(tiling, 16, 60, seed=1)
    assert len(windows) == 60
    for window in windows:
        assert window.y % 16 == window.x % 16 == 0
        assert window.shape == tiling.keep
        assert (window.y, window.x) not in own
    crossing = sum(
        any(w.y < seam < w.stop_y for seam in {y for y, _ in own})
        or any(w.x < seam < w.stop_x for seam in {x for _, x in own})
        for w in windows
    )
    assert crossing == 60
    assert seam_windows(tiling, 16, 60, seed=1) == windows
    assert seam_windows(tiling, 16, 60, seed=2) != windows


def test_an_image_that_changed_is_refused(model: Path, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "image.tif", make_image(300, 300))
    tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.tif")
    write_tiff(image, make_image(300, 300, seed=5))
    with pytest.raises(InputError, match="is not the image"):
        tilepipe.verify(tmp_path / "m.ome.tif")


@pytest.mark.slow
def test_a_mask_without_its_record_is_refused(image: Path, model: Path, tmp_path: Path) -> None:
    tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.tif")
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert record["complete"]
    (tmp_path / "m.run.json").unlink()
    with pytest.raises(InputError, match="is not beside it"):
        tilepipe.verify(tmp_path / "m.ome.tif")


@pytest.mark.slow
def test_a_label_that_is_no_class_is_caught(image: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=path, window=WINDOW)
    mask = open_zarr_mask(path)
    chunk = Window(512, 512, 88, 188)
    mask.write(chunk, np.full(chunk.shape, 7, np.uint8))
    assert tilepipe.verify(path, windows=9).differing > 0


@pytest.mark.slow
def test_missing_probabilities_are_caught(image: Path, model: Path, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=path, probabilities="uint8")
    shutil.rmtree(path / "probabilities" / "0" / "c")
    assert not tilepipe.verify(path, windows=2).exact


def test_an_image_smaller_than_the_stride_factor_is_verified(model: Path, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "image.tif", make_image(10, 10))
    tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr")
    assert tilepipe.verify(tmp_path / "m.ome.zarr", windows=3).exact
