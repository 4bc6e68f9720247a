"""The options of a training: one declaration for command line, YAML file and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tilepipe.engine.options import MOST_THREADS, Device
from tilepipe.errors import InputError
from tilepipe.options import Options, option
from tilepipe.quantities import join_parts, numbers, parse_names

if TYPE_CHECKING:
    from tilepipe.models.unet_arguments import UNetArguments

Preset = Literal["unet", "unet-small", "unet-padded", "unet-three-level", "unet-regression"]
LabelKind = Literal["auto", "classes", "binary", "instances", "values"]
Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "one-cycle", "plateau", "constant"]
Metric = Literal["dice", "iou", "accuracy", "object-f1", "rmse", "mae", "loss"]
Keep = Literal["best", "last"]
TrainPrecision = Literal["auto", "fp32", "bf16", "fp16"]

LOSSES = ("cross-entropy", "bce", "dice", "tversky", "mse", "mae")
"""Losses that `loss` may name; two of them with a ``+`` between are added."""

LOWER_IS_BETTER = ("rmse", "mae", "loss")

_MOST = 10**9
"""Of what is counted: beyond any training, and small enough to be computed with."""


@dataclass(frozen=True, slots=True)
class TrainOptions(Options):
    """The options of `tilepipe train`."""

    data: tuple[str, ...] = option(
        ..., "Folders with images/ and masks/ (or labels/), CSV files of pairs, or images"
    )
    output: str = option(..., "Model file to write: NAME.safetensors", short="-o", metavar="PATH")
    masks: tuple[str, ...] = option(
        (), "If DATA are images: the mask of each, in the same order", flag="mask"
    )
    validation: str | float = option(
        0.2,
        "What to validate on: a share of the images (of the groups, where a CSV file names them), "
        "another folder or CSV file, patterns of names such as '07_*,08_*', or 0 for nothing",
        parse=join_parts, metavar="WHAT",
    )  # fmt: skip
    exclude: str = option(
        "", "Images to leave out: '07_*,08_*'", parse=join_parts, metavar="PATTERNS"
    )
    shares: tuple[float, ...] = option(
        (), "Share of the tiles drawn from each DATA", parse=numbers(float), metavar="A,B",
        unset="in proportion to its pixels",
    )  # fmt: skip
    labels: LabelKind = option(
        "auto", "What the masks hold: class numbers, 0 and anything else, a number for each "
        "object, or values to regress",
    )  # fmt: skip
    classes: tuple[str, ...] = option(
        (), "Name of each class, from label 0 on: background,nucleus=#00a0ff", parse=parse_names,
        metavar="NAMES",
    )  # fmt: skip
    border: float = option(
        0.0, "Instances: turn gaps between objects up to this wide into a class of their own",
        metavar="PIXELS", least=0, unset="0: off",
    )  # fmt: skip
    ignore: tuple[int, ...] = option(
        (), "Labels to exclude from loss and scores: 0,255", parse=numbers(int), metavar="LABELS"
    )
    pixel_size: float | None = option(
        None, "Pixel size of the images, in micrometres (metres for scenes)", metavar="UM",
        above=0, unset="as stored in the images",
    )  # fmt: skip
    preset: Preset = option("unet-small", "Network architecture")
    start_from: str | None = option(
        None, "Start from this trained model, a file or a shipped one", flag="from",
        metavar="MODEL",
    )  # fmt: skip
    width: int | None = option(None, "Channels of the first level", unset="as in the preset")
    depth: int | None = option(None, "Number of poolings", unset="as in the preset")
    padding: Literal["valid", "same"] | None = option(
        None, "Padding of the convolutions", unset="as in the preset"
    )
    normalisation: Literal["none", "batch"] | None = option(
        None, "Normalisation after each convolution", unset="as in the preset"
    )
    upsampling: Literal["transposed", "interpolation"] | None = option(
        None, "How the expanding path enlarges", unset="as in the preset"
    )
    dropout: float | None = option(
        None, "Dropout at the end of the contracting path", unset="as in the preset"
    )
    fold: bool = option(False, "Fold batch normalisation into the convolutions of the saved model")
    store: Literal["float32", "float16"] = option("float32", "Type of the stored weights")
    tile: int | None = option(
        None, "Side of the input tile", metavar="PIXELS", least=1, unset="the model's own: 572",
    )  # fmt: skip
    batch: int = option(2, "Tiles per step", least=1, most=4096)
    loss: str = option(
        "cross-entropy+dice",
        "Loss: cross-entropy, bce, dice, tversky, mse, mae, or the sum of two",
        metavar="NAME[+NAME]", unset="cross-entropy+dice; mse for values",
    )  # fmt: skip
    class_weights: str = option(
        "balanced", "Weight of each class in the loss: balanced, none, or numbers: 1,2",
        parse=join_parts, metavar="WEIGHTS",
    )  # fmt: skip
    border_weight: float = option(
        0.0, "Extra weight of narrow gaps between objects (w0 of the paper's weight map, 10 there)",
        metavar="W0", least=0, unset="0: off",
    )  # fmt: skip
    border_sigma: float = option(
        5.0, "Width of the weight map's falloff (sigma)", metavar="PIXELS", least=0.1
    )
    tversky: tuple[float, ...] = option(
        (0.3, 0.7), "Weights of false positives and false negatives in the Tversky loss",
        parse=numbers(float), metavar="FP,FN",
    )  # fmt: skip
    flips: bool = option(True, "Flip tiles at random")
    rotate: bool = option(True, "Rotate tiles by random angles")
    scale: float = option(1.25, "Scale tiles up and down by up to this factor", least=1, most=16)
    elastic: float = option(
        10.0, "Elastic deformation: standard deviation of the displacements of a 3 x 3 grid",
        metavar="PIXELS", least=0, most=1000,
    )  # fmt: skip
    brightness: float = option(
        0.1, "Largest brightness shift, in standard deviations of the band", least=0
    )
    contrast: float = option(0.1, "Largest relative contrast change", least=0)
    hed: float = option(
        0.0, "Stain jitter for H&E, as a relative change; try 0.25", least=0, unset="0: off",
    )  # fmt: skip
    optimiser: Optimiser = option("adamw", "Optimiser")
    lr: float | None = option(None, "Peak learning rate", above=0, unset="0.001")
    momentum: float = option(0.99, "Momentum of SGD", least=0, below=1)
    weight_decay: float = option(1e-3, "Weight decay of AdamW", least=0)
    schedule: Schedule = option("cosine", "Schedule of the learning rate")
    warmup: float = option(
        0.05, "Share of the steps in which the learning rate rises", least=0, below=1
    )
    clip: float = option(1.0, "Clip gradients to this norm; 0 for no clipping", least=0)
    average: float = option(
        0.995, "Decay of the averaged weights, which are validated and saved; 0 for none",
        least=0, below=1,
    )  # fmt: skip
    steps: int = option(4000, "Steps in all", least=1, most=_MOST)
    validate_every: int = option(
        200, "Steps between validations, which also save a checkpoint", metavar="STEPS",
        least=1, most=_MOST,
    )  # fmt: skip
    patience: int = option(
        0, "Stop after this many validations without improvement", least=0, most=_MOST,
        unset="0: never",
    )  # fmt: skip
    metric: Metric | None = option(
        None, "Metric by which weights are compared", unset="dice; rmse for values"
    )
    keep: Keep = option("best", "Which weights to save")
    precision: TrainPrecision = option(
        "auto", "Precision of training", unset="mixed with bf16 where the device computes in it"
    )
    device: Device = option("auto", "Device to train on")
    threads: int | None = option(
        None, "CPU threads per pass", least=1, most=MOST_THREADS, unset="all cores"
    )
    seed: int = option(0, "Seed of all random numbers", least=0, most=2**63 - 1)
    overwrite: bool = option(False, "Start over if a model or training of that name exists")
    about: Mapping[str, Any] = option({}, "The model's card: source, licence, data, limits ...")

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if not self.data:
            raise InputError("which images? Give a folder with images/ and masks/, or a CSV file")
        if self.masks and len(self.masks) != len(self.data):
            raise InputError(
                f"there are {len(self.data)} images and {len(self.masks)} masks; give one for each"
            )
        if self.shares and (
            len(self.shares) != len(self.data) or min(self.shares) < 0 or not any(self.shares)
        ):
            raise InputError(f"shares must be a number above 0 for each of {len(self.data)} data")
        parts = self.loss.split("+")
        if len(parts) > 2 or any(part not in LOSSES for part in parts):
            raise InputError(
                f"loss {self.loss} must be one of {', '.join(LOSSES)}, or two with + between"
            )
        if len(self.tversky) != 2 or min(self.tversky) <= 0:
            raise InputError(
                "tversky must be two numbers above 0, for false positives and false negatives"
            )

    def arguments(self, bands: int, outputs: int) -> UNetArguments:
        """The network that preset and options ask for.

        Raises
        ------
        InputError
            For arguments that make no network.
        """
        from tilepipe.models.unet_arguments import preset

        changes = {
            name: value
            for name in ("width", "depth", "padding", "normalisation", "upsampling", "dropout")
            if (value := getattr(self, name)) is not None
        }
        try:
            return preset(self.preset, bands=bands, outputs=outputs, **changes)
        except ValueError as error:
            raise InputError(str(error)) from error
