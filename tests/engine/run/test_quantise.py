"""An int8 network in the model file: made once, used by runs, refused where it does not fit."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli import call
from tilepipe.engine.planning import precision_trial
from tilepipe.engine.planning.int8 import COMPARING_SECONDS, TRIAL_SECONDS, offer
from tilepipe.engine.run import quantise as module
from tilepipe.engine.state.folder import RunState
from tilepipe.errors import InputError
from tilepipe.models.int8_network import METADATA_KEY, TENSOR
from tilepipe.models.predictors.quantised import network_hash
from tilepipe.models.quantise import missing_package
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.skipif(missing_package() is not None, reason="needs the extra int8")

ARGUMENTS = UNetArguments(width=2, depth=2, outputs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two sizes, a model, and the same with an int8 network in it."""
    path = tmp_path_factory.mktemp("quantise")
    write_tiff(path / "small.tif", make_image(200, 150))
    write_tiff(path / "large.tif", make_image(600, 700))
    write_tiff(path / "glass.tif", np.full((300, 420, 3), 240, np.uint8))
    save_tiny(path / "model.safetensors", ARGUMENTS)
    images = [path / "small.tif", path / "large.tif"]
    steps: list[str] = []
    made = tilepipe.quantise(
        path / "model.safetensors", images, path / "int8.safetensors", progress=steps.append
    )
    assert [step.split(" on ")[0] for step in steps] == ["quantising", "measuring"]
    assert made.model.int8 is not None
    assert made.change.share == made.model.int8.label_change
    assert not made.warnings
    return path


def plan(
    folder: Path, image: str = "large.tif", model: str = "int8.safetensors", **how: Any
) -> Any:
    asked = {"precision": "int8", "max_label_change": 0.5, "threads": 1, "device": "cpu"} | how
    return tilepipe.plan(
        folder / "large.tif", model=folder / model, outputs=folder / "m.ome.zarr", **asked
    )


@pytest.fixture
def _nothing_is_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        raise AssertionError("quantised")

    monkeypatch.setattr(precision_trial, "quantised", refuse)


def test_the_model_is_the_same_but_for_the_network(folder: Path) -> None:
    before, after = (tilepipe.load_model(folder / f"{n}.safetensors") for n in ("model", "int8"))
    assert before.int8 is None
    assert after.int8 is not None
    assert (after.int8.images, after.int8.tiles, after.int8.measured) == (2, 12, 6)
    assert set(after.int8.versions) == {"nncf", "onnx", "openvino"}
    assert replace(
        after, int8=None, name="model", path=before.path, predictor=before.predictor
    ) == (before)
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[name])


def test_saving_keeps_it(folder: Path, tmp_path: Path) -> None:
    model = tilepipe.load_model(folder / "int8.safetensors")
    tilepipe.save_model(tmp_path / "int8.safetensors", replace(model, about={"another": "card"}))
    assert tilepipe.load_model(tmp_path / "int8.safetensors").int8 == model.int8
    with pytest.raises(InputError, match="int8 network was made of other weights"):
        tilepipe.save_model(tmp_path / "half.safetensors", model, torch.float16)


@pytest.mark.usefixtures("_nothing_is_quantised")
def test_runs_compute_with_it_and_quantise_nothing(folder: Path, tmp_path: Path) -> None:
    model = folder / "int8.safetensors"
    output = tmp_path / "m.ome.zarr"
    summary = tilepipe.run(
        folder / "large.tif", model=model, outputs=output, precision="int8", window=300,
        max_label_change=0.5, threads=1, verify=2,
    )  # fmt: skip
    network = tilepipe.load_model(model).int8
    assert network is not None
    assert summary.plan.network == network_hash(network.content)
    assert RunState(output).network_file.read_bytes() == network.content
    assert summary.plan.change is not None
    assert summary.plan.change.share > 0
    assert summary.verification is not None
    assert summary.verification.exact


@pytest.mark.usefixtures("_nothing_is_quantised")
def test_it_needs_no_nncf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_trial, "missing_package", lambda: "nncf")
    assert plan(folder)[0].precision == "int8"
    with pytest.raises(InputError, match=r"int8: does not suit .* of labels .* 0.0001 % may"):
        plan(folder, max_label_change=1e-6)


def test_where_it_changes_too_much_another_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tilepipe.load_model(folder / "int8.safetensors")
    assert model.int8 is not None
    made: list[bytes] = []

    def quantised(*_: Any, **__: Any) -> bytes:
        made.append(b"")
        assert model.int8 is not None
        return model.int8.content

    monkeypatch.setattr(precision_trial, "quantised", quantised)
    shares = iter([0.2, 0.01])
    between = precision_trial.LabelChange.between
    monkeypatch.setattr(
        precision_trial.LabelChange, "between",
        lambda *args: replace(between(*args), share=next(shares)),
    )  # fmt: skip
    _, estimate = plan(folder, max_label_change=0.05)
    assert len(made) == 1
    said = "comes with model int8, 20 % of labels differ from fp32's"
    assert any(said in warning for warning in estimate.warnings)


def test_it_is_offered_for_shorter_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.engine.planning.int8.missing_package", lambda *_: "openvino")
    facts = plan(folder)[0].image
    from tilepipe.engine.resources import Resources

    resources = Resources(1, True, 2, environment={"int8": "avx512_vnni"})
    plain, own = (tilepipe.load_model(folder / f"{n}.safetensors") for n in ("model", "int8"))
    between = (COMPARING_SECONDS + TRIAL_SECONDS) / 2
    assert offer(plain, facts, resources, between) is None
    assert '"tilepipe[openvino]"' in str(offer(own, facts, resources, between))
    assert '"tilepipe[int8]"' in str(offer(plain, facts, resources, TRIAL_SECONDS + 1))
    assert offer(own, facts, resources, COMPARING_SECONDS - 1) is None
    assert offer(own, facts, resources, between).option == "--precision int8"
    amx = replace(resources, environment={"int8": "amx_int8", "half": "avx512_bf16 amx_bf16"})
    assert offer(own, facts, amx, between).option == "--precision fastest"
    elsewhere = replace(amx, local=False)
    assert offer(own, facts, elsewhere, between).option == "--precision int8", "as it is possible"


def test_what_of_an_image_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tif"
    tifffile.imwrite(cut, make_image(900, 900), tile=(256, 256), compression="jpeg")
    os.truncate(cut, cut.stat().st_size * 3 // 4)
    target = tmp_path / "int8.safetensors"
    made = tilepipe.quantise(folder / "model.safetensors", [cut], target, level=0)
    (warning,) = made.warnings
    assert re.match(r"\d+ places of an image passed over: .*cut.tif: cannot decode", warning)


def test_an_image_of_a_single_tile_is_told(folder: Path, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "tiny.tif", make_image(40, 40))
    made = tilepipe.quantise(folder / "model.safetensors", [image], tmp_path / "int8.safetensors")
    (warning,) = made.warnings
    assert "tiny.tif: only one tile of it could be used" in warning


def altered(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy whose metadata or tensors are others."""
    with safe_open(folder / "int8.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    metadata |= changes.pop("metadata", {})
    metadata = {key: value for key, value in metadata.items() if value}
    save_file(tensors | changes, target, metadata)
    return target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {METADATA_KEY: ""}}, "without the metadata 'tilepipe.int8'"),
        ({"metadata": {METADATA_KEY: "{"}}, "its int8 network cannot be used"),
        ({"metadata": {METADATA_KEY: "{}"}}, "cannot be used: tilepipe.int8"),
        ({TENSOR: torch.zeros(9, dtype=torch.uint8)}, "cannot be used: no quantised network"),
        ({TENSOR: torch.zeros(9)}, "tensor int8.network must be bytes, found F32"),
        ({"head.bias": torch.ones(3)}, "was made of other weights than it has now"),
    ],
)
def test_a_damaged_file_is_refused(
    changes: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as found:
        tilepipe.load_model(altered(folder, tmp_path / "bad.safetensors", **changes))
    assert "\n" not in str(found.value)


def test_a_claim_of_more_than_the_file_has_is_refused(folder: Path, tmp_path: Path) -> None:
    content = (folder / "int8.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[TENSOR]["shape"] = [10**13]
    text = json.dumps(header).encode()
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(InputError, match="is damaged or not a safetensors file"):
        tilepipe.load_model(bad)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.safetensors", "none.tif", "-o", "q.safetensors"], "none.tif"),
        (["model.safetensors", "small.tif", "-o", "q.onnx"], "ends in .safetensors"),
        (["model.safetensors", "small.tif", "-o", "int8.safetensors"], "use --overwrite"),
        (["values.safetensors", "small.tif", "-o", "q.safetensors"], "gives values"),
        (["model.safetensors", "small.tif", "--bands", "1", "-o", "q.safetensors"], "1 band"),
        (["model.safetensors", "large.tif", "-o", "no/q.safetensors"], "no"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    save_tiny(folder / "values.safetensors", ARGUMENTS, activation="linear")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(module, "quantised", lambda *_, **__: pytest.fail("quantised"))
    assert call(["quantise", *words, "-q"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (folder / "q.safetensors").exists()


def test_without_nncf_nothing_is_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.models.quantise.missing_package", lambda: "nncf")
    with pytest.raises(InputError, match=r'needs nncf, .* pip install "tilepipe\[int8\]"'):
        tilepipe.quantise(folder / "model.safetensors", folder / "large.tif", "q.safetensors")


def test_the_command_replaces_a_model_and_tells_of_empty_images(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tmp_path / "m.safetensors"
    shutil.copy(folder / "model.safetensors", model)
    network = tilepipe.load_model(folder / "int8.safetensors").int8
    assert network is not None
    monkeypatch.setattr(module, "quantised", lambda *_, **__: network.content)
    words = [str(model), str(folder / "glass.tif"), "-o", str(model), "--overwrite"]
    assert call(["quantise", *words]) == 0
    out, err = capsys.readouterr()
    assert "of labels differ from fp32's" in out
    assert "all that was seen of it is background" in err
    assert call(["info", str(model)]) == 0
    assert "int8          comes quantised: calibrated on" in capsys.readouterr().out


@pytest.mark.parametrize("name", tilepipe.models.shipped_models())
def test_shipped_models_come_with_one(name: str) -> None:
    network = tilepipe.load_model(name).int8
    assert network is not None
    assert network.label_change < 0.001
