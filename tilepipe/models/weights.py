"""The tensors of a network as a model file holds them: numpy arrays by name, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tilepipe._torch import nn

Weights = Mapping[str, NDArray[np.float32]]
"""Arrays by their names in the state dict of the network."""

TRAINING_ONLY = ".num_batches_tracked"
"""Batch normalisation counts its training steps; inference has no use for the count."""


def weights_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The tensors of a network that its file holds; float32 ones on the CPU are shared with it."""
    from tilepipe._torch import torch

    state = network.state_dict()
    return {
        name: tensor.detach().to("cpu", torch.float32).numpy()
        for name, tensor in state.items()
        if not name.endswith(TRAINING_ONLY)
    }


def network_with(weights: Weights, build: Callable[[], nn.Module]) -> nn.Module:
    """A new network, ready for inference, that shares its weights with these arrays."""
    from tilepipe._torch import torch

    network = _skeleton(build)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    for name in network.state_dict():
        if name.endswith(TRAINING_ONLY):
            state[name] = torch.zeros((), dtype=torch.int64)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a new network that its file holds; allocates none."""
    state = _skeleton(build).state_dict()
    return {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith(TRAINING_ONLY)
    }


def _skeleton(build: Callable[[], nn.Module]) -> nn.Module:
    from tilepipe._torch import torch

    with torch.device("meta"):
        return build()
