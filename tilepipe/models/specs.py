"""What a model expects and what it answers: the `input` and `output` of a model file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tilepipe._torch import nn
from tilepipe.grid import Geometry
from tilepipe.images.base import PixelSize
from tilepipe.models.unet import UNetArguments

Activation = Literal["softmax", "sigmoid", "linear"]
Layout = Literal["NCHW", "NHWC"]
Gives = Literal["logits", "probabilities"]

NO_ANSWER = 255
"""The label that is no class, so there are at most 255 of them."""


@dataclass(frozen=True, slots=True)
class OnnxArguments:
    """How an ONNX network is used; the `arguments` of a model file that holds one."""

    bands: int
    """Input channels."""
    outputs: int
    """Output channels."""
    layout: Layout = "NCHW"
    """Order of its axes, of input and output alike: batch, channels, height, width."""
    gives: Gives = "logits"
    """``probabilities``: its last layer is the softmax or sigmoid of `output.activation`."""

    @property
    def spatial_axes(self) -> tuple[int, int]:
        """Those of height and width."""
        return (2, 3) if self.layout == "NCHW" else (1, 2)

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Of one window, as the network takes it."""
        if self.layout == "NCHW":
            return 1, self.bands, height, width
        return 1, height, width, self.bands

    def as_dict(self) -> dict[str, Any]:
        """The arguments as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How pixels become the network's input: ``(x * scale - mean) / std``, per band."""

    bands: int
    dtype: str
    """Numpy's name of the pixel type that the model was made for."""
    scale: float
    mean: tuple[float, ...]
    """One for each band, after scaling."""
    std: tuple[float, ...]
    """One for each band, after scaling."""
    pixel_size: PixelSize | None = None
    """Of the images that the model was trained on; square. None where it does not matter."""
    band_names: tuple[str, ...] = ()
    """What each band is: ``red``, ``nir``, ``DAPI``; empty where the model does not say."""


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class, or for linear models a quantity."""

    name: str
    colour: str = "#808080"
    """``#rrggbb``."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How logits become an answer.

    ======== ================= ==================================================
    softmax  outputs = classes label = the class of the largest logit
    sigmoid  outputs = 1       two classes, background and foreground: labels 0, 1
    sigmoid  outputs = classes two classes or more, one plane of 0 / 1 for each
    linear   outputs = classes the values themselves, one plane for each
    ======== ================= ==================================================
    """

    activation: Activation
    classes: tuple[ClassSpec, ...]
    thresholds: tuple[float, ...] = ()
    """Sigmoid only: the probability from which on an output counts, for each output of the
    network. Left empty, `build_model` makes each 0.5."""
    background: int | None = None
    """Label of the class that is background; 0 for a single sigmoid, None for planes."""


@dataclass(frozen=True, slots=True)
class Model:
    """A network and everything needed to use it on an image; made by `build_model`."""

    name: str
    arguments: UNetArguments | OnnxArguments
    network: nn.Module
    """In evaluation mode, float32, on the CPU, its parameters without gradients."""
    geometry: Geometry
    input: InputSpec
    output: OutputSpec
    about: dict[str, Any]
    """Source, licence, data, metrics: JSON values."""
    fingerprint: str
    """SHA-256 of document and weights, as hexadecimal digits: equal for a file and its copy."""
    path: str | None = None
    """The file it was loaded from."""
    inexact: str | None = None
    """Why its answer depends on where tiles lie, where it does: such a model is used with its own
    tile only, and never called exact."""
    fixed: bool = False
    """Whether its tile is the only window it is used with."""

    @property
    def weights(self) -> int:
        """Number of weights."""
        onnx = getattr(self.network, "graph", None)
        return onnx.weights if onnx else sum(p.numel() for p in self.network.parameters())
