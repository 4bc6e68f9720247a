"""A kind of network as another package would add it: one convolution, run by torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tilepipe.grid import Geometry
from tilepipe.models.geometry import choose_tile
from tilepipe.models.predictors.base import Predictor


@dataclass(frozen=True)
class ToyArguments:
    """Bands, outputs, and how far an output sees."""

    kind: ClassVar[str] = "toy"

    bands: int
    outputs: int
    reach: int

    def __post_init__(self) -> None:
        if self.reach > 4:
            raise ValueError(f"reach must be at most 4, not {self.reach}")


class ToyNetwork(nn.Module):
    """An unpadded convolution."""

    def __init__(self, arguments: ToyArguments) -> None:
        super().__init__()
        self.arguments = arguments
        self.sum = nn.Conv2d(arguments.bands, arguments.outputs, 2 * arguments.reach + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.sum(x)
        return logits


class ToyPredictor(Predictor):
    """The seam: what to build, what it needs of its surroundings, and what it is called."""

    arguments_type = ToyArguments

    @classmethod
    def build(cls, arguments: ToyArguments) -> nn.Module:
        return ToyNetwork(arguments)

    @classmethod
    def geometry(cls, arguments: ToyArguments) -> Geometry:
        return choose_tile(arguments.reach, arguments.reach, 8, 0)

    def describe(self) -> str:
        return "a toy"


def toy_network(bands: int = 3, outputs: int = 3) -> ToyNetwork:
    """Random weights; each class as likely as another."""
    torch.manual_seed(0)
    network = ToyNetwork(ToyArguments(bands, outputs, reach=2))
    with torch.no_grad():
        assert network.sum.bias is not None
        network.sum.bias.zero_()
    return network
