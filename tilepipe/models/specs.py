"""A model, and the `input` and `output` of its file: what it expects and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tilepipe.grid import Geometry
from tilepipe.images.base import PixelSize
from tilepipe.models.int8_network import Int8Network
from tilepipe.models.object_rule import ObjectRule
from tilepipe.models.predictors.base import Predictor

Activation = Literal["softmax", "sigmoid", "linear"]

NO_ANSWER = 255
"""The label of pixels without an answer, so there are at most 255 classes."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How pixels become the network's input: ``(x * scale - mean) / std``, per band."""

    bands: int
    dtype: str
    """Numpy's name of the pixel type of the images that the model is for."""
    scale: float
    mean: tuple[float, ...]
    """Mean of each band, after scaling."""
    std: tuple[float, ...]
    """Standard deviation of each band, after scaling."""
    pixel_size: PixelSize | None = None
    """Pixel size of the images that the model is for, square; None where it does not matter."""
    band_names: tuple[str, ...] = ()
    """Names such as ``red``, ``nir``, ``DAPI``; empty where the model gives none."""


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class, or a quantity of a linear model: its name and colour."""

    name: str
    colour: str = "#808080"
    """``#rrggbb``."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How logits become the mask.

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
    """Sigmoid only: for each output of the network, the probability above which it counts. Empty:
    `build_model` makes each 0.5."""
    background: int | None = None
    """Label of the class that is background; 0 for a single sigmoid, None for planes."""
    objects: ObjectRule | None = None
    """How the mask's pixels become objects; None where the model does not say."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Model:
    """A network and everything needed to use it on an image; made by `build_model`."""

    name: str
    predictor: Predictor
    """The network, as planning and runs use it."""
    geometry: Geometry
    """Its tile."""
    input: InputSpec
    output: OutputSpec
    about: dict[str, Any]
    """Source, licence, data, metrics: JSON values."""
    fingerprint: str
    """SHA-256 of document and weights, as hexadecimal digits: equal for a file and its copy."""
    path: str | None = None
    """The file it was loaded from."""
    int8: Int8Network | None = None
    """The quantised network that comes with it."""

    @property
    def arguments(self) -> Any:
        """What distinguishes the network from others of its kind, such as `UNetArguments`."""
        return self.predictor.arguments

    @property
    def network(self) -> Any:
        """The network as a torch module, in evaluation mode, float32, on the CPU."""
        return self.predictor.network
