"""`tilepipe train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilepipe.errors import InputError

if TYPE_CHECKING:
    from tilepipe.training.options import TrainOptions


def as_numbers(kind: type) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback for numbers with commas between."""

    def parse(_: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            raise InputError(f"{parameter.name} {value}: must be numbers with commas") from None

    return parse


def as_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names with commas between."""
    return None if value is None else tuple(part.strip() for part in value.split(","))


OPTIONS = [
    click.argument("data", nargs=-1),
    click.option("-o", "--output", metavar="PATH", help="Model file to write: NAME.safetensors."),
    click.option("--config", type=click.Path(path_type=Path), help="YAML file of these options."),
    click.option("--mask", "masks", multiple=True, help="Where DATA are images: the mask of each."),
    click.option(
        "--validation", metavar="WHAT",
        help="What to judge by: a share [0.2], another folder or CSV, patterns of names such as "
        "'07_*,08_*', or 0 for nothing.",
    ),
    click.option("--exclude", metavar="PATTERNS", help="Images to leave out: '07_*,08_*'."),
    click.option(
        "--shares", callback=as_numbers(float), metavar="A,B",
        help="Share of the tiles that each DATA gives.",
    ),
    click.option(
        "--labels", type=click.Choice(["auto", "classes", "binary", "instances", "values"]),
        help="What the masks hold [auto]; values are regressed.",
    ),
    click.option(
        "--instances", "labels", flag_value="instances",
        help="The masks number their objects: they become one class.",
    ),
    click.option(
        "--classes", callback=as_names, metavar="NAMES",
        help="Name of each class from label 0 on: background,nucleus=#00a0ff.",
    ),
    click.option(
        "--border", type=float, metavar="PIXELS",
        help="Instances: make gaps between objects up to so wide a class of its own.",
    ),
    click.option("--ignore", callback=as_numbers(int), metavar="LABELS",
        help="Labels of the masks to leave out of loss and scores: 0,255.",
   ),
    click.option("--pixel-size", type=float, metavar="UM", help="Of the images, micrometres."),
    click.option(
        "--preset",
        type=click.Choice(
            ["unet", "unet-small", "unet-padded", "unet-three-level", "unet-regression"]
        ),
        help="The network [unet-small].",
    ),
    click.option("--from", "start_from", metavar="MODEL", help="Go on from a trained model."),
    click.option("--width", type=int, help="Channels of the first level."),
    click.option("--depth", type=int, help="Number of poolings."),
    click.option("--padding", type=click.Choice(["valid", "same"])),
    click.option("--normalisation", type=click.Choice(["none", "batch"])),
    click.option("--upsampling", type=click.Choice(["transposed", "interpolation"])),
    click.option("--dropout", type=float, help="At the end of the contracting path."),
    click.option(
        "--fold", is_flag=True, default=None,
        help="Write the model with its batch normalisation folded into the convolutions.",
    ),
    click.option("--store", type=click.Choice(["float32", "float16"]), help="Weights [float32]."),
    click.option("--tile", type=int, metavar="PIXELS", help="Tile that goes in [572]."),
    click.option("--batch", type=int, help="Tiles a step [2]."),
    click.option(
        "--loss", metavar="NAME[+NAME]",
        help="cross-entropy, bce, dice, tversky, mse, mae; or two of them "
        "[cross-entropy+dice; mse for values].",
    ),
    click.option(
        "--class-weights", metavar="WEIGHTS", help="balanced, none, or a number for each: 1,2."
    ),
    click.option(
        "--border-weight", type=float, metavar="W0",
        help="w0 of the paper's weight map (there 10) [0: none].",
    ),
    click.option("--border-sigma", type=float, metavar="PIXELS", help="Its sigma [5]."),
    click.option(
        "--tversky", callback=as_numbers(float), metavar="FP,FN", help="Its weights [0.3,0.7]."
    ),
    click.option("--flips/--no-flips", default=None),
    click.option("--rotate/--no-rotate", default=None, help="By any angle."),
    click.option("--scale", type=float, help="Enlarge and shrink by up to this factor [1.25]."),
    click.option(
        "--elastic", type=float, metavar="PIXELS",
        help="Elastic deformation: displacements of a 3 x 3 grid [10].",
    ),
    click.option("--brightness", type=float, help="In standard deviations [0.1]."),
    click.option("--contrast", type=float, help="Relative [0.1]."),
    click.option("--hed", type=float, help="Stain jitter for H&E, relative [0]; try 0.25."),
    click.option(
        "--no-augmentation", is_flag=True, help="None of the variations above, unless named."
    ),
    click.option("--optimiser", type=click.Choice(["adamw", "sgd"]), help="[adamw]"),
    click.option("--lr", type=float, help="Peak learning rate [0.001]."),
    click.option("--momentum", type=float, help="Of SGD [0.99]."),
    click.option("--weight-decay", type=float, help="Of AdamW [0.001]."),
    click.option(
        "--schedule", type=click.Choice(["cosine", "one-cycle", "plateau", "constant"]),
        help="Of the learning rate [cosine].",
    ),
    click.option("--warmup", type=float, help="Share of the steps in which it rises [0.05]."),
    click.option("--clip", type=float, help="Largest norm of the gradient [1]; 0: none."),
    click.option("--average", type=float, help="Decay of the averaged weights [0.995]; 0: none."),
    click.option("--steps", type=int, help="Of the whole training [4000]."),
    click.option("--validate-every", type=int, metavar="STEPS", help="Also checkpoints [200]."),
    click.option("--patience", type=int, help="Looks with no better to stop after [0: never]."),
    click.option(
        "--metric",
        type=click.Choice(["dice", "iou", "accuracy", "object-f1", "rmse", "mae", "loss"]),
        help="What better means [dice; rmse for values].",
    ),
    click.option("--keep", type=click.Choice(["best", "last"]), help="Which weights [best]."),
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"])),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"])),
    click.option("--threads", type=int, help="CPU threads of a pass."),
    click.option("--seed", type=int, help="[0]"),
    click.option("--overwrite", is_flag=True, default=None, help="Start anew."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
]  # fmt: skip

PLAIN: dict[str, Any] = {
    "flips": False, "rotate": False, "scale": 1.0, "elastic": 0.0,
    "brightness": 0.0, "contrast": 0.0, "hed": 0.0,
}  # fmt: skip


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command("train")
@_with_options
def command(config: Path | None, quiet: bool, no_augmentation: bool, **given: Any) -> int:
    """Train a network on DATA and write a model file that `run` takes.

    DATA are folders with images/ and masks/ (or labels/) paired by name, or CSV files with the
    columns image and mask (and split and group), or large images with --mask for each. The same
    command goes on where it was stopped.
    """
    options = collect(config, given, plain=no_augmentation)

    from tilepipe.cli.train_screen import TrainScreen, show_trained
    from tilepipe.training.train import TrainCallbacks, train

    watch: TrainCallbacks = TrainCallbacks() if quiet else TrainScreen()
    try:
        summary = train(options, watch)
    except KeyboardInterrupt:
        click.echo(
            "\ntilepipe: interrupted; the same command goes on from here"
            + (", without --overwrite" if options.overwrite else ""),
            err=True,
        )
        return 130
    finally:
        if isinstance(watch, TrainScreen):
            watch.close()
    if not quiet:
        click.echo(show_trained(summary))
    return 0


def collect(config: Path | None, given: dict[str, Any], *, plain: bool = False) -> TrainOptions:
    """The options of a YAML file, with those given as flags winning.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    from tilepipe.cli.options import read_yaml
    from tilepipe.training.options import TrainOptions, train_options

    values: dict[str, Any] = {}
    if config is not None:
        values = train_options(read_yaml(config), str(config))
    if plain:
        values |= PLAIN
    values |= {key: value for key, value in given.items() if value not in (None, ())}
    known = {f.name for f in fields(TrainOptions)}
    assert values.keys() <= known, "options of the command line are fields of TrainOptions"
    if "data" not in values:
        raise InputError("which images? Give a folder with images/ and masks/, or a CSV file")
    if "output" not in values:
        raise InputError("where to? Say -o MODEL.safetensors")
    return TrainOptions(**values)
