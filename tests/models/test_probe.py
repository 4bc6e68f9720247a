"""Networks that cannot be tiled exactly are refused, and the layer at fault is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.models.probe import probe_geometry
from tilepipe.models.unet import UNet, UNetArguments


class _SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.excite = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(x.mean(dim=(2, 3), keepdim=True)))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(x, 8)
        tokens = small.flatten(2).transpose(1, 2)
        tokens = self.attend(tokens, tokens, tokens, need_weights=False)[0]
        small = tokens.transpose(1, 2).reshape(small.shape)
        return x + nn.functional.interpolate(small, scale_factor=8, mode="nearest")


class _SpatialLayerNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[1:])


class _Net(nn.Module):
    """Something local, then the layer in question."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), layer)
        self.rise = nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rise(self.body(torch.relu(self.stem(x))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: nn.InstanceNorm2d(4), "InstanceNorm2d"),
        (lambda: nn.GroupNorm(2, 4), "GroupNorm"),
        (_SpatialLayerNorm, "_SpatialLayerNorm"),
        (_SqueezeExcitation, "_SqueezeExcitation"),
        (lambda: nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d"),
        (_Attention, "MultiheadAttention|_Attention"),
        (
            lambda: nn.Sequential(
                nn.MaxPool2d(2),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            ),
            r"Upsample",
        ),
    ],
)
def test_a_layer_that_sees_the_whole_tile_is_named(
    layer: Callable[[], nn.Module], named: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match=rf"cannot be tiled exactly: body\.2.*({named})"):
        probe_geometry(_Net(layer()).eval(), 1, 8)


def test_batch_normalisation_left_in_training_mode_is_named() -> None:
    network = UNet(UNetArguments(width=1, normalisation="batch", depth=1))
    with pytest.raises(InputError, match=r"down\.0\.1 \(BatchNorm2d\) is in training mode"):
        probe_geometry(network, 3, 2)


def test_a_normalisation_over_channels_alone_is_local() -> None:
    class ChannelNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / (1 + x.norm(dim=1, keepdim=True))

    torch.manual_seed(0)
    assert probe_geometry(_Net(ChannelNorm()).eval(), 1, 2).stride_factor == 2


def test_a_dilated_convolution_counts_with_its_whole_reach() -> None:
    network = nn.Conv2d(1, 1, 3, padding=100, dilation=100)
    assert probe_geometry(network.eval(), 1, 1) == Geometry(572, 572, 100, 1)


def test_a_stride_factor_given_too_small_is_refused() -> None:
    torch.manual_seed(0)
    network = UNet(UNetArguments(bands=1, width=2, depth=3, padding="same")).eval()
    with pytest.raises(InputError, match="stride factor"):
        probe_geometry(network, 1, 4)


def test_a_tile_off_the_phase_is_refused_with_the_ones_that_fit() -> None:
    network = UNet(UNetArguments(bands=1, width=1, depth=2)).eval()
    with pytest.raises(InputError, match="use 572 or 576"):
        probe_geometry(network, 1, 4, tile_input=574)


def test_a_tile_may_be_chosen() -> None:
    network = UNet(UNetArguments(bands=1, width=1, depth=2)).eval()
    assert probe_geometry(network, 1, 4, tile_input=256) == Geometry(256, 216, 20, 4)


def test_an_output_of_another_resolution_is_refused() -> None:
    with pytest.raises(InputError, match="resolution of its input"):
        probe_geometry(nn.Conv2d(1, 1, 2, stride=2).eval(), 1, 2)


def test_wrong_bands_are_refused() -> None:
    with pytest.raises(InputError, match="does not take an input"):
        probe_geometry(nn.Conv2d(3, 1, 3).eval(), 1, 1)


def test_the_network_is_left_as_it_was() -> None:
    network = UNet(UNetArguments(bands=1, width=1, depth=1, normalisation="batch")).double().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    probe_geometry(network, 1, 2)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
