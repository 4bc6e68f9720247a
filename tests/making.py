"""What tests share: images and models, whole-image answers computed independently, and damage."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.state.folder import FOLDER
from tilepipe.images.base import PixelSize
from tilepipe.models.file import build_model, load_model, save_model
from tilepipe.models.specs import ClassSpec, InputSpec, Model, OutputSpec
from tilepipe.models.unet import UNet, UNetArguments

COLOURS = ("#000000", "#e6194b", "#3cb44b", "#4363d8", "#f58231")
WINDOW = 552
"""Of the shared model: its outputs are one chunk of 512 a side, and a block."""


def make_image(height: int, width: int, bands: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Blobs and gradients with noise: no two places alike, so that a shift shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    planes = []
    for band in range(bands):
        waves = (
            np.sin(y / (5 + 3 * band) + band) + np.cos(x / (7 + 2 * band)) + np.sin((x + y) / 40)
        )
        planes.append(127 + 30 * waves + rng.normal(0, 12, (height, width)))
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def write_tiff(path: Path, pixels: NDArray[Any], pixel_size_um: float | None = 0.25) -> Path:
    """A tiled, deflated TIFF, its pixel size in centimetres."""
    tags: dict[str, Any] = {}
    if pixel_size_um is not None:
        tags = {"resolution": (1e4 / pixel_size_um,) * 2, "resolutionunit": "CENTIMETER"}
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        compression="zlib",
        photometric="rgb" if bands == 3 else "minisblack",
        metadata=None,
        **tags,
    )
    return path


def make_model(
    arguments: UNetArguments,
    *,
    activation: str = "softmax",
    dtype: str = "uint8",
    pixel_size_um: float | None = 0.25,
    seed: int = 0,
    name: str = "tiny",
) -> Model:
    """Random weights whose answer varies over an image, all classes in it."""
    torch.manual_seed(seed)
    network = UNet(arguments)
    randomise_statistics(network)
    network.eval()
    probe = torch.from_numpy(make_image(256, 256, arguments.bands)).permute(2, 0, 1)[None]
    side = 572 + 16 if arguments.padding == "same" else 572
    wide = torch.nn.functional.interpolate((probe.float() - 127) / 40, (side, side))
    with torch.no_grad():
        # Centred logits: about as much of each class, decided by little.
        logits = network(wide)
        assert network.head.bias is not None
        network.head.bias -= logits.mean((0, 2, 3))
    outputs = arguments.outputs
    single = activation == "sigmoid" and outputs == 1
    names = ["background", "nucleus", "border", "stroma", "other"][: 2 if single else outputs]
    labelled = activation == "softmax" or single
    return build_model(
        network,
        InputSpec(
            bands=arguments.bands,
            dtype=dtype,
            scale=1.0,
            mean=(127.0,) * arguments.bands,
            std=(40.0,) * arguments.bands,
            pixel_size=(
                None
                if pixel_size_um is None
                else PixelSize(pixel_size_um, pixel_size_um, "micrometer")
            ),
        ),
        OutputSpec(
            activation=activation,  # type: ignore[arg-type]
            classes=tuple(ClassSpec(n, c) for n, c in zip(names, COLOURS, strict=False)),
            background=0 if labelled else None,
        ),
        name=name,
    )


def randomise_statistics(network: torch.nn.Module) -> None:
    """Batch normalisation as after training: means and variances that are not 0 and 1."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def save_tiny(path: Path, arguments: UNetArguments, **options: Any) -> Model:
    """A model file; returns the model as loaded from it."""
    save_model(path, make_model(arguments, **options))
    return load_model(path)


def whole_image_logits(
    model: Model, pixels: NDArray[Any], dtype: torch.dtype = torch.float64
) -> NDArray[np.float64]:
    """The logits of a single pass over the mirror-padded image, (outputs, height, width).

    Shares no code with the grid: numpy pads, the network runs once, the centre is cut out.
    """
    height, width = pixels.shape[:2]
    depth = model.arguments.depth
    factor = 2**depth
    if model.arguments.padding == "valid":
        # Each 3x3 takes a pixel off each edge, at the resolution of its level.
        before = sum(2 * 2**level for level in range(depth)) * 2 + 2 * 2**depth
        if model.arguments.upsampling == "interpolation":
            before += 16 * factor
        crop = 16 * factor if model.arguments.upsampling == "interpolation" else 0
    else:
        before = crop = 16 * factor
    size = [before + n + before + factor for n in (height, width)]
    if model.arguments.padding == "valid":
        # Sides that halve evenly all the way down: from the bottom up, twice and two convolutions.
        base = factor
        for _ in range(depth):
            base = 2 * base + 4
        size = [n + (base - n) % factor for n in size]
    else:
        size = [n + -n % factor for n in size]
    pad = [(before, s - n - before) for s, n in zip(size, (height, width), strict=True)]
    padded = np.pad(pixels, (*pad, (0, 0)), mode="reflect")
    spec = model.input
    x = torch.from_numpy(padded.astype(np.float64)).permute(2, 0, 1)[None]
    mean = torch.tensor(spec.mean, dtype=torch.float64).reshape(1, -1, 1, 1)
    std = torch.tensor(spec.std, dtype=torch.float64).reshape(1, -1, 1, 1)
    x = ((x * spec.scale - mean) / std).to(dtype)
    network = UNet(model.arguments).eval()
    network.load_state_dict(model.network.state_dict())
    with torch.inference_mode():
        logits = network.to(dtype)(x)[0].double().numpy()
    return np.asarray(logits[:, crop : crop + height, crop : crop + width])


def digest(folder: Path) -> dict[str, str]:
    """The bytes of mask, pyramid and exports, without ledger and run record."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and FOLDER not in path.parts and not path.name.endswith(".run.json")
    }


def zero_tiles(path: Path, numbers: list[int]) -> None:
    """Overwrite compressed tiles of a TIFF's level 0 with zeros, which no codec decodes."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        places = [(page.dataoffsets[n], page.databytecounts[n]) for n in numbers]
    content = bytearray(path.read_bytes())
    for offset, count in places:
        content[offset : offset + count] = bytes(count)
    path.write_bytes(content)


class KillAfter(RunCallbacks):
    """Ends the process as `kill -9` does, after some blocks or at a stage."""

    def __init__(self, blocks: int | None = None, stage: str | None = None) -> None:
        self.left, self.at = blocks, stage

    def block(self, receipt: object) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def stage(self, name: str) -> None:
        if self.at is not None and self.at in name:
            os.kill(os.getpid(), signal.SIGKILL)
