"""Folding batch normalisation into the convolutions before it."""

from __future__ import annotations

from dataclasses import replace

from tilepipe._torch import nn, torch
from tilepipe.models.unet import DoubleConvolution, UNet


def fold_batch_normalisation(network: UNet) -> UNet:
    """The same function in inference without batch normalisation and dropout.

    In inference a batch normalisation is an affine map of each channel, which the convolution
    before it can carry: equal up to rounding, with fewer passes over memory.
    """
    arguments = replace(network.arguments, normalisation="none", dropout=0.0)
    plain = UNet(arguments).eval()
    plain.head.load_state_dict(network.head.state_dict())
    plain.up.load_state_dict(network.up.state_dict())
    doubles = zip([*network.down, *network.merge], [*plain.down, *plain.merge], strict=True)
    for source, target in doubles:
        assert isinstance(source, DoubleConvolution)
        assert isinstance(target, DoubleConvolution)
        convolutions = [m for m in target if isinstance(m, nn.Conv2d)]
        if network.arguments.normalisation == "none":
            target.load_state_dict(source.state_dict())
            continue
        for i, convolution in enumerate(convolutions):
            given, norm = source[3 * i], source[3 * i + 1]
            assert isinstance(given, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            # In double, so that folding adds no more than one rounding.
            fused = nn.utils.fusion.fuse_conv_bn_weights(
                given.weight.double(), None if given.bias is None else given.bias.double(),
                norm.running_mean.double(), norm.running_var.double(), norm.eps,  # type: ignore[union-attr]
                norm.weight.double(), norm.bias.double(),
            )  # fmt: skip
            with torch.no_grad():
                convolution.weight.copy_(fused[0])
                assert convolution.bias is not None
                convolution.bias.copy_(fused[1])
    return plain
