"""Runs in int8: exact, and resumed with the network that lies with their output."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilepipe
from tests.making import digest, make_image, save_tiny, write_tiff
from tilepipe.engine.planning import precision_trial
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.work.context import WorkerContext
from tilepipe.errors import InputError, TilepipeError
from tilepipe.models.quantise import missing_package, quantised
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.skipif(missing_package() is not None, reason="needs the extra int8")


class Case:
    """An image, a model, a mask in int8, and the options that made it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = write_tiff(folder / "image.tif", make_image(600, 1100))
        save_tiny(folder / "model.safetensors", UNetArguments(width=2, depth=2, outputs=3))
        self.network = b""

    def run(self, output: Path, **options: Any) -> Any:
        asked = {
            "model": self.folder / "model.safetensors", "threads": 1, "window": 300,
            "precision": "int8", "max_label_change": 0.5,
        }  # fmt: skip
        return tilepipe.run(self.image, outputs=output, **(asked | options))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("int8"))
    summary = case.run(case.folder / "first.ome.zarr", verify=3)
    assert summary.verification is not None
    assert summary.verification.exact, str(summary.verification)
    assert summary.verification.tie_bound == 1e-5
    case.network = RunState(case.folder / "first.ome.zarr").network_file.read_bytes()
    return case


@pytest.fixture
def store(case: Case, tmp_path: Path) -> Path:
    """A finished mask in int8."""
    shutil.copytree(case.folder / "first.ome.zarr", tmp_path / "m.ome.zarr")
    return tmp_path / "m.ome.zarr"


@pytest.fixture
def _nothing_is_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        raise AssertionError("quantised")

    monkeypatch.setattr(precision_trial, "quantised", refuse)


@pytest.fixture
def _quantised_before(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_trial, "quantised", lambda *_, **__: case.network)


def unfinished(store: Path) -> None:
    """Take back all that was computed: plan and network stay."""
    RunState(store).ledger_file.write_text("")
    for record in store.parent.glob("*.run.json"):
        record.unlink()


@pytest.mark.usefixtures("_nothing_is_quantised")
@pytest.mark.parametrize("precision", ["int8", "fastest", "auto"])
def test_a_run_goes_on_with_its_network(case: Case, store: Path, precision: str) -> None:
    before = digest(store)
    unfinished(store)
    bound = None if precision == "auto" else 0.5
    summary = case.run(store, precision=precision, max_label_change=bound)
    assert summary.plan.precision == "int8"
    assert digest(store) == before


@pytest.mark.usefixtures("_nothing_is_quantised")
def test_a_run_does_not_go_on_as_something_else(case: Case, store: Path) -> None:
    unfinished(store)
    with pytest.raises(InputError, match="precision was int8, now fp32"):
        case.run(store, precision="fp32", max_label_change=None)
    with pytest.raises(InputError, match=r"% of labels differ from fp32's, now 0.001 % may"):
        case.run(store, precision="fastest", max_label_change=1e-5)


@pytest.mark.usefixtures("_nothing_is_quantised")
@pytest.mark.parametrize("is_there", [False, True])
def test_a_network_that_is_missing_or_damaged_is_named(
    is_there: bool, case: Case, store: Path
) -> None:
    network = RunState(store).network_file
    network.unlink()
    if is_there:
        network.write_bytes(case.network[:-9] + bytes(9))
    said = "is not the quantised network" if is_there else "network.zip: is missing"
    with pytest.raises(InputError, match=said):
        tilepipe.verify(store)
    with pytest.raises(InputError, match=said):
        WorkerContext(str(store))
    unfinished(store)
    with pytest.raises(InputError, match=said):
        case.run(store)


@pytest.mark.slow
@pytest.mark.usefixtures("_quantised_before")
def test_the_network_lies_beside_outputs_without_a_store(case: Case, tmp_path: Path) -> None:
    summary = case.run(tmp_path / "m.ome.tif")
    beside = tmp_path / "m.network.zip"
    assert beside.read_bytes() == case.network
    assert not list(tmp_path.glob("*.zarr"))
    assert summary.plan.change is not None
    assert tilepipe.verify(tmp_path / "m.ome.tif", windows=2).exact
    beside.unlink()
    with pytest.raises(InputError, match=r"m.network.zip: is missing"):
        tilepipe.verify(tmp_path / "m.ome.tif")
    beside.write_bytes(case.network)
    case.run(tmp_path / "m.ome.tif", overwrite=True, precision="fp32", max_label_change=None)
    assert not beside.exists(), "of another run"


@pytest.mark.slow
@pytest.mark.usefixtures("_quantised_before")
def test_an_export_is_verified_by_the_network_in_its_store(case: Case, tmp_path: Path) -> None:
    outputs = (tmp_path / "m.ome.zarr", tmp_path / "m.ome.tif")
    case.run(outputs)  # type: ignore[arg-type]
    assert not (tmp_path / "m.network.zip").exists()
    assert tilepipe.verify(tmp_path / "m.ome.tif", windows=2).exact


def test_another_network_is_found_out(case: Case, store: Path) -> None:
    """That of another calibration fits the model, and is not the run's."""
    model = tilepipe.load_model(case.folder / "model.safetensors")
    side = model.geometry.input_for(32)
    inputs = [np.zeros((1, 3, side, side), np.float32)]
    other = quantised(model.predictor.graph(), inputs, saturates=False)
    RunState(store).network_file.write_bytes(other)
    with pytest.raises(InputError, match="is not the quantised network that the run wrote"):
        tilepipe.verify(store)


def test_another_processor_does_not_judge_it(case: Case, store: Path) -> None:
    state = RunState(store)
    plan = state.read_plan()
    assert plan is not None
    state.freeze(replace(plan, environment=plan.environment | {"int8": "other"}))
    with pytest.raises(TilepipeError, match=r"by another kind of machine \(int8 other and"):
        tilepipe.verify(store)
    unfinished(store)
    with pytest.raises(InputError, match=r"planned for another kind of worker \(int8 other and"):
        case.run(store)


@pytest.mark.usefixtures("_quantised_before")
def test_tiles_of_a_region_are_not_framed(case: Case, tmp_path: Path) -> None:
    asked = {"region": "0,0,200,200", "window": "auto"}
    plan = case.run(tmp_path / "m.ome.zarr", verify=2, **asked).plan
    assert plan.region is not None
    assert not plan.region.framed
