"""Folding batch normalisation into the convolutions before it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tilepipe.models.unet_arguments import UNetArguments
from tilepipe.models.weights import Weights, network_with, weights_of

if TYPE_CHECKING:
    from tilepipe.models.unet import UNet

EPSILON = 1e-5
"""What batch normalisation adds to a variance."""


def fold_batch_normalisation(network: UNet) -> UNet:
    """The same function in inference, on the CPU; see `folded`."""
    from tilepipe.models.unet import UNet

    arguments, weights = folded(network.arguments, weights_of(network))
    found = network_with(weights, lambda: UNet(arguments))
    assert isinstance(found, UNet)
    return found


def folded(arguments: UNetArguments, weights: Weights) -> tuple[UNetArguments, Weights]:
    """The same function in inference without batch normalisation and dropout.

    In inference a batch normalisation is an affine map of each channel, which the convolution
    before it can carry: equal up to rounding, with fewer passes over memory. Arrays that do not
    change are shared.
    """
    plain = replace(arguments, normalisation="none", dropout=0.0)
    if arguments.normalisation == "none":
        return plain, weights
    found = {name: array for name, array in weights.items() if name.startswith(("up.", "head."))}
    for name in weights:
        norm, variance, _ = name.rpartition(".running_var")
        if variance:
            block, _, place = norm.rpartition(".")
            # Convolution, normalisation, ReLU, convolution ...: without normalisation at 0 and 2.
            target = f"{block}.{0 if place == '1' else 2}"
            fused = _fused(weights, f"{block}.{int(place) - 1}", norm)
            found |= {f"{target}.{kind}": array for kind, array in fused.items()}
    return plain, found


def _fused(weights: Weights, convolution: str, norm: str) -> dict[str, NDArray[np.float32]]:
    """The weight and the bias of a convolution that also normalises."""

    def double(name: str) -> NDArray[np.float64]:
        # In double, so that folding adds no more than one rounding.
        return weights[name].astype(np.float64)

    inverse = 1 / np.sqrt(double(f"{norm}.running_var") + EPSILON)
    scale = double(f"{norm}.weight")
    weight = double(f"{convolution}.weight") * (scale * inverse)[:, None, None, None]
    bias = (double(f"{convolution}.bias") - double(f"{norm}.running_mean")) * inverse * scale
    bias += double(f"{norm}.bias")
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
