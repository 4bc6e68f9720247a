"""Tiles cut by the geometry give what one pass over the mirrored image gives."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tilepipe.grid import Geometry, round_up
from tilepipe.models.geometry import choose_tile, geometry_of
from tilepipe.models.probe import probe_geometry
from tilepipe.models.unet import UNet, UNetArguments

VARIANTS = list(product(("valid", "same"), ("transposed", "interpolation"), ("none", "batch")))
HEIGHT, WIDTH = 41, 54


def _arguments(depth: int, variant: tuple[str, str, str], width: int = 1) -> UNetArguments:
    padding, upsampling, normalisation = variant
    return UNetArguments(
        bands=1,
        width=width,
        depth=depth,
        padding=padding,  # type: ignore[arg-type]
        upsampling=upsampling,  # type: ignore[arg-type]
        normalisation=normalisation,  # type: ignore[arg-type]
    )


@torch.no_grad()
def _lively(arguments: UNetArguments) -> UNet:
    """A random network in float64 in which no channel is dead."""
    torch.manual_seed(1)
    network = UNet(arguments).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # Mostly positive weights keep what lies at a margin from being cut off by a ReLU.
            nn.init.uniform_(module.weight, -0.5, 1.5)
            module.weight /= module.weight[0].numel() / 2
            nn.init.uniform_(module.bias, 0.1, 0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


def _mirrored(image: np.ndarray, top: int, left: int, bottom: int, right: int) -> Tensor:
    padded = np.pad(image, ((top, bottom), (left, right)), mode="reflect")
    return torch.from_numpy(padded)[None, None]


def _whole(network: nn.Module, image: np.ndarray, geometry: Geometry) -> Tensor:
    """One pass, over an image mirrored far beyond the margin, cropped to the image."""
    margin = geometry.margin + 4 * geometry.stride_factor
    sides = [round_up(size, geometry.stride_factor) + 2 * margin for size in image.shape]
    sides = [side + (geometry.input - side) % geometry.stride_factor for side in sides]
    after = [side - size - margin for side, size in zip(sides, image.shape, strict=True)]
    logits = network(_mirrored(image, margin, margin, *after))
    start = margin - geometry.shrink
    return logits[..., start : start + image.shape[0], start : start + image.shape[1]]


def _tiled(network: nn.Module, image: np.ndarray, geometry: Geometry, margin: int) -> Tensor:
    """Stitched from the smallest windows, placed at multiples of the stride factor."""
    factor = geometry.stride_factor
    keep = round_up(20, factor)
    side = keep + 2 * margin
    side += (geometry.input - side) % factor
    far = side + 2 * max(image.shape)
    padded = _mirrored(image, far, far, far, far)
    start = margin - geometry.shrink
    rows = []
    for y in range(0, image.shape[0], keep):
        row = []
        for x in range(0, image.shape[1], keep):
            top, left = far + y - margin, far + x - margin
            logits = network(padded[..., top : top + side, left : left + side])
            row.append(logits[..., start : start + keep, start : start + keep])
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)[..., : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_tiles_give_the_whole_image_pass_and_no_smaller_margin_does(
    depth: int, variant: tuple[str, str, str]
) -> None:
    arguments = _arguments(depth, variant, width=2)
    geometry, network = geometry_of(arguments), _lively(arguments)
    image = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH))
    with torch.inference_mode():
        whole = _whole(network, image, geometry)
        tiled = _tiled(network, image, geometry, geometry.margin)
        scale = whole.max() - whole.min()
        assert scale > 0
        assert (whole - tiled).abs().max() <= 1e-12 * scale
        if geometry.margin > geometry.shrink:
            smaller = _tiled(network, image, geometry, geometry.margin - geometry.stride_factor)
            assert (whole - smaller).abs().max() > 1e-9 * scale


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_counting_and_probing_find_the_same_geometry(
    depth: int, variant: tuple[str, str, str]
) -> None:
    arguments = _arguments(depth, variant)
    torch.manual_seed(0)
    assert probe_geometry(UNet(arguments).eval(), 1, 2**depth) == geometry_of(arguments)


def test_counting_and_probing_agree_on_five_levels() -> None:
    arguments = _arguments(5, ("same", "interpolation", "none"))
    assert probe_geometry(UNet(arguments).eval(), 1, 32) == geometry_of(arguments)


def test_the_paper_network_takes_572_and_gives_388() -> None:
    assert geometry_of(UNetArguments()) == Geometry(572, 388, 92, 16)


def test_the_padded_network_spoils_94_pixels_and_keeps_384() -> None:
    geometry = geometry_of(UNetArguments(padding="same"))
    assert geometry == Geometry(576, 576, 96, 16)
    assert geometry.step == 384


@pytest.mark.parametrize("depth", range(1, 9))
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_every_depth_has_a_tile_that_keeps_something(
    depth: int, variant: tuple[str, str, str]
) -> None:
    geometry = geometry_of(_arguments(depth, variant))
    assert geometry.stride_factor == 2**depth
    assert geometry.step >= 128


def test_the_tile_lies_nearest_the_paper_s() -> None:
    assert choose_tile(0, 10, 16, 0).input == 576
    assert choose_tile(0, 10, 1, 0).input == 572
