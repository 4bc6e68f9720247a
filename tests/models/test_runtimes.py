"""Every runtime gives torch's logits, and one that cannot is refused in a sentence."""

from __future__ import annotations

import importlib.util
import shutil
from copy import deepcopy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.making import randomise_statistics
from tests.models.making import OTHERS, OnTensors, has_bf16
from tilepipe.engine.cluster.failures import out_of_memory
from tilepipe.errors import InputError
from tilepipe.models import unet_memory
from tilepipe.models.fold import folded
from tilepipe.models.geometry import geometry_of
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.unet import UNetPredictor
from tilepipe.models.runtimes import RUNTIMES, Runtime, check_runtime, installed, strips
from tilepipe.models.unet import UNet, UNetArguments
from tilepipe.models.weights import Weights, weights_of

CPU = torch.device("cpu")
NETWORKS = {
    "valid": UNetArguments(width=4, depth=3),
    "padded, batch norm": UNetArguments(width=4, depth=2, padding="same", normalisation="batch"),
    "interpolated": UNetArguments(width=4, depth=2, upsampling="interpolation", bands=1),
    "padded, interpolated": UNetArguments(
        width=3, depth=2, padding="same", upsampling="interpolation", outputs=4
    ),
}


def network(arguments: UNetArguments) -> UNet:
    torch.manual_seed(0)
    net = UNet(arguments)
    randomise_statistics(net)
    return net.eval().requires_grad_(False)


def open_runtime(name: str, net: UNet, precision: str) -> Runtime:
    """A runtime on tensors, whatever it takes."""
    predictor = UNetPredictor(net.arguments, net)
    runtime = predictor.open("cpu", Precision(precision), 1, name)
    return OnTensors(runtime) if predictor.takes_arrays(name) else runtime


def plain(net: UNet) -> tuple[UNetArguments, Weights]:
    """What a graph is made of."""
    return net.arguments, weights_of(net)


def pixels(arguments: UNetArguments, rows: int, columns: int) -> torch.Tensor:
    """What a network takes to keep so many outputs."""
    height, width = (geometry_of(arguments).input_for(keep) for keep in (rows, columns))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((1, arguments.bands, height, width), generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def apart(found: torch.Tensor, truth: torch.Tensor) -> float:
    assert found.shape == truth.shape
    return float((found.float() - truth).abs().max() / (truth.max() - truth.min()))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rows", [2, 10])
def test_strips_give_what_all_rows_together_give(
    kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = replace(NETWORKS[kind], normalisation="none")
    net = network(arguments)
    monkeypatch.setattr(unet_memory, "STRIP_BYTES", 1)
    monkeypatch.setattr(unet_memory, "LEAST_ROWS", rows)
    in_strips = strips.Strips(net, CPU, torch.float32)
    # A small window after a large one finds the memory of that.
    shapes = [(48, 32), (16, 32), (32, 48)]
    with torch.inference_mode():
        results = [in_strips(pixels(arguments, *shape)) for shape in shapes]
        for shape, found in zip(shapes, results, strict=True):
            assert apart(found, net(pixels(arguments, *shape))) < 1e-5


def test_strips_keep_nan_and_are_never_thin() -> None:
    arguments = NETWORKS["valid"]
    x = pixels(arguments, 32, 32)
    x[0, 0, 40, 40] = float("nan")
    with torch.inference_mode():
        assert strips.Strips(network(arguments), CPU, torch.float32)(x).isnan().any()
    assert unet_memory.strip_rows((4096, 1000, 1000), 4) == unet_memory.LEAST_ROWS
    assert unet_memory.strip_rows((1, 10, 10), 4) == 10


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_the_logits_are_torchs(kind: str, name: str) -> None:
    net = network(NETWORKS[kind])
    with torch.inference_mode():
        runtime = open_runtime(name, net, "fp32")
        for sides in ((48, 64), (80, 32), (48, 64)):
            x = pixels(net.arguments, *sides)
            before = x.clone()
            truth = net(x)
            found = runtime(x).clone()
            assert apart(found, truth) < 5e-6
            assert torch.equal(runtime(x), found), "the same bits each time"
            assert torch.equal(x, before)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_torch_hides_nothing_that_is_not_finite(precision: str) -> None:
    net = network(NETWORKS["valid"])
    with torch.inference_mode():
        runtime = open_runtime("torch", net, precision)
        x = pixels(net.arguments, 64, 64).to(runtime.dtype or torch.float32)
        assert runtime(x).isfinite().all()
        x[..., 40, 40] = torch.nan
        assert runtime(x).isnan().any()


@pytest.mark.skipif(not installed("openvino"), reason="no openvino here")
@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("From a.cpp:\n\nno primitive. Run workload with X=Y\n", InputError, r"\(no primitive\)"),
        ("", InputError, "no reason given"),
        ("Exception from a.cpp:1:\nstd::bad_alloc", RuntimeError, "bad_alloc"),
    ],
)
def test_a_network_that_openvino_cannot_build_is_refused(
    text: str, expected: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some are under ``ONEDNN_MAX_CPU_ISA``; lack of memory is another matter."""
    from tilepipe._openvino import load_openvino

    def failing(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(load_openvino().Core, "compile_model", failing)
    with pytest.raises(expected, match=said) as raised:
        open_runtime("openvino", network(NETWORKS["valid"]), "fp32")
    assert out_of_memory(raised.value) == (expected is RuntimeError)
    if expected is InputError:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        with pytest.raises(InputError, match="unset ONEDNN_MAX_CPU_ISA, or use"):
            open_runtime("openvino", network(NETWORKS["valid"]), "fp32")


@pytest.mark.skipif(not installed("openvino"), reason="no openvino here")
def test_openvino_computes_bf16_where_it_says_so() -> None:
    net = network(NETWORKS["valid"])
    x = pixels(net.arguments, 64, 64)
    with torch.inference_mode():
        if not has_bf16():
            with pytest.raises(InputError, match="this processor has no bf16"):
                open_runtime("openvino", net, "bf16")(x)
            return
        found = open_runtime("openvino", net, "bf16")(x)
        assert 1e-4 < apart(found, net(x)) < 5e-2


@pytest.mark.parametrize(
    ("name", "device", "precision", "said"),
    [
        ("openvino", "cuda:0", "fp32", "computes on CPUs only here"),
        ("onnxruntime", "cpu", "bf16", "computes in fp32, not bf16; use --runtime torch"),
        ("compile", "cpu", "fp64", "computes in fp32 or bf16 or fp16, not fp64"),
    ],
)
def test_what_a_runtime_cannot_do_is_said(
    name: str, device: str, precision: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_runtime(name, device, precision)


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == "openvino" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert not installed("openvino")
    assert installed("torch")
    with pytest.raises(InputError, match=r'needs openvino.*pip install "tilepipe\[openvino\]"'):
        check_runtime("openvino", "cpu", "fp32")


@pytest.mark.parametrize("name", OTHERS)
def test_the_version_of_a_runtime_is_told(name: str) -> None:
    plain, normalised = (
        UNetPredictor(net.arguments, net)
        for net in (network(NETWORKS["valid"]), network(NETWORKS["padded, batch norm"]))
    )
    assert set(plain.versions(name)) == {name}
    assert plain.versions(name)[name][0].isdigit()
    assert plain.versions("torch") == {}
    assert normalised.versions("torch") == {"normalisation": "folded"}


def test_copies_of_the_weights_are_counted() -> None:
    plain, normalised = (
        UNetPredictor(net.arguments, net)
        for net in (network(NETWORKS["valid"]), network(NETWORKS["padded, batch norm"]))
    )
    assert plain.weight_copies("torch") == 1
    assert normalised.weight_copies("torch") == 2


@pytest.mark.parametrize("name", ["torch", *OTHERS])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_stays_as_it_is_whatever_opens_it(kind: str, name: str) -> None:
    net = network(NETWORKS[kind])
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    for precision in RUNTIMES[name].precisions:
        if precision is Precision.BF16 and name == "openvino" and not has_bf16():
            continue
        with torch.inference_mode():
            runtime = open_runtime(name, net, precision)
            runtime(pixels(net.arguments, 16, 16).to(runtime.dtype or torch.float32))
    after = net.state_dict()
    assert all(after[key].dtype == tensor.dtype for key, tensor in before.items())
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_kinds_are_what_the_options_offer() -> None:
    from tilepipe.engine.options import Precision as PrecisionOption
    from tilepipe.engine.options import RuntimeName

    assert set(get_args(RuntimeName)) == {"auto", *RUNTIMES}
    assert set(get_args(PrecisionOption)) == {"auto", "fastest", *Precision}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own parts
def test_torch_compile_gives_torchs_logits() -> None:
    net = network(UNetArguments(width=2, depth=1))
    x = pixels(net.arguments, 32, 48)
    with torch.inference_mode():
        runtime = open_runtime("compile", net, "fp32")
        found = runtime(x)
        assert apart(found, net(x)) < 5e-6
        assert torch.equal(runtime(x), found)
        x[..., 20, 20] = torch.nan
        assert runtime(x).isnan().any()


def test_torch_compile_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(NETWORKS["valid"])

    def compile_nothing(*_: Any, **__: Any) -> Any:
        def refuse(x: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return refuse

    monkeypatch.setattr(torch, "compile", compile_nothing)
    runtime = open_runtime("compile", net, "fp32")
    with pytest.raises(InputError, match=r"cannot compile here \(no C\+\+ compiler\)"):
        runtime(pixels(net.arguments, 64, 64))


def test_folding_gives_torchs_bits() -> None:
    net = network(NETWORKS["padded, batch norm"])
    _, found = folded(*plain(net))
    for name, double in (*net.down.named_children(), *net.merge.named_children()):
        block = f"{'down' if double in [*net.down] else 'merge'}.{name}"
        for place, target in ((0, 0), (3, 2)):
            given, norm = double[place].double(), double[place + 1].double()  # type: ignore[index]
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(given, norm)
            assert fused.bias is not None
            for kind, tensor in (("weight", fused.weight), ("bias", fused.bias)):
                expected = tensor.detach().float().numpy()
                np.testing.assert_array_equal(found[f"{block}.{target}.{kind}"], expected)


def test_graph_weights_are_those_of_the_network() -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    from tilepipe.models.runtimes.graph import as_onnx

    net = network(NETWORKS["valid"])
    model = onnx.load_from_string(as_onnx(*plain(net)))
    onnx.checker.check_model(model)
    first = onnx.numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(first, next(net.parameters()).numpy())


def test_a_graph_is_kept_for_its_own_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    from tilepipe.models.runtimes import graph

    net = network(NETWORKS["valid"])
    other = deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    made = graph.as_onnx(*plain(net))
    monkeypatch.setattr(graph, "_made", lambda *_: b"made again")
    assert graph.as_onnx(*plain(net)) == made
    assert graph.as_onnx(*plain(other)) == b"made again"
