"""Everything a user may say about a run: one schema for command line, YAML file and Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilepipe.errors import InputError
from tilepipe.images.reading import NodataChoice, Reading

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MOST_THREADS = 1024
"""Of a pass; more are a slip of the pen, and would keep the machine busy with starting them."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
RuntimeName = Literal["auto", "torch", "compile", "onnxruntime", "openvino"]
Probabilities = Literal["float16", "uint8"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `tilepipe run`; whatever is left at its default is decided by the plan."""

    image: str
    """The image: a file, or an OME-Zarr folder."""
    model: str = "nuclei-he"
    """A model file, or the name of a shipped model."""
    outputs: tuple[str, ...] = ()
    """Where the mask goes; the suffix says in which format."""
    level: int | None = None
    """Pyramid level to read as it is (default: the one at or just above the model's pixel size,
    resampled to it)."""
    pixel_size: float | None = None
    """Pixel size of the image's level 0 in micrometres, where the file does not say or is wrong."""
    series: int | str | None = None
    """Number or name of the image to take from a file that holds several (default: the main one;
    `tilepipe info` lists them)."""
    bands: tuple[int | str, ...] | None = None
    """Bands of the image that the model gets, in this order: numbers from 1, or names (default:
    all of them, matched by name where image and model name theirs)."""
    nodata: NodataChoice | None = None
    """The value that means "no data", or ``none`` where no value does (default: as the image
    says)."""
    unscale: bool = False
    """Apply the scale and offset that the image declares for its values."""
    rescale: tuple[float, float] | None = None
    """Values of the image (low, high) that are mapped linearly onto the range of the model's type,
    such as 16 bits to 8; values outside are clipped."""
    like_image: bool = False
    """Bring the masks back to the grid of the image's level 0, by nearest neighbour."""
    tissue: str = "none"
    """``auto`` finds the tissue of a slide; or a mask image or GeoJSON polygons: what is outside is
    not computed."""
    region: tuple[int, int, int, int] | None = None
    """Rows and columns of level 0 (y, x, height, width): what is outside is not computed."""
    window: int | Literal["auto"] = "auto"
    """Side of the window that goes through the network."""
    memory: int | None = None
    """Bytes that all processes together may take (default: half of what is free, or most of what a
    container or batch job has left); with a `scheduler`, each worker."""
    device: Device = "auto"
    precision: Precision = "auto"
    """fp32, bf16 or fp16; fp64 is for proofs. Default: fp32 on a CPU, fp16 on CUDA."""
    runtime: RuntimeName = "auto"
    """What computes the passes. Default: torch, or what is installed and measurably faster."""
    threads: int | None = None
    """CPU threads of one forward pass (default: the cores there are for each worker)."""
    workers: int | None = None
    """Worker processes on this machine (default: one worker inside this process)."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, such as ``tcp://host:8786``."""
    cluster: str | None = None
    """A YAML file that says which Dask cluster to start (see
    `tilepipe.engine.cluster.cluster_file`)."""
    wait: float | None = None
    """Seconds to wait for a worker: for the first one, and where all are lost (default: as the
    cluster file says; with a `scheduler`, 0 for the first one, 10 minutes where all are lost)."""
    probabilities: Probabilities | None = None
    """Also write the class probabilities."""
    products: tuple[str, ...] = ()
    """Further products to write beside the mask, by name: those that installed packages add."""
    stages: tuple[str, ...] = ()
    """Further stages to run after the exports, by name: those that installed packages add."""
    overwrite: bool = False
    """Start anew where the output exists."""
    verify: int = 0
    """Windows to verify when the mask is written."""
    retries: int = 2
    """How often a block that failed is tried again."""
    timeout: float | None = None
    """Minutes without any block finished after which the run stops (default: never)."""
    allow_mixed: bool = False
    """Let workers of different devices or versions take part; labels may differ at ties."""
    profile: bool = False
    """Keep the times of every block beside the mask, as a table and a plot."""

    def __post_init__(self) -> None:
        refuse_empty(self)
        for name, least in (
            ("verify", 0),
            ("retries", 0),
            ("wait", 0),
            ("level", 0),
            ("threads", 1),
            ("workers", 1),
        ):
            value = getattr(self, name)
            most = MOST_THREADS if name == "threads" else _MOST
            if value is not None and not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most:,}"
                raise InputError(f"{name} must be {bound}, not {value}")
        if self.workers is not None and self.scheduler is not None:
            raise InputError(
                "workers and scheduler exclude each other: a running scheduler has its own workers"
            )
        if self.memory is not None and self.memory < 1:
            raise InputError(f"memory must be at least 1 byte, not {self.memory}")
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"timeout must be above 0 minutes, not {self.timeout}")
        if self.cluster is not None and (self.workers, self.scheduler) != (None, None):
            other = "workers" if self.scheduler is None else "scheduler"
            raise InputError(
                f"cluster and {other} exclude each other: the cluster file says what is started"
            )
        if self.pixel_size is not None and not 0 < self.pixel_size < float("inf"):
            raise InputError(f"pixel_size must be above 0 micrometres, not {self.pixel_size}")
        if self.region is not None:
            parse_region(self.region)
        if self.bands is not None:
            parse_bands(self.bands)
        if self.rescale is not None:
            parse_rescale(self.rescale)
        if self.nodata is not None:
            parse_nodata(self.nodata)

    @property
    def reading(self) -> Reading:
        """What of the image is read, and how, as far as the options say."""
        return Reading(self.series, self.nodata, self.unscale, self.bands, self.rescale)

    @property
    def extras(self) -> tuple[str, ...]:
        """Keys of the products that are written beside the mask."""
        return extra_products(self.probabilities, self.products)

    @property
    def uses_external_workers(self) -> bool:
        """Whether the workers are not of this program's own making on this machine."""
        return self.scheduler is not None or self.cluster is not None


def extra_products(probabilities: str | None, others: tuple[str, ...]) -> tuple[str, ...]:
    """Keys of the products beside a mask (see `tilepipe.products.product.product_named`)."""
    return (*([f"probabilities:{probabilities}"] if probabilities else []), *others)


def refuse_empty(options: DataclassInstance) -> None:
    """Refuse options that were given, but empty, as a variable of the shell that is not set gives.

    Raises
    ------
    InputError
        Naming the option.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        texts = value if isinstance(value, tuple) else (value,)
        if value != field.default and any(
            isinstance(text, str) and not text.strip() for text in texts
        ):
            raise InputError(f"{field.name}: is empty; give it a value, or leave it out")


def of_each(images: Sequence[str], options: RunOptions) -> list[RunOptions]:
    """The same options for several images.

    Raises
    ------
    InputError
        For an image that is named twice.
    """
    seen = set()
    for image in images:
        place = image if "://" in image else str(Path(image).resolve())
        if place in seen:
            raise InputError(f"{image}: is named twice; name each image once")
        seen.add(place)
    return [replace(options, image=image) for image in images]


def parse_bytes(text: str | int) -> int:
    """Bytes from ``2GB``, ``1.5 GiB``, ``800MB`` or a plain number.

    Raises
    ------
    InputError
        For anything else.
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    try:
        if match is None:
            raise ValueError
        power = " kmgt".index(match[2].lower() or " ")
        return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is no amount of memory; say for example 2GB") from None


def parse_length(text: str | float) -> float:
    """Micrometres from ``0.25``, ``0.25um``, ``250 nm`` or ``10 m``.

    Raises
    ------
    InputError
        For anything else.
    """
    if not isinstance(text, str):
        return float(text)
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(nm|um|µm|μm|mm|cm|m|km|)\s*", text)
    try:
        if match is None:
            raise ValueError
        return float(f"{float(match[1]) * _LENGTHS_UM[match[2]]:.12g}")
    except ValueError:
        raise InputError(
            f"{text!r} is no pixel size; say for example 0.25, which is in micrometres, or 10m"
        ) from None


def parse_region(text: str | Sequence[int]) -> tuple[int, int, int, int]:
    """A rectangle from ``0,0,1000,2000`` or four numbers: y, x, height, width.

    Raises
    ------
    InputError
        For anything else, and for one without pixels.
    """
    way_out = "give Y,X,HEIGHT,WIDTH in pixels of level 0, for example 0,0,1000,2000"
    parts = text.split(",") if isinstance(text, str) else list(text)
    numbers = []
    for part in parts:
        try:
            if isinstance(part, bool | float):
                raise ValueError
            numbers.append(int(part))
        except (TypeError, ValueError):
            raise InputError(
                f"region {text}: {str(part).strip() or 'nothing'!r} is not a whole number of "
                f"pixels; {way_out}"
            ) from None
    if len(numbers) != 4:
        raise InputError(f"region {text}: has {len(numbers)} numbers, not four; {way_out}")
    y, x, height, width = numbers
    if min(y, x) < 0 or min(height, width) < 1:
        raise InputError(
            f"region {y},{x},{height},{width}: must begin within the image and have pixels"
        )
    if max(numbers) > _LARGEST_SIDE:
        raise InputError(
            f"region {y},{x},{height},{width}: no image has more than {_LARGEST_SIDE} rows or "
            "columns; give a rectangle of its pixels"
        )
    return y, x, height, width


def parse_series(text: str | int) -> int | str:
    """A number (from 0) or the name of an image in its file."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"[0-9]+", text) else text


def parse_bands(text: str | Sequence[int | str]) -> tuple[int | str, ...]:
    """Bands from ``3,2,1`` or ``red,nir`` or a list: numbers from 1, or names.

    Raises
    ------
    InputError
        For none, for one below 1, and for what is neither a number nor a name.
    """
    parts = text.split(",") if isinstance(text, str) else text
    bands: list[int | str] = []
    for part in parts:
        band = part.strip() if isinstance(part, str) else part
        if isinstance(band, str) and re.fullmatch(r"[+-]?[0-9]+", band):
            band = int(band)
        if isinstance(band, bool) or not isinstance(band, int | str) or band == "" or (
            isinstance(band, int) and band < 1
        ):  # fmt: skip
            raise InputError(
                f"bands {text}: name each band by its number, counted from 1, or by its name, for "
                "example 3,2,1 or red,green,blue"
            )
        bands.append(band)
    if not bands:
        raise InputError("bands: name at least one band, for example 3,2,1")
    return tuple(bands)


def parse_rescale(text: str | Sequence[float]) -> tuple[float, float]:
    """Two values from ``0,4000`` or a list: what becomes the lowest and the highest of a type.

    Raises
    ------
    InputError
        For anything but two finite numbers, the first below the second.
    """
    parts = text.split(",") if isinstance(text, str) else text
    try:
        if any(isinstance(part, bool) for part in parts):
            raise ValueError
        low, high = (float(part) for part in parts)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"rescale {text}: give LOW,HIGH, two numbers with LOW below HIGH, for example 0,4000"
        ) from None
    return low, high


def parse_nodata(text: str | float) -> NodataChoice:
    """A value from ``0`` or ``-9999`` or ``nan``, or the word ``none``.

    Raises
    ------
    InputError
        For anything else.
    """
    try:
        if isinstance(text, bool):
            raise ValueError
        return "none" if text == "none" else float(text)
    except (TypeError, ValueError):
        raise InputError(
            f"nodata {text}: give the value that means no data, for example 0, or the word none"
        ) from None


def parse_duration(text: str | float) -> float:
    """Seconds from ``90``, ``90s``, ``10 min``, ``2h`` or ``1 day``.

    Raises
    ------
    InputError
        For anything else.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", str(text), re.IGNORECASE)
    try:
        if match is None or isinstance(text, bool):
            raise ValueError
        return float(match[1]) * _DURATIONS_S[match[2].lower()]
    except (ValueError, KeyError):
        raise InputError(f"{text!r} is no time; say for example 90s, 10min or 2h") from None


_LARGEST_SIDE = 2**31 - 1

_MOST = 1_000_000
"""Of whatever is counted or waited for, in seconds: more is a slip of the keyboard."""

_DURATIONS_S = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


_LENGTHS_UM = {
    "": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "km": 1e9,
}  # fmt: skip


def options_from_mapping(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Check the keys and types of a YAML file's options and return them as `RunOptions` takes them.

    Raises
    ------
    InputError
        Naming the key at fault and the file ``where`` it stands.
    """
    return read_mapping(RunOptions, values, where, _typed, {"output": "outputs"})


def read_mapping(
    options: type[DataclassInstance],
    values: Mapping[str, Any],
    where: str,
    typed: Callable[[str, Any, str, str], Any],
    aliases: Mapping[str, str],
) -> dict[str, Any]:
    """The options of a YAML file under the names of a dataclass's fields.

    Parameters
    ----------
    options
        The dataclass.
    values
        As they stand in the file ``where``.
    typed
        Checks and converts one: its name, value, annotation, and the place for complaints.
    aliases
        Names in the file that are not those of the fields.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    known = {field.name: str(field.type) for field in fields(options)}
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        name = aliases.get(name, name)
        if name not in known:
            raise InputError(f"{where}: {key}: no such option; there are {', '.join(known)}")
        result[name] = typed(name, value, known[name], f"{where}: {key}")
    return result


def plain_value(value: Any, kind: str, where: str) -> Any:
    """A value that is of the type that an annotation such as ``int | None`` names first.

    Raises
    ------
    InputError
        Where it is of another.
    """
    parts = kind.split(" | ")
    wanted: tuple[type, ...] = (str,)
    if "bool" in parts:
        wanted = (bool,)
    elif "float" in parts:
        wanted = (str, float, int) if "str" in parts else (float, int)
    elif "int" in parts:
        wanted = (int,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,)):
        names = " or ".join(t.__name__ for t in wanted)
        raise InputError(f"{where}: must be {names}, not {value!r}")
    return value


def _typed(name: str, value: Any, kind: str, where: str) -> Any:
    if name == "outputs":
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
            raise InputError(f"{where}: must be a path or a list of paths, not {value!r}")
        return tuple(values)
    if name == "memory":
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{where}: must be an amount of memory such as 2GB, not {value!r}")
        return parse_bytes(value)
    if name == "pixel_size" and isinstance(value, str):
        return parse_length(value)
    if name == "region":
        if not isinstance(value, str | list | tuple):
            raise InputError(f"{where}: must be four numbers, y, x, height, width, not {value!r}")
        return parse_region(value)
    if name == "wait":
        return parse_duration(value)
    if name == "series" and isinstance(value, str | int) and not isinstance(value, bool):
        return parse_series(value)
    if name in _LISTS:
        if not isinstance(value, str | list | tuple | int | float) or isinstance(value, bool):
            raise InputError(f"{where}: cannot be {value!r}")
        return _LISTS[name](value if isinstance(value, str | list | tuple) else [value])
    if name == "nodata":
        return parse_nodata(value)
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        raise InputError(f"{where}: must be one of {', '.join(choices)}, not {value!r}")
    if name == "window" and value == "auto":
        return value
    return plain_value(value, kind, where)


_LISTS: dict[str, Callable[[Any], Any]] = {"bands": parse_bands, "rescale": parse_rescale}


_CHOICES: dict[str, tuple[str, ...]] = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16", "fp16", "fp64"),
    "probabilities": ("float16", "uint8"),
    "runtime": ("auto", "torch", "compile", "onnxruntime", "openvino"),
}


def image_stem(path: str) -> str:
    """The name of an image without its suffixes: ``slide`` for ``dir/slide.ome.tif``."""
    name = Path(path.rstrip("/")).name
    return re.sub(
        r"(\.ome)?\.(tiff?|zarr|svs|ndpi|jp2|jpe?g|png|vrt|img|scn|bif|btf)$",
        "",
        name,
        flags=re.IGNORECASE,
    )
