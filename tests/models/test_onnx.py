from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

import onnx

import tilepipe
from tests.making import make_image, write_tiff
from tests.models.making_onnx import TINY, input_spec, network, node, output_spec, write, write_unet
from tilepipe.cli import call
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.models import (
    Model,
    build_model,
    forward_bytes,
    geometry_of,
    import_onnx,
    load_model,
    save_model,
)
from tilepipe.models.describe import describe
from tilepipe.products.product import main_product, product_named


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    return write_unet(tmp_path / "unet.onnx", network())


def imported(path: Path, **given: Any) -> Model:
    return import_onnx(path, input_spec(), output_spec(), **given)


def saved(path: Path, **given: Any) -> Path:
    target = path.with_name("model.onnx")
    save_model(target, imported(path, **given))
    return target


def pixels(side: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (side, side, bands), np.uint8)


def test_info_describes_it(unet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(unet)
    assert call(["info", str(path)]) == 0
    assert capsys.readouterr().out.rstrip("\n") == describe(load_model(path))
    assert call(["info", str(unet)]) == 2
    assert "is an ONNX network without a description" in capsys.readouterr().err


# What it computes


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_geometry_is_that_of_the_same_network_in_torch(
    tmp_path: Path, padding: Any, depth: int
) -> None:
    arguments = replace(TINY, depth=depth, padding=padding)
    path = write_unet(tmp_path / "unet.onnx", network(arguments))
    assert imported(path).geometry == geometry_of(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("nhwc", [False, True])
def test_logits_are_those_of_torch(tmp_path: Path, nhwc: bool) -> None:
    path = write_unet(tmp_path / "unet.onnx", network(), nhwc=nhwc)
    model = imported(path, layout="NHWC" if nhwc else "NCHW")
    x = torch.randn(1, 3, 132, 108)
    with torch.inference_mode():
        expected = network()(x)
        found = model.network(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(("last", "activation"), [("Softmax", "softmax"), ("Sigmoid", "sigmoid")])
def test_probabilities_become_logits_again(tmp_path: Path, last: str, activation: str) -> None:
    output = output_spec(activation=activation)
    output = replace(output, background=0 if activation == "softmax" else None)
    plain = import_onnx(write_unet(tmp_path / "a.onnx", network()), input_spec(), output)
    path = write_unet(tmp_path / "b.onnx", network(), last=last)
    model = import_onnx(path, input_spec(), output, gives="probabilities")
    assert model.geometry == plain.geometry
    x = torch.randn(1, 3, 140, 140)
    logits, again = plain.network(x), model.network(x)
    assert again.isfinite().all()
    output = model.output
    shares, mask = product_named("probabilities"), main_product(output)
    assert torch.allclose(shares.encode(again, output), shares.encode(logits, output), atol=1e-5)
    same = mask.encode(again, output) == mask.encode(logits, output)
    assert same.float().mean() > 0.9999


def test_saturated_probabilities_stay_finite(tmp_path: Path) -> None:
    weights = {"w": np.full((3, 3, 1, 1), 1e4, np.float32)}
    nodes = [node("Conv", ["x", "w"], "a"), node("Sigmoid", ["a"], "y")]
    path = write(tmp_path / "n.onnx", nodes, weights)
    output = replace(output_spec(activation="sigmoid"), background=None)
    model = import_onnx(path, input_spec(), output, gives="probabilities")
    assert model.network(torch.randn(1, 3, 64, 64)).isfinite().all()


@pytest.mark.slow
def test_values_that_are_no_probabilities_are_refused(unet: Path) -> None:
    with pytest.raises(InputError, match="which are not probabilities"):
        imported(unet, gives="probabilities")


def test_memory_is_about_that_of_the_same_network_in_torch(unet: Path) -> None:
    model = imported(unet)
    for side in (160, 572, 1340):
        ours = model.network.live_bytes(side, side)
        assert 0.6 < ours / forward_bytes(network(), 3, side, side) < 1.4


@pytest.mark.slow
def test_whole_runs_give_the_same_mask_as_torch(
    unet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiff(Path("image.tif"), make_image(700, 900), None)
    save_model("torch.safetensors", build_model(network(), input_spec(), output_spec()))
    saved(unet)
    masks = []
    for name in ("torch.safetensors", "model.onnx"):
        summary = tilepipe.run(
            "image.tif", model=name, outputs=[f"{name}.ome.zarr"], window=160, threads=1, verify=4
        )
        assert summary.verification is not None
        assert summary.verification.exact
        assert not summary.warnings
        mask = tilepipe.open_mask(f"{name}.ome.zarr")
        masks.append(mask.read(Window(0, 0, 700, 900)))
    assert (masks[0] != masks[1]).mean() < 1e-4
    assert len(np.unique(masks[0])) == 3


@pytest.mark.slow
def test_nodata_enters_as_the_mean(unet: Path) -> None:
    device = Device(imported(unet), "cpu", "fp32", 1)
    valid = np.ones((160, 160), np.bool_)
    valid[:80] = False
    keep = imported(unet).geometry.kept(160)
    answer = device.answer(pixels(160), valid[..., None], (keep, keep)).result()
    device.close()
    assert (answer.mask[:60] == 255).all()
    assert (answer.mask[60:] < 3).all()


# The file


def test_a_file_and_its_copy_are_one_model(unet: Path, tmp_path: Path) -> None:
    model = imported(unet, about={"licence": "CC0"})
    save_model(tmp_path / "m.onnx", model)
    loaded = load_model(tmp_path / "m.onnx")
    assert loaded.fingerprint == model.fingerprint
    assert (loaded.geometry, loaded.input, loaded.output, loaded.about) == (
        model.geometry,
        model.input,
        model.output,
        model.about,
    )
    save_model(tmp_path / "again.onnx", loaded)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    assert "ONNX, opset 17, fp32, NCHW, gives logits" in describe(loaded)
    assert loaded.predictor.inexact is None
    assert not loaded.predictor.fixed


@pytest.mark.slow
def test_other_weights_are_another_model(tmp_path: Path) -> None:
    one, other = (
        imported(write_unet(tmp_path / f"{seed}.onnx", network(seed=seed))) for seed in (0, 1)
    )
    assert one.fingerprint != other.fingerprint


def test_without_a_description_it_says_how_to_add_one(unet: Path) -> None:
    with pytest.raises(InputError, match=r"without a description .*import_onnx and save_model"):
        load_model(unet)


def test_other_suffixes_are_refused(unet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        save_model(tmp_path / "m.safetensors", imported(unet))


def test_without_the_extra_it_says_which(unet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(unet)
    for package in ("onnxruntime", "onnx"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(InputError, match=rf"need {package}.*pip install \"tilepipe\[onnx\]\""):
            load_model(path)


@pytest.mark.slow
def test_a_fixed_size_is_left_open_where_the_network_runs_on_others(tmp_path: Path) -> None:
    arguments = replace(TINY, padding="same")
    path = write_unet(tmp_path / "unet.onnx", network(arguments), side=256)
    model = imported(path)
    assert not model.predictor.fixed
    assert model.geometry.input == 256
    assert model.geometry.margin == geometry_of(arguments).margin
    loaded = load_model(saved(path))
    assert loaded.network(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_where_it_takes_one_size_only_its_geometry_must_be_given(tmp_path: Path) -> None:
    weights = {
        "w": np.ones((3, 3, 3, 3), np.float32),
        "shape": np.array([1, 3, 128, 128], np.int64),
    }
    nodes = [node("Conv", ["x", "w"], "a", pads=[1] * 4), node("Reshape", ["a", "shape"], "y")]
    path = write(tmp_path / "n.onnx", nodes, weights, given=(1, 3, 128, 128))
    with pytest.raises(InputError, match=r"takes one size only.*give stride_factor and margin"):
        imported(path)
    model = imported(path, stride_factor=1, margin=1)
    assert model.predictor.fixed
    assert model.predictor.inexact is None
    assert model.geometry.input == 128


PROBLEMS = {
    "two outputs": (
        {"outputs": ("y", "a"), "taken": ("N", 3, "h", "w")},
        r"must have one output, and has 2 \(y, a\)",
    ),
    "three axes": ({"given": (3, "H", "W")}, "must have four axes"),
    "four bands": ({"given": ("N", 4, "H", "W")}, "has 4 channels in the layout NCHW"),
    "integers": ({"element": 2}, "must be float32 or float16"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_shapes_that_do_not_fit_are_refused(tmp_path: Path, problem: str) -> None:
    given, message = PROBLEMS[problem]
    bands = given.get("given", (0, 3))[1] if problem == "four bands" else 3
    weights = {"w": np.ones((3, bands, 1, 1), np.float32)}
    kind = "Conv" if problem != "integers" else "Identity"
    names = ["x", "w"] if kind == "Conv" else ["x"]
    nodes = [node(kind, names, "a"), node("Relu" if kind == "Conv" else "Cast", ["a"], "y")]
    if kind == "Identity":
        nodes[1].attribute.append(onnx.helper.make_attribute("to", 1))
    path = write(tmp_path / "n.onnx", nodes, weights, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        imported(path, stride_factor=1)


def test_operators_of_others_are_refused(tmp_path: Path) -> None:
    strange = node("Steal", ["x"], "y", domain="org.evil")
    path = write(tmp_path / "n.onnx", [strange], domains=[("", 17), ("org.evil", 1)])
    with pytest.raises(InputError, match=r"needs the operator Steal of org\.evil"):
        imported(path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    weights = {"w": np.ones((3, 3, 1, 1), np.float32)}
    path = write(tmp_path / "n.onnx", [node("Conv", ["x", "w"], "y")], weights)
    onnx.save(
        onnx.load(str(path)),
        str(path),
        save_as_external_data=True,
        size_threshold=0,
        location="secret",
    )
    with pytest.raises(InputError, match="keeps weights in other files"):
        imported(path)


def test_chance_and_branches_are_refused(tmp_path: Path) -> None:
    noise = [node("RandomNormalLike", ["x"], "a"), node("Add", ["x", "a"], "y")]
    with pytest.raises(InputError, match="RandomNormalLike, which gives other values"):
        imported(write(tmp_path / "a.onnx", noise))
    h = onnx.helper
    branch = h.make_graph(
        [h.make_node("Identity", ["x"], ["z"])],
        "branch",
        [],
        [h.make_tensor_value_info("z", 1, None)],
    )
    choice = node("If", ["c"], "y", then_branch=branch, else_branch=branch)
    path = write(tmp_path / "b.onnx", [choice], {"c": np.array(True)})
    with pytest.raises(InputError, match="If, whose steps are decided as it runs"):
        imported(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_mutated_bytes_never_end_in_a_traceback(unet: Path, seed: int) -> None:
    path = saved(unet)
    content = bytearray(path.read_bytes())
    chance = random.Random(seed)
    if seed % 4 == 0:
        content = content[: chance.randrange(len(content))]
    for _ in range(chance.choice((1, 4, 32))):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    broken = path.with_name("broken.onnx")
    broken.write_bytes(content)
    with contextlib.suppress(InputError):
        load_model(broken).network(torch.zeros(1, 3, 160, 160))


# Networks that cannot be exact


@pytest.fixture
def squeezing(tmp_path: Path) -> Path:
    """A convolution, times a sigmoid of its mean: squeeze and excitation."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(3, 3, 3, 3)).astype(np.float32)}
    nodes = [
        node("Conv", ["x", "w"], "a", pads=[1] * 4),
        node("GlobalAveragePool", ["a"], "b"),
        node("Sigmoid", ["b"], "c"),
        node("Mul", ["a", "c"], "y"),
    ]
    return write(tmp_path / "n.onnx", nodes, weights)


def test_what_is_not_exact_is_named(squeezing: Path) -> None:
    with pytest.raises(InputError, match=r"GlobalAveragePool \(GlobalAveragePool_b\) makes every"):
        imported(squeezing)
    with pytest.raises(InputError, match=r"is not exact, .* give tile and stride_factor"):
        imported(squeezing, exact=False)


@pytest.mark.slow
def test_what_turns_out_not_to_be_exact_is_refused(tmp_path: Path) -> None:
    weights = {"w": np.ones((3, 3, 1, 1), np.float32)}
    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("ReduceMean", ["a"], "b", axes=[2, 3], keepdims=1),
        node("Add", ["a", "b"], "y"),
    ]
    path = write(tmp_path / "n.onnx", nodes, weights)
    with pytest.raises(InputError, match=r"cannot be tiled exactly.*perhaps ReduceMean"):
        imported(path)


def test_the_description_must_own_up(squeezing: Path, tmp_path: Path) -> None:
    model = imported(squeezing, exact=False, tile=128, stride_factor=1, margin=8)
    path = tmp_path / "m.onnx"
    model.predictor.inexact = None
    save_model(path, model)
    with pytest.raises(InputError, match=r"description must say so \(tile\.exact: false\)"):
        load_model(path)


def test_an_inexact_run_says_so_and_never_verifies(
    squeezing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(squeezing, exact=False, tile=128, stride_factor=1, margin=8)
    model = load_model("model.onnx")
    assert model.predictor.fixed
    assert "no other window; not exact: GlobalAveragePool" in " ".join(describe(model).split())
    write_tiff(Path("image.tif"), make_image(300, 300), None)
    summary = tilepipe.run("image.tif", model="model.onnx", outputs=["m.ome.zarr"], verify=3)
    assert summary.plan.tiling.input == (128, 128)
    assert any("cannot be tiled exactly" in warning for warning in summary.warnings)
    assert summary.verification is not None
    assert not summary.verification.exact
    assert "the model cannot be tiled exactly" in str(summary.verification)
    with pytest.raises(InputError, match="is used with windows of 128 only"):
        tilepipe.plan("image.tif", model="model.onnx", window=256)
    with pytest.raises(InputError, match="computes in fp32 only, as its file holds it"):
        tilepipe.plan("image.tif", model="model.onnx", precision="fp16")


# Files that others made


DUMMY_CASES: dict[str, tuple[int, str, str]] = {
    "different_output_size_512_to_484": (2, "sigmoid", ""),
    "dummy_model": (3, "linear", ""),
    "one_output_sigmoid_bsx1x512x512": (1, "sigmoid", ""),
    "one_output_sigmoid_bsx512x512": (1, "sigmoid", "must have four axes"),
    "one_output_softmax_bsx2x512x512": (2, "softmax", ""),
    "two_outputs_sigmoid_bsx1x512x512": (1, "sigmoid", "must have one output, and has 2"),
    "two_outputs_sigmoid_bsx512x512": (1, "sigmoid", "must have one output, and has 2"),
    "two_outputs_softmax_bsx2x512x512": (2, "softmax", "must have one output, and has 2"),
}


@pytest.mark.parametrize("name", DUMMY_CASES)
def test_files_of_others_run_or_are_refused(name: str, data: Path, tmp_path: Path) -> None:
    path = data / "models" / "deepness_dummy_onnx" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    outputs, activation, message = DUMMY_CASES[name]
    output = output_spec(max(2, outputs), activation)
    if activation == "sigmoid" and outputs > 1:
        output = replace(output, background=None)
    gives = "logits" if activation == "linear" else "probabilities"

    def model() -> Model:
        return import_onnx(path, input_spec(), output, gives=gives)  # type: ignore[arg-type]

    if message:
        with pytest.raises(InputError, match=message):
            model()
        return
    made = model()
    assert not made.predictor.fixed
    assert made.geometry.input == 512
    assert made.geometry.output == (484 if "484" in name else 512)
    save_model(tmp_path / "m.onnx", made)
    keep = made.geometry.step
    device = Device(load_model(tmp_path / "m.onnx"), "cpu", "fp32", 1)
    answer = device.answer(pixels(512), None, (keep, keep)).result()
    device.close()
    assert answer.mask.shape[-2:] == (keep, keep)


def test_a_tensor_far_beyond_its_window(tmp_path: Path) -> None:
    path = write_unet(tmp_path / "m.onnx", network(replace(TINY, width=2, depth=1)))
    proto = onnx.load(path)
    (up,) = (n for n in proto.graph.node if n.op_type == "ConvTranspose")
    up.attribute[0].ints[0] = 2**20
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="not a network for images"):
        import_onnx(path, input_spec(), output_spec())


def test_info_describes_a_model_in_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tilepipe.cli import call

    assert call(["info", str(saved(write_unet(tmp_path / "unet.onnx", network())))]) == 0
    said = capsys.readouterr().out
    assert said.startswith("model: ")
    assert "class 1" in said
    # One without what tilepipe needs to know of it is said to be just that, and no image.
    assert call(["info", str(tmp_path / "unet.onnx")]) == 2
    assert "unet.onnx" in (error := capsys.readouterr().err)
    assert "image" not in error
