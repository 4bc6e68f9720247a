"""A GPU that runs out of memory with the planned window gets a smaller one, before any block."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.engine.cluster import connect
from tilepipe.engine.options import RunOptions
from tilepipe.engine.planning import planning, timing, trial
from tilepipe.engine.planning.planning import make_plan
from tilepipe.engine.work.device import Prediction
from tilepipe.errors import InputError
from tilepipe.models.file import load_model
from tilepipe.models.unet import UNetArguments


class SmallGpu:
    """A device that has room for windows of so many pixels; `asked` has those it was given."""

    room = 600 * 600

    def __init__(self, *_: Any) -> None: ...

    asked: list[tuple[int, int]]

    def answer(self, pixels: Any, *_: Any) -> Future[Prediction]:
        self.asked.append(pixels.shape[:2])
        answer: Future[Prediction] = Future()
        if pixels.shape[0] * pixels.shape[1] > self.room:
            answer.set_exception(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
        else:
            answer.set_result(Prediction(()))
        return answer

    def close(self) -> None: ...


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    """A run on a machine with that GPU."""
    monkeypatch.setattr(SmallGpu, "asked", [], raising=False)
    for module in (trial, timing):
        monkeypatch.setattr(module, "Device", SmallGpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a small one")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(connect, "gpu_memory", lambda *_: 10**10)
    image = write_tiff(tmp_path / "image.tif", make_image(900, 700))
    model = tmp_path / "model.safetensors"
    save_tiny(model, UNetArguments(width=2, depth=2), pixel_size_um=None)
    return RunOptions(str(image), str(model), outputs=(str(tmp_path / "m.ome.zarr"),))


def test_a_smaller_window_is_planned_and_said(options: RunOptions) -> None:
    plan, estimate = make_plan(options)
    height, width = plan.tiling.input
    assert height * width <= SmallGpu.room
    assert (height, width) in SmallGpu.asked
    first = max(SmallGpu.asked)
    said = [text for text in estimate.warnings if "ran out of memory" in text]
    assert len(said) == 1
    assert f"{first[1]} x {first[0]}" in said[0]
    assert f"uses {width} x {height}" in said[0]


def test_a_window_with_room_is_kept_without_a_word(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallGpu, "room", 10**9)
    _, estimate = make_plan(options)
    assert not [text for text in estimate.warnings if "ran out of memory" in text]


def test_a_window_that_the_user_names_is_refused(options: RunOptions) -> None:
    options = RunOptions(options.image, options.model, options.outputs, window=700)
    with pytest.raises(InputError, match=r"window 700: the GPU runs out of memory.*--window auto"):
        make_plan(options)


def test_a_gpu_without_room_for_any_window_is_refused(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallGpu, "room", 60 * 60)
    with pytest.raises(InputError, match="of the GPU's"):
        make_plan(options)


def test_the_window_that_fits_is_timed_where_a_tile_of_the_model_does_not(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallGpu, "room", 300 * 300)
    plan, estimate = make_plan(options)
    assert plan.tiling.input[0] * plan.tiling.input[1] <= SmallGpu.room
    assert estimate.seconds is not None
    assert SmallGpu.asked.count(plan.tiling.input) == timing.PASSES
    assert max(SmallGpu.asked) > plan.tiling.input


def test_other_errors_are_not_taken_for_that(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("something else")

    make_plan(options)
    monkeypatch.setattr(SmallGpu, "close", broken)
    with pytest.raises(ValueError, match="something else"):
        make_plan(options)


def test_a_window_that_fits_is_tried_once_for_a_network_in_use(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "load_model", lambda path: kept)
    kept = load_model(options.model)
    first = make_plan(options)[0]
    assert len(SmallGpu.asked) > timing.PASSES, "larger ones, in vain"
    tried = SmallGpu.asked.count(first.tiling.input)
    assert make_plan(options)[0] == first
    assert SmallGpu.asked.count(first.tiling.input) == tried == timing.PASSES
