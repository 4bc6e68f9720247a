"""A U-Net whose convolutions are fused with their ReLUs, which may lose NaN."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.making import make_model
from tilepipe.models.precision import Precision
from tilepipe.models.runtimes import fused
from tilepipe.models.runtimes.eager import Eager
from tilepipe.models.runtimes.fused import Fused
from tilepipe.models.unet import UNet, UNetArguments

FORMS = [
    UNetArguments(width=4, depth=2, normalisation="batch"),
    UNetArguments(width=4, depth=2, padding="same", upsampling="interpolation"),
]
LAYERS = 10
"""That are fused, in each of them."""
HALF = [Precision.FP16, Precision.BF16]
CPU = torch.device("cpu")

Kernel = Callable[[Tensor, Tensor, Tensor, tuple[int, ...]], Tensor]


def keeping(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]) -> Tensor:
    """What a kernel that keeps NaN does, with sums in float32."""
    y = functional.conv2d(x.float(), weight.float(), bias.float(), padding=padding)
    return functional.relu(y).to(x.dtype)


def losing(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]) -> Tensor:
    """What a kernel does whose maximum of NaN and 0 is 0."""
    return torch.fmax(keeping(x, weight, bias, padding), torch.zeros((), dtype=x.dtype))


def losing_a_corner(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]) -> Tensor:
    """The same for the last pixel alone, as in what a kernel's last thread computes."""
    y = keeping(x, weight, bias, padding)
    y[..., -1, -1] = torch.fmax(y[..., -1, -1], torch.zeros((), dtype=x.dtype))
    return y


KERNELS = {"keeps NaN": keeping, "loses NaN": losing, "loses it at the end": losing_a_corner}
kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))


def network_of(arguments: UNetArguments) -> UNet:
    network = make_model(arguments).predictor.inference_network(Precision.FP16)
    assert isinstance(network, UNet)
    return network


def window() -> Tensor:
    return torch.randn((1, 3, 124, 92), generator=torch.Generator().manual_seed(0))


def logits_of(runtime: Eager, x: Tensor) -> Tensor:
    assert runtime.dtype is not None
    with torch.inference_mode():
        first, again = (runtime(x.to(runtime.dtype)) for _ in range(2))
    assert torch.equal(first, again) or not first.isfinite().all()
    assert isinstance(first, Tensor)
    return first


@kernels
@pytest.mark.parametrize("arguments", FORMS, ids=["valid", "same"])
@pytest.mark.parametrize("precision", HALF)
def test_it_is_the_same_function(
    kernel: Kernel, arguments: UNetArguments, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "convolution_relu", kernel)
    network, x = network_of(arguments), window()
    before = [parameter.clone() for parameter in network.parameters()]
    runtime = Fused(network, CPU, precision.dtype)
    found = logits_of(runtime, x)
    assert runtime.apart == (0 if kernel is keeping else LAYERS)
    exact = logits_of(Eager(network, CPU, torch.float64), x)
    steps = logits_of(Eager(network, CPU, precision.dtype), x)
    assert found.dtype == precision.dtype
    assert found.shape == exact.shape
    span = exact.max() - exact.min()
    error = (found.double() - exact).abs().max()
    assert error <= 2 * (steps.double() - exact).abs().max() + 1e-3 * span
    after = network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "a copy is changed"


def overflow(network: UNet, name: str, sign: int, largest: float) -> None:
    """Let a layer overflow in all channels, so that the next adds infinities of both signs."""
    layer = network.get_submodule(name.removesuffix(".bias"))
    assert isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(largest / 64)
        layer.bias.fill_(sign * largest)


def overflows() -> list[tuple[str, int]]:
    """Each layer whose output can overflow, by the name of its bias, and the sign."""
    names = [name for name, _ in network_of(FORMS[0]).named_parameters() if name.endswith("bias")]
    return [(name, 1) for name in names] + [(name, -1) for name in names if name.startswith("up")]


@kernels
@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize(("name", "sign"), overflows())
def test_no_overflow_is_lost_in_any_layer(
    kernel: Kernel, name: str, sign: int, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "convolution_relu", kernel)
    network = network_of(FORMS[0])
    overflow(network, name, sign, torch.finfo(precision.dtype).max)
    assert not logits_of(Fused(network, CPU, precision.dtype), window()).isfinite().all()


def test_an_overflow_would_be_lost_if_no_nan_were_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "convolution_relu", losing)
    monkeypatch.setattr(Fused, "prepare", lambda self, x: None)
    lost = 0
    for name, sign in overflows():
        network = network_of(FORMS[0])
        overflow(network, name, sign, torch.finfo(torch.float16).max)
        lost += bool(logits_of(Fused(network, CPU, torch.float16), window()).isfinite().all())
    assert lost, "the test above could not fail"


def test_each_shape_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel is chosen for a shape, so what is known of one says nothing of the next."""

    def by_shape(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]) -> Tensor:
        return (losing if x.shape[-1] == 92 else keeping)(x, weight, bias, padding)

    monkeypatch.setattr(fused, "convolution_relu", by_shape)
    runtime = Fused(network_of(FORMS[0]), CPU, torch.float16)
    logits_of(runtime, window()[..., :76])
    assert runtime.apart == 0
    logits_of(runtime, window())
    assert runtime.apart == 1
