"""Everything a user may say about a training: one schema for command line, YAML file and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tilepipe.engine.options import MOST_THREADS, plain_value, read_mapping, refuse_empty
from tilepipe.errors import InputError
from tilepipe.models.unet import PRESETS, UNetArguments, preset

LabelKind = Literal["auto", "classes", "binary", "instances", "values"]
Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "one-cycle", "plateau", "constant"]
Metric = Literal["dice", "iou", "accuracy", "object-f1", "rmse", "mae", "loss"]
Keep = Literal["best", "last"]
TrainPrecision = Literal["auto", "fp32", "bf16", "fp16"]

LOSSES = ("cross-entropy", "bce", "dice", "tversky", "mse", "mae")
"""Losses that `loss` may name; two of them with a ``+`` between are added."""

LOWER_IS_BETTER = ("rmse", "mae", "loss")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of `tilepipe train`."""

    data: tuple[str, ...]
    """Folders with `images/` and `masks/` (or `labels/`), CSV files of pairs, or images."""
    output: str
    """The model file to write, `NAME.safetensors`."""
    masks: tuple[str, ...] = ()
    """Where `data` are images: the mask of each, in the same order."""
    shares: tuple[float, ...] = ()
    """Share of the tiles that each of `data` gives (default: in proportion to its pixels)."""
    validation: str | float = 0.2
    """Share of the images (whole groups, where a CSV names them) to judge by; or another folder or
    CSV; or patterns of names, `07_*,08_*`; or 0 for none."""
    exclude: str = ""
    """Patterns of names to leave out altogether: `07_*,08_*`."""

    preset: str = "unet-small"
    """Name of the network: unet, unet-small, unet-padded, unet-three-level, unet-regression."""
    width: int | None = None
    depth: int | None = None
    padding: str | None = None
    normalisation: str | None = None
    upsampling: str | None = None
    dropout: float | None = None
    start_from: str | None = None
    """A model file, or the name of a shipped model, to go on from (`--from`)."""
    fold: bool = False
    """Fold batch normalisation into the convolutions when the model is written: the same function,
    fewer passes over memory."""
    store: Literal["float32", "float16"] = "float32"
    """How the weights are stored."""

    labels: LabelKind = "auto"
    """What the masks hold: class numbers, 0 and something else, a number for each object, or
    values to regress."""
    classes: tuple[str, ...] = ()
    """Name of each class from label 0 on, or `name=#rrggbb` with its colour."""
    border: float = 0.0
    """Instances only: make what lies between two objects no further apart than this many pixels a
    class of its own."""
    ignore: tuple[int, ...] = ()
    """Labels that say nothing, as 255 does among class numbers."""
    pixel_size: float | None = None
    """Of the training images, micrometres (metres for scenes); default: what the files say."""

    tile: int | None = None
    """Side of the tile that goes in; default: the model's own, 572 for the paper's U-Net."""
    batch: int = 2
    """Tiles a step."""
    loss: str = "cross-entropy+dice"
    """cross-entropy, bce, dice, tversky, mse, mae, or two of them added: cross-entropy+dice."""
    class_weights: str = "balanced"
    """`balanced` (inversely to their frequency), `none`, or a number for each class: `1,2`."""
    border_weight: float = 0.0
    """w0 of the paper's weight map (there 10): how much more narrow gaps between objects count."""
    border_sigma: float = 5.0
    """Sigma of the weight map, pixels."""
    tversky: tuple[float, ...] = (0.3, 0.7)
    """How much false positives and false negatives count in the Tversky loss."""

    flips: bool = True
    rotate: bool = True
    """By any angle."""
    scale: float = 1.25
    """Enlarge and shrink by up to this factor; 1 for none."""
    elastic: float = 10.0
    """Standard deviation of the displacements of a coarse 3 x 3 grid, pixels; 0 for none."""
    brightness: float = 0.1
    """Largest shift, in standard deviations of the band."""
    contrast: float = 0.1
    """Largest relative change."""
    hed: float = 0.0
    """Stain jitter for H&E: largest relative change of each stain, such as 0.25."""

    optimiser: Optimiser = "adamw"
    lr: float | None = None
    """Peak learning rate; default 0.001."""
    momentum: float = 0.99
    """Of SGD, as in the paper."""
    weight_decay: float = 1e-3
    """Of AdamW."""
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    """Share of the steps in which the rate rises (cosine and constant)."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    average: float = 0.995
    """Moving average of the weights, which is what is judged and kept; 0 for none."""
    steps: int = 4000
    """Steps of the whole training."""
    validate_every: int = 200
    """Steps between two looks at the validation images; also between two checkpoints."""
    patience: int = 0
    """Stop after so many looks without a better one; 0: never."""
    metric: Metric | None = None
    """What "better" means; default: dice, or rmse for values."""
    keep: Keep = "best"
    """Which weights become the model: those of the best look, or the last ones."""
    precision: TrainPrecision = "auto"
    """Of the training passes; auto: mixed with bf16 where the device computes in it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """CPU threads of a pass."""
    seed: int = 0
    overwrite: bool = False
    """Start anew where a training or a model of that name exists."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The model's card: source, licence, data, limits ... (YAML only)."""

    def __post_init__(self) -> None:
        refuse_empty(self)
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in kind:
                raise InputError(f"{name} must be one of {', '.join(kind)}, not {value!r}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise InputError(f"{name} must be at least {least:g}, not {value:g}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise InputError(f"{name} must be at most {most:,}, not {value}")
        if not self.data:
            raise InputError("which images? Give a folder with images/ and masks/, or a CSV file")
        if self.masks and len(self.masks) != len(self.data):
            raise InputError(
                f"there are {len(self.data)} images and {len(self.masks)} masks; give one for each"
            )
        if self.shares and (
            len(self.shares) != len(self.data)
            or not all(0 <= share < float("inf") for share in self.shares)
            or not any(self.shares)
        ):
            raise InputError(f"shares: give a number above 0 for each of {len(self.data)} data")
        parts = self.loss.split("+")
        if len(parts) > 2 or any(part not in LOSSES for part in parts):
            raise InputError(
                f"loss {self.loss}: must be one of {', '.join(LOSSES)}, or two with + between"
            )
        if len(self.tversky) != 2 or not all(0 < t < float("inf") for t in self.tversky):
            raise InputError("tversky: give two numbers above 0, of false positives and negatives")
        if not 0 <= self.average < 1 or not 0 <= self.warmup < 1 or not 0 <= self.momentum < 1:
            raise InputError("average, warmup and momentum must lie in [0, 1)")
        if not 1 <= self.scale < float("inf"):
            raise InputError(f"scale must be a factor of at least 1, not {self.scale:g}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise InputError(f"lr must be above 0, not {self.lr:g}")
        if self.pixel_size is not None and not 0 < self.pixel_size < float("inf"):
            raise InputError(f"pixel_size must be above 0, not {self.pixel_size}")

    def arguments(self, bands: int, outputs: int) -> UNetArguments:
        """The network that preset and options ask for.

        Raises
        ------
        InputError
            For an unknown preset, or arguments that make no network.
        """
        changes = {
            name: value
            for name in ("width", "depth", "padding", "normalisation", "upsampling", "dropout")
            if (value := getattr(self, name)) is not None
        }
        try:
            return preset(self.preset, bands=bands, outputs=outputs, **changes)
        except ValueError as error:
            raise InputError(str(error)) from error


_CHOICES: dict[str, tuple[str, ...]] = {
    "preset": tuple(PRESETS),
    "store": ("float32", "float16"),
    "labels": get_args(LabelKind),
    "optimiser": get_args(Optimiser),
    "schedule": get_args(Schedule),
    "metric": get_args(Metric),
    "keep": get_args(Keep),
    "precision": get_args(TrainPrecision),
    "device": ("auto", "cpu", "cuda"),
}
_LEAST: dict[str, float] = {
    "border": 0, "batch": 1, "border_weight": 0, "border_sigma": 0.1, "elastic": 0,
    "brightness": 0, "contrast": 0, "hed": 0, "weight_decay": 0, "clip": 0, "steps": 1,
    "validate_every": 1, "patience": 0, "threads": 1, "seed": 0, "tile": 1,
}  # fmt: skip
_MOST: dict[str, int] = {
    "batch": 4096, "elastic": 1000, "scale": 16, "steps": 10**9, "validate_every": 10**9,
    "patience": 10**9, "threads": MOST_THREADS, "seed": 2**63 - 1,
}  # fmt: skip
"""Beyond any training, and small enough to be computed with."""
_LISTS: dict[str, type] = {
    "data": str,
    "masks": str,
    "classes": str,
    "shares": float,
    "ignore": int,
    "tversky": float,
}


def train_options(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check keys and types of a YAML file's options and return them as `TrainOptions` takes them.

    Raises
    ------
    InputError
        Naming the key at fault and the file ``where`` it stands.
    """
    return read_mapping(TrainOptions, values, where, _typed, {"from": "start_from"})


def _typed(name: str, value: Any, kind: str, where: str) -> Any:
    if name in _LISTS:
        items = list(value) if isinstance(value, list | tuple) else [value]
        of = _LISTS[name]
        wanted: tuple[type, ...] = (int, float) if of is float else (of,)
        if not all(isinstance(i, wanted) and not isinstance(i, bool) for i in items):
            raise InputError(f"{where}: must be a list of {of.__name__} values, not {value!r}")
        return tuple(of(i) for i in items)
    if name == "about":
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: must hold keys and values, not {value!r}")
        return dict(value)
    if name in ("validation", "exclude", "class_weights") and isinstance(value, list):
        value = ",".join(map(str, value))
    if value is None and "None" in kind:
        return value
    return plain_value(value, kind, where)
