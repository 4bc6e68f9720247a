"""A kind of network from outside the package is saved, loaded, run, resumed and verified."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tilepipe
from tests.making import digest, make_image, write_tiff
from tests.models.making_predictor import ToyArguments, ToyPredictor, toy_network
from tilepipe.cli import call
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Window
from tilepipe.models import (
    ClassSpec,
    InputSpec,
    OutputSpec,
    build_model,
    load_model,
    predictors,
    save_model,
)
from tilepipe.models.precision import Precision

INPUT = InputSpec(3, "uint8", 1.0, (127.0,) * 3, (40.0,) * 3)
OUTPUT = OutputSpec("softmax", tuple(ClassSpec(name) for name in ("a", "b", "c")), background=0)
SIZE = 1100, 1300


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that declares the toy among its entry points."""
    package = tmp_path / "site" / "toy-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[{predictors.ENTRY_POINTS}]\ntoy = tests.models.making_predictor:ToyPredictor\n"
    )
    monkeypatch.syspath_prepend(package.parent)


@pytest.fixture
def toy(declared: None, tmp_path: Path) -> Path:
    path = tmp_path / "toy.safetensors"
    save_model(path, build_model(toy_network(), INPUT, OUTPUT))
    return path


def one_pass(pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The labels of a single pass over the mirror-padded image."""
    padded = np.pad(pixels.astype(np.float64), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    x = torch.from_numpy((padded - 127) / 40).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return np.asarray(toy_network().double()(x)[0].argmax(0).numpy())


class StoppedError(Exception):
    """The run was ended from outside."""


class StopAtSecondBlock(RunCallbacks):
    def __init__(self) -> None:
        self.blocks = 0

    def block(self, report: BlockReport) -> None:
        self.blocks += 1
        if self.blocks == 2:
            raise StoppedError


@pytest.mark.slow
def test_a_run_of_an_added_kind_is_stopped_resumed_and_exact(toy: Path, tmp_path: Path) -> None:
    pixels = make_image(*SIZE)
    image = write_tiff(tmp_path / "image.tif", pixels, None)
    asked: dict[str, Any] = {"model": toy, "window": 576, "threads": 1}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    summary = tilepipe.run(image, outputs=whole / "m.ome.zarr", verify=4, **asked)
    assert summary.verification is not None
    assert summary.verification.exact, str(summary.verification)
    assert (summary.plan.runtime, summary.plan.precision) == ("torch", "fp32")
    with pytest.raises(StoppedError):
        tilepipe.run(image, outputs=stopped / "m.ome.zarr", watch=StopAtSecondBlock(), **asked)
    tilepipe.run(image, outputs=stopped / "m.ome.zarr", **asked)
    assert digest(stopped) == digest(whole)
    labels = tilepipe.open_mask(whole / "m.ome.zarr").read(Window(0, 0, *SIZE))
    assert (labels != one_pass(pixels)).mean() < 1e-4
    assert len(np.unique(labels)) == 3


def test_an_added_kind_comes_back_from_its_file(toy: Path) -> None:
    model = load_model(toy)
    assert type(model.predictor) is ToyPredictor
    assert model.arguments == ToyArguments(3, 3, 2)
    assert model.fingerprint == build_model(toy_network(), INPUT, OUTPUT).fingerprint


def test_an_added_kind_that_is_not_exact_keeps_to_its_tile(
    declared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyPredictor, "geometry", lambda _: None)
    with pytest.raises(InputError, match="give the geometry of this network"):
        build_model(toy_network(), INPUT, OUTPUT)
    model = build_model(toy_network(), INPUT, OUTPUT, geometry=Geometry(128, 124, 2, 1))
    assert not model.predictor.fixed
    model.predictor.inexact = "it looks at all of its tile"
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors").predictor
    assert loaded.inexact == "its description says that outputs depend on the whole tile"
    assert loaded.fixed


def test_info_describes_an_added_kind(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["info", str(toy)]) == 0
    assert "a toy, softmax over 3 outputs; 228 parameters" in capsys.readouterr().out


def test_planning_asks_an_added_kind_what_it_can_do(toy: Path, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "small.tif", make_image(600, 600), None)
    with pytest.raises(InputError, match="is computed by torch or compile only"):
        tilepipe.plan(image, model=toy, runtime="openvino")
    predictor, geometry = load_model(toy).predictor, load_model(toy).geometry
    bytes_of = predictor.memory(geometry, Precision.FP32, "torch")
    assert bytes_of(572, 572) < bytes_of(1148, 1148)


def test_a_package_that_cannot_be_imported_is_named(
    declared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tests.models.making_predictor", None)
    with pytest.raises(InputError, match=r"plug-in toy .*cannot import tests\.models\.making_pred"):
        predictors.kind_named("toy")


def test_a_network_of_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="network toy: is not registered"):
        build_model(toy_network(), INPUT, OUTPUT)


def test_a_kind_can_be_registered_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "_registered", {})
    assert predictors.kind_named("toy") is None
    predictors.register_predictor(ToyPredictor)
    assert predictors.kind_named("toy") is ToyPredictor
    assert "toy" in predictors.kind_names()


def test_arguments_of_an_added_kind_are_checked(toy: Path) -> None:
    content = toy.read_bytes()
    changed = content.replace(b'\\"reach\\": 2', b'\\"reach\\": 7')
    assert changed != content
    toy.write_bytes(changed)
    with pytest.raises(InputError, match=r"network\.arguments\.reach must be at most 4"):
        load_model(toy)
