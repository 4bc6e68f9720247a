"""What every peer is given: the same network, and how pixels become its input.

Imported by the peers' scripts, each in an environment without tilepipe. The class is tilepipe's
own (two files that need nothing but torch, which they take from `plain_torch`); the weights are
read from tilepipe's model file. Nothing else of tilepipe is loaded, in particular none of the
settings that it makes for torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors import safe_open

MODELS = Path(__file__).parents[2] / "tilepipe" / "models"
TILE, OUTPUT = 572, 388
MARGIN = (TILE - OUTPUT) // 2
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all peers take."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("model", type=Path, help="tilepipe's model file")
    parser.add_argument("image", type=Path, help="a tiled, pyramidal TIFF")
    parser.add_argument("output", type=Path, help="where the label mask goes")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="tiles of one forward pass")
    return parser


def plain_torch() -> types.ModuleType:
    """What the file of the network imports of tilepipe: torch, without tilepipe's settings."""
    module = types.ModuleType("tilepipe._torch")
    module.torch, module.nn, module.Tensor = torch, torch.nn, torch.Tensor
    module.functional = torch.nn.functional
    return module


def loaded(name: str) -> types.ModuleType:
    """A module of tilepipe's models, by itself."""
    spec = importlib.util.spec_from_file_location(f"tilepipe.models.{name}", MODELS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where others, and its own dataclasses, look for it
    spec.loader.exec_module(module)
    return module


class Network(torch.nn.Module):
    """The network with its normalisation: uint8 pixels in, logits out."""

    def __init__(self, path: Path, precision: str) -> None:
        super().__init__()
        sys.modules["tilepipe._torch"] = plain_torch()
        loaded("unet_arguments")
        unet = loaded("unet")
        with safe_open(path, "pt") as file:
            document = json.loads(file.metadata()["tilepipe"])
            names = [name for name in file.keys() if name != "int8.network"]  # noqa: SIM118
            weights = {name: file.get_tensor(name) for name in names}
        self.dtype = DTYPES[precision]
        self.unet = unet.UNet(unet.UNetArguments(**document["network"]["arguments"]))
        self.unet.load_state_dict({name: t.float() for name, t in weights.items()})
        self.unet.eval().to(self.dtype)
        self.classes = document["output"]["classes"]
        given = document["input"]
        self.scale = given["scale"]
        self.register_buffer("mean", torch.tensor(given["mean"]).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(given["std"]).reshape(1, -1, 1, 1))

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, H, W, bands) of uint8 to the network's input, (N, bands, H, W).

        As pixels come from a file, the result lies in memory by pixels ("channels last"), which is
        also what is fastest: nobody has to ask for it.
        """
        x = pixels.permute(0, 3, 1, 2).float()
        return ((x * self.scale - self.mean) / self.std).to(self.dtype)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes, h, w) of uint8 pixels (N, H, W, bands)."""
        return self.unet(self.normalised(pixels))
