"""The options that `run` and `plan` share, and the YAML file they may stand in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tilepipe.engine.options import (
    RunOptions,
    of_each,
    options_from_mapping,
    parse_bands,
    parse_bytes,
    parse_duration,
    parse_length,
    parse_nodata,
    parse_region,
    parse_rescale,
    parse_series,
)
from tilepipe.errors import InputError
from tilepipe.storage import local_file


def as_bytes(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """An amount of memory, such as ``2GB``, as bytes."""
    return None if value is None else parse_bytes(value)


def as_length(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A pixel size, such as ``0.25`` or ``10m``, as micrometres."""
    return None if value is None else parse_length(value)


def as_region(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[int, int, int, int] | None:
    """``Y,X,HEIGHT,WIDTH`` as numbers."""
    return None if value is None else parse_region(value)


def as_duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A time, such as ``10min``, as seconds."""
    return None if value is None else parse_duration(value)


def as_bands(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """``3,2,1`` or ``red,nir`` as numbers and names."""
    return None if value is None else parse_bands(value)


def as_rescale(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """``LOW,HIGH`` as numbers."""
    return None if value is None else parse_rescale(value)


def as_nodata(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """A number, or ``none``."""
    return None if value is None else parse_nodata(value)


def as_series(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """A number, or a name."""
    return None if value is None else parse_series(value)


def as_window(_: click.Context, __: click.Parameter, value: str | None) -> int | str | None:
    """``auto`` or a number of pixels."""
    if value is None or value == "auto":
        return value
    try:
        return int(value)
    except ValueError:
        raise InputError(f"window {value}: is neither auto nor a number of pixels") from None


series_option = click.option(
    "--series", metavar="N|NAME", callback=as_series,
    help="Image to take from a file that holds several; tilepipe info lists them [the main one].",
)  # fmt: skip

READING_OPTIONS = [
    series_option,
    click.option(
        "--bands", metavar="LIST", callback=as_bands,
        help="Bands to take of the image, in this order, by number from 1 or by name: 3,2,1 or "
        "red,nir [all; those of the model, by name, where both name theirs].",
    ),
    click.option(
        "--nodata", metavar="VALUE|none", callback=as_nodata,
        help="Value that means no data, or none [what the image says].",
    ),
    click.option(
        "--unscale", is_flag=True, default=None,
        help="Apply the scale and offset that the image declares.",
    ),
    click.option(
        "--rescale", metavar="LOW,HIGH", callback=as_rescale,
        help="Map these values of the image linearly onto the range of the model's integer type "
        "(floats: 0 to 1).",
    ),
]  # fmt: skip
"""What of an image is read, and how; see `tilepipe.images.reading.Reading`."""

OPTIONS = [
    click.option("-m", "--model", help="Model file, or name of a shipped model [nuclei-he]."),
    click.option(
        "-o", "--output", "outputs", multiple=True, metavar="PATH",
        help="Mask to write: .ome.zarr, .ome.tif, .tif (cloud-optimised GeoTIFF) or .png, or a "
        "folder (masks/); may be given several times. Default: IMAGE_mask in the current folder, "
        "in the formats of its field.",
    ),
    click.option("--config", type=click.Path(path_type=Path), help="YAML file of these options."),
    click.option(
        "--level", type=int,
        help="Pyramid level to read as it is [the one just above the model's scale, resampled].",
    ),
    click.option(
        "--pixel-size", metavar="UM", callback=as_length,
        help="Of level 0, in micrometres or with a unit: 0.25, 10m [what the image says].",
    ),
    *READING_OPTIONS,
    click.option(
        "--like-image", is_flag=True, default=None,
        help="Bring the masks back to the image's own grid, by nearest neighbour.",
    ),
    click.option(
        "--tissue", metavar="auto|none|PATH",
        help="Compute tissue only: found on an RGB slide (auto), or what is inside a mask image or "
        "GeoJSON polygons (PATH) [none: all of the image].",
    ),
    click.option(
        "--region", metavar="Y,X,HEIGHT,WIDTH", callback=as_region,
        help="Compute this rectangle only, in pixels of level 0.",
    ),
    click.option(
        "--window", metavar="PIXELS", callback=as_window,
        help="Side of the window through the network: auto, or pixels (572: the paper's tile).",
    ),
    click.option(
        "--memory", metavar="SIZE", callback=as_bytes,
        help="What all processes together may take, such as 2GB [half of what is free].",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"])),
    click.option(
        "--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16", "fp64"]),
        help="Of the network [fp32 on a CPU, fp16 on CUDA].",
    ),
    click.option(
        "--runtime", type=click.Choice(["auto", "torch", "compile", "onnxruntime", "openvino"]),
        help="What computes the passes [torch, or what is installed and measurably faster].",
    ),
    click.option("--threads", type=int, help="CPU threads of one forward pass."),
    click.option("--workers", type=int, help="Worker processes on this machine [in-process]."),
    click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler: tcp://HOST:8786."),
    click.option(
        "--cluster", metavar="FILE",
        help="YAML file of a Dask cluster to start: SLURM, PBS, SSH, Kubernetes ...",
    ),
    click.option(
        "--wait", metavar="TIME", callback=as_duration,
        help="How long to wait for workers, the first one and where all are lost: 10min, 2h.",
    ),
    click.option(
        "--probabilities", type=click.Choice(["float16", "uint8"]),
        help="Write the class probabilities too.",
    ),
    click.option(
        "--timeout", type=float, metavar="MINUTES",
        help="Stop when no block was finished for so long [never; from 15 minutes on it is said].",
    ),
    click.option("--retries", type=int, help="How often a failed block is tried again [2]."),
    click.option(
        "--allow-mixed", is_flag=True, default=None,
        help="Let workers of different kinds take part; labels may then differ at ties.",
    ),
]  # fmt: skip


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a `Reading` to a command."""
    for option in reversed(READING_OPTIONS):
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def collect(config: Path | None, given: dict[str, Any]) -> RunOptions:
    """The options of a YAML file, with those given as flags winning.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    return collect_several(config, (), given)[0]


def collect_several(
    config: Path | None, images: Sequence[str], given: dict[str, Any]
) -> list[RunOptions]:
    """The options of each image, those of a YAML file with those given as flags winning.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    document = read_yaml(config) if config is not None else {}
    listed = document.pop("images", None)
    if listed is not None and not (
        isinstance(listed, list) and listed and all(isinstance(image, str) for image in listed)
    ):
        raise InputError(f"{config}: images: must be a list of paths, not {listed!r}")
    values = options_from_mapping(document, str(config))
    values |= {key: value for key, value in given.items() if value not in (None, ())}
    named = list(images) or listed or ([values["image"]] if "image" in values else [])
    if not named:
        raise InputError("which image? Give its path: tilepipe run slide.svs")
    values["image"] = named[0]
    options = RunOptions(**values)
    return of_each(named, options)


def read_yaml(path: Path) -> dict[str, Any]:
    """The options that stand in a YAML file, unchecked.

    Raises
    ------
    InputError
        Where it cannot be read, or holds no options.
    """
    import yaml

    try:
        document = yaml.safe_load(local_file(str(path), "a YAML file").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, AttributeError, LookupError, TypeError,
            RecursionError) as error:  # fmt: skip
        # What is no YAML, and what is but says nothing: a thirteenth month, a key that is a list.
        line = " ".join(str(error).split())
        raise InputError(f"{path}: is no YAML: {line}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: must hold options, one `name: value` a line")
    return document
