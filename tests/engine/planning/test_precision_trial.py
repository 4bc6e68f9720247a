"""int8 and the fastest precision: tried on the image, refused in a sentence, chosen by speed."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli.show import show_plan
from tilepipe.engine.plan.label_change import LabelChange
from tilepipe.engine.planning import int8, precision_trial
from tilepipe.engine.planning.int8 import obstacle, offer
from tilepipe.engine.planning.runtime_selection import RuntimeChoice
from tilepipe.engine.resources import Resources
from tilepipe.errors import InputError
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.quantise import missing_package, quantised
from tilepipe.models.unet import UNetArguments

needs_nncf = pytest.mark.skipif(missing_package() is not None, reason="needs the extra int8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, an empty one, and models of depth 2, so that windows may be small."""
    path = tmp_path_factory.mktemp("trial")
    write_tiff(path / "image.tif", make_image(300, 420))
    write_tiff(path / "glass.tif", np.full((300, 420, 3), 240, np.uint8))
    values = (make_image(300, 420) / 255).astype(np.float32)
    tifffile.imwrite(path / "float.tif", values, photometric="rgb", metadata=None)
    arguments = UNetArguments(width=2, depth=2, outputs=3)
    save_tiny(path / "model.safetensors", arguments)
    save_tiny(path / "values.safetensors", arguments, activation="linear")
    save_tiny(path / "float.safetensors", arguments, dtype="float32", pixel_size_um=None)
    return path


NETWORKS: dict[int, bytes] = {}
HOW: list[dict[str, Any]] = []


@pytest.fixture(autouse=True)
def _quantised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same graph and pixels give the same network, so it is made once for all tests here."""

    def once(graph: bytes, inputs: Any, **how: Any) -> bytes:
        key = hash((graph, *(x.tobytes() for x in inputs)))
        HOW.append(how)
        if key not in NETWORKS:
            NETWORKS[key] = quantised(graph, inputs, **how)
        return NETWORKS[key]

    monkeypatch.setattr(precision_trial, "quantised", once)


def plan(folder: Path, image: str = "image.tif", **options: Any) -> Any:
    asked = {"model": folder / "model.safetensors", "threads": 1, "device": "cpu"} | options
    return tilepipe.plan(folder / image, outputs=folder / "m.ome.zarr", **asked)


@needs_nncf
def test_int8_is_measured_and_told(folder: Path) -> None:
    found, estimate = plan(folder, precision="int8", max_label_change=0.5)
    assert (found.precision, found.runtime) == ("int8", "openvino")
    assert isinstance(found.change, LabelChange)
    assert 0 < found.change.share < 0.1
    assert found.change.tiles >= 4
    assert found.network in found.to_json()
    assert type(found).from_json(found.to_json()) == found
    assert "int8" in found.environment
    shown = show_plan(found, estimate)
    assert "cpu, int8, 1 thread, openvino" in shown
    assert f"labels    {found.change}" in shown
    assert not [warning for warning in estimate.warnings if "int8" in warning]


@needs_nncf
def test_int8_that_changes_too_much_is_refused_with_the_figure(folder: Path) -> None:
    with pytest.raises(InputError, match=r"int8: does not suit .* % of labels .* 0.001 % may"):
        plan(folder, precision="int8", max_label_change="0.001%")


@needs_nncf
def test_a_library_that_does_not_agree_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Precision, "agreement", property(lambda _: -1.0))
    with pytest.raises(InputError, match=r"runtime openvino, which computes it, differs in fp32"):
        plan(folder, precision="int8")


@needs_nncf
def test_an_image_of_background_alone_is_told_of(folder: Path) -> None:
    _, estimate = plan(folder, "glass.tif", precision="int8", max_label_change=1)
    assert any("hold nothing but background" in warning for warning in estimate.warnings)


@needs_nncf
def test_a_processor_without_instructions_for_int8_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.engine.work.environment._INT8", ())
    found, estimate = plan(folder, precision="int8", max_label_change=1)
    assert any("no instructions for int8 (VNNI)" in warning for warning in estimate.warnings)
    assert HOW[-1] == {"saturates": found.environment["machine"] == "x86_64"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtime": "torch"}, "int8: runtime torch does not compute it; leave --runtime out"),
        ({"model": "values.safetensors"}, "int8: model values gives values"),
        ({"model": "float.safetensors", "image": "float.tif"}, "holds float32, in which an over"),
        ({"precision": "fastest", "model": "values.safetensors"}, "fastest: model values gives"),
    ],
)
def test_what_cannot_be_is_said(folder: Path, options: dict[str, Any], said: str) -> None:
    asked = {"precision": "int8"} | options
    if "model" in asked:
        asked["model"] = folder / asked["model"]
    with pytest.raises(InputError, match=said):
        plan(folder, **asked)


def test_networks_of_other_kinds_and_gpus_are_refused(folder: Path) -> None:
    facts, model = plan(folder)[0].image, tilepipe.load_model(folder / "model.safetensors")
    other = replace(model, predictor=Predictor(model.arguments, model.network))
    assert obstacle(model, facts, "cpu") is None
    assert "only tilepipe's own U-Nets can be" in (obstacle(other, facts, "cpu") or "")
    assert "is for CPUs only" in (obstacle(model, facts, "cuda") or "")


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "nncf" else found(name)
    )
    with pytest.raises(InputError, match=r'int8: needs nncf.*pip install "tilepipe\[int8\]"'):
        plan(folder, precision="int8")


@pytest.mark.parametrize(("share", "said"), [("0.5 per cent", "is not a share"), (2, "at most 1")])
def test_a_bound_that_is_no_share_is_refused(folder: Path, share: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(folder, precision="int8", max_label_change=share)


def test_a_bound_without_a_trial_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="max_label_change: bounds what --precision int8 or"):
        plan(folder, max_label_change="0.5%")


def fastest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, speeds: dict[str, float], **options: Any
) -> Any:
    """The plan where precisions are as fast as a test wants, and the processor has bf16."""

    def choose(model: Any, tile: Any, reference: Any, names: Any) -> Any:
        runtime = reference.runtime
        return RuntimeChoice(runtime, ((runtime, speeds[reference.precision]),))

    monkeypatch.setattr(precision_trial, "fastest_runtime", choose)
    monkeypatch.setattr(precision_trial, "speed_of", lambda *_: speeds["int8"])
    monkeypatch.setattr(precision_trial, "bf16_in_hardware", lambda: True)
    return plan(folder, precision="fastest", **options)


@needs_nncf
@pytest.mark.parametrize(
    ("speeds", "most", "chosen"),
    [
        ({"fp32": 1.0, "bf16": 2.0, "int8": 4.0}, 1.0, "int8"),
        ({"fp32": 1.0, "bf16": 2.0, "int8": 1.5}, 1.0, "bf16"),
        ({"fp32": 1.0, "bf16": 1.04, "int8": 1.0}, 1.0, "fp32"),
        ({"fp32": 1.0, "bf16": 2.0, "int8": 4.0}, 0.0, "fp32"),
    ],
)
def test_the_fastest_within_the_bound_is_taken(
    speeds: dict[str, float],
    most: float,
    chosen: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, estimate = fastest(folder, monkeypatch, speeds, max_label_change=most)
    assert found.precision == chosen
    assert (found.network is not None) == (chosen == "int8")
    assert (found.change is None) == (chosen == "fp32")
    assert dict(estimate.speeds) == speeds
    left_out = [warning for warning in estimate.warnings if "is left out" in warning]
    assert len(left_out) == (2 if most == 0 else 0)


def test_without_nncf_the_others_are_chosen_among(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.models.quantise.missing_package", lambda: "nncf")
    speeds = {"fp32": 1.0, "bf16": 2.0}
    found, estimate = fastest(folder, monkeypatch, speeds, max_label_change=1)
    assert found.precision == "bf16"
    assert any("needs nncf" in warning for warning in estimate.warnings)


def test_int8_is_offered_to_who_could_have_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.engine.work.environment._INT8", ("sse2", "fpu", "fp"))
    monkeypatch.setattr("tilepipe.engine.work.environment._HALF", ())
    monkeypatch.setattr(int8, "TRIAL_SECONDS", 0)
    found, estimate = plan(folder)
    assert "hint      --precision int8 " in show_plan(found, estimate)
    assert plan(folder, precision="fp32")[1].offer is None, "asked for"
    assert plan(folder, model=folder / "values.safetensors")[1].offer is None
    monkeypatch.setattr(int8, "TRIAL_SECONDS", 1e9)
    assert plan(folder)[1].offer is None, "too short a run"
    resources = Resources(1, True, 1, environment={"int8": ""})
    model = tilepipe.load_model(folder / "model.safetensors")
    assert offer(model, found.image, resources, None) is None, "no instructions"
