"""The network is the one of the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tilepipe.models.unet import PRESETS, UNet, UNetArguments, preset
from tilepipe.models.unet_arguments import tensor_shapes
from tilepipe.models.weights import shapes_of


def _sides(network: nn.Module, side: int) -> list[int]:
    """Output sides of all its convolutions, in order, without computing them."""
    sides: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(torch.empty((1, 3, side, side), device="meta"))
    return sides


def _on_meta(arguments: UNetArguments) -> UNet:
    with torch.device("meta"):
        return UNet(arguments)


def test_sizes_are_those_of_figure_1() -> None:
    assert _sides(_on_meta(UNetArguments()), 572) == [
        *(570, 568, 282, 280, 138, 136, 66, 64, 30, 28),
        *(56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388),
        388,
    ]


def test_the_paper_network_has_23_convolutions() -> None:
    modules = _on_meta(UNetArguments()).modules()
    assert sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in modules) == 23


def test_the_paper_network_has_31_million_parameters() -> None:
    network = _on_meta(UNetArguments(bands=1))
    assert sum(p.numel() for p in network.parameters()) == 31_030_658


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(name: str) -> None:
    network = UNet(preset(name, width=2)).eval()
    side = 204 if network.arguments.padding == "valid" else 64
    with torch.inference_mode():
        logits = network(torch.zeros(1, 3, side, side))
    assert logits.shape[1] == network.arguments.outputs
    assert logits.shape[-1] == (20 if network.arguments.padding == "valid" else side)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolation"])
def test_shapes_are_foretold_without_torch(
    padding: Any, normalisation: Any, upsampling: Any
) -> None:
    for bands, outputs, width, depth in ((1, 1, 1, 1), (3, 2, 5, 3), (13, 7, 16, 8)):
        arguments = UNetArguments(
            bands, outputs, width, depth, padding, normalisation, upsampling, dropout=0.1
        )
        found = tensor_shapes(arguments)
        assert list(found.items()) == list(shapes_of(lambda a=arguments: UNet(a)).items())  # type: ignore[misc]


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="no preset is called 'resnet'"):
        preset("resnet")


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": 0},
        {"width": True},
        {"depth": 9},
        {"outputs": 1.0},
        {"padding": "full"},
        {"normalisation": "layer"},
        {"upsampling": "nearest"},
        {"dropout": 1.0},
    ],
)
def test_arguments_at_fault_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        UNetArguments(**changes)  # type: ignore[arg-type]
