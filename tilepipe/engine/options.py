"""The options of a run: one declaration for command line, YAML file and Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tilepipe.errors import InputError
from tilepipe.options import Options, option
from tilepipe.products.label_path import label_path
from tilepipe.quantities import (
    parse_area,
    parse_bands,
    parse_bytes,
    parse_duration,
    parse_integer,
    parse_length,
    parse_nodata,
    parse_region,
    parse_rescale,
    parse_series,
    parse_share,
)
from tilepipe.storage import as_path

if TYPE_CHECKING:
    from tilepipe.images.reading import Reading

MOST_THREADS = 1024
"""CPU threads of a pass; more are a typing error, and starting them would keep the machine busy."""

_MOST = 1_000_000
"""Of whatever is counted, and of seconds to wait; more is a typing error."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fastest", "fp32", "bf16", "fp16", "int8", "fp64"]
RuntimeName = Literal["auto", "torch", "compile", "onnxruntime", "openvino"]
Shares = Literal["float16", "uint8"]
StoredShares = Literal["float16", "uint8", "uint8-from-1"]
"""How they are stored; ``uint8`` is that of older masks (see `tilepipe.products.shares`)."""
Ngff = Literal["0.4", "0.5"]
ObjectMethod = Literal["auto", "none", "components", "split", "seeded"]


@dataclass(frozen=True, slots=True)
class RunOptions(Options):
    """The options of `tilepipe run`; whatever is left at its default is decided by the plan."""

    image: str = option(..., "The image: a file, or an OME-Zarr folder")
    model: str = option("nuclei-he", "Model file, or name of a shipped model", short="-m")
    outputs: tuple[str, ...] = option(
        (),
        "Mask to write: .ome.zarr, .ome.tif, .tif (cloud-optimised GeoTIFF) or .png; its objects: "
        ".geojson, .gpkg, .fgb, .parquet or .csv; what lies beside it: NAME.probabilities.tif, "
        "NAME.entropy.ome.tif; or a folder (masks/) for all defaults; may be given several times",
        flag="output", short="-o", metavar="PATH",
        unset="IMAGE_mask in the current folder, in the formats of its field",
    )  # fmt: skip
    level: int | None = option(
        None, "Read this pyramid level without resampling", least=0, most=_MOST,
        unset="the level just above the model's scale, resampled",
    )  # fmt: skip
    pixel_size: float | None = option(
        None, "Pixel size of level 0, in micrometres or with a unit: 0.25, 10m",
        parse=parse_length, metavar="UM", above=0, unset="as stored in the image",
    )  # fmt: skip
    series: int | str | None = option(
        None, "Image to use in a file that holds several; tilepipe info lists them",
        parse=parse_series, metavar="N|NAME", unset="the main one",
    )  # fmt: skip
    bands: tuple[int | str, ...] | None = option(
        None,
        "Bands of the image to use, in this order, by number from 1 or by name: 3,2,1 or red,nir",
        parse=parse_bands, metavar="LIST",
        unset="all; the model's, by name, where both name theirs",
    )  # fmt: skip
    nodata: float | Literal["none"] | None = option(
        None, "Pixel value that means no data, or none", parse=parse_nodata,
        metavar="VALUE|none", unset="as stored in the image", finite=False,
    )  # fmt: skip
    unscale: bool = option(False, "Apply the scale and offset that the image declares")
    rescale: tuple[float, float] | None = option(
        None,
        "Map these pixel values linearly onto the range of the model's integer type (floats: 0 to "
        "1)",
        parse=parse_rescale, metavar="LOW,HIGH",
    )  # fmt: skip
    like_image: bool = option(
        False, "Bring the masks back to the image's own grid, by nearest neighbour"
    )
    tissue: str = option(
        "none",
        "Compute only the tissue of an RGB slide (auto), or what lies inside a mask image or "
        "polygons (PATH)",
        metavar="auto|none|PATH", unset="none: the whole image",
    )  # fmt: skip
    region: tuple[int, int, int, int] | None = option(
        None, "Compute only this rectangle, in pixels of level 0", parse=parse_region,
        metavar="Y,X,HEIGHT,WIDTH",
    )  # fmt: skip
    window: int | Literal["auto"] = option(
        "auto", "Side of the network's input window: auto, or pixels (572 as in the paper)",
        parse=parse_integer, metavar="PIXELS",
    )  # fmt: skip
    memory: int | None = option(
        None, "Memory limit for all processes combined, such as 2GB; with a scheduler, for "
        "each worker",
        parse=parse_bytes, metavar="SIZE", least=1, unset="half of what is free",
    )  # fmt: skip
    device: Device = option("auto", "Device to compute on")
    precision: Precision = option(
        "auto", "Precision of the network: int8 quantises it (CPU only), fastest measures and "
        "chooses on a CPU, fp64 is for proofs",
        unset="fp32 on a CPU, fp16 on CUDA",
    )  # fmt: skip
    max_label_change: float | None = option(
        None, "With --precision int8 or fastest: the share of labels, on tiles of the image, that "
        "may differ from fp32's",
        parse=parse_share, metavar="SHARE", least=0, most=1, unset="5% for int8, 0.5% for fastest",
    )  # fmt: skip
    runtime: RuntimeName = option(
        "auto", "Library that runs the network",
        unset="torch, or an installed one that measures faster",
    )  # fmt: skip
    threads: int | None = option(
        None, "CPU threads per forward pass", least=1, most=MOST_THREADS,
        unset="the cores of each worker",
    )  # fmt: skip
    workers: int | None = option(
        None, "Worker processes on this machine", least=1, most=_MOST, unset="in-process"
    )
    scheduler: str | None = option(
        None, "Address of a running Dask scheduler: tcp://HOST:8786", metavar="ADDRESS"
    )
    cluster: str | None = option(
        None, "YAML file of a Dask cluster to start: SLURM, PBS, SSH or Kubernetes",
        metavar="FILE",
    )  # fmt: skip
    wait: float | None = option(
        None, "How long to wait for the first worker, and again if all are lost: 10min, 2h",
        parse=parse_duration, metavar="TIME", least=0, most=_MOST,
    )  # fmt: skip
    probabilities: Shares | None = option(
        None, "Write the class probabilities too", unset="off; uint8 for -o NAME.probabilities.tif"
    )  # fmt: skip
    uncertainty: Shares | None = option(
        None,
        "Write how undecided the model is about each pixel too: the entropy of the probabilities",
        unset="off; uint8 for -o NAME.entropy.tif",
    )  # fmt: skip
    channels: bool = option(
        False,
        "Write the OME-TIFF with a channel of 0 and 255 for each class, which shows in any viewer",
    )
    ngff: Ngff | None = option(
        None, "OME-Zarr version of the mask: 0.4, in zarr format 2, is for QuPath and OMERO",
        parse=str, unset="0.5",
    )  # fmt: skip
    with_image: bool = option(
        False, "Convert the image too, into the OME-Zarr output, with the mask as its label"
    )
    objects: ObjectMethod = option(
        "auto",
        "How objects of the mask are told apart: connected pixels of a class (components), the "
        "same cut where they are narrow (split), or cores of one class grown into another "
        "(seeded); none makes no objects",
        unset="as the model says, if an output holds objects",
    )  # fmt: skip
    min_area: str | None = option(
        None, "Leave out smaller objects; in pixels of the mask or with a unit: 60, 20um2, 50m2",
        parse=parse_area, metavar="AREA", unset="as the model says",
    )  # fmt: skip
    fill_holes: bool | None = option(
        None, "Fill what one class of objects encloses", unset="as the model says"
    )  # fmt: skip
    products: tuple[str, ...] = option(
        (), "Product of an installed plug-in to write too; may be given several times",
        flag="product", metavar="NAME",
    )  # fmt: skip
    stages: tuple[str, ...] = option(
        (), "Stage of an installed plug-in to run after the exports; may be given several times",
        flag="stage", metavar="NAME",
    )  # fmt: skip
    timeout: float | None = option(
        None, "Stop if no block finishes within this many minutes", metavar="MINUTES", above=0,
        unset="off; warns after 15 min",
    )  # fmt: skip
    retries: int = option(2, "How often to retry a failed block", least=0, most=_MOST)
    allow_mixed: bool = option(
        False, "Allow workers of different devices or versions; labels may then differ at ties"
    )
    overwrite: bool = option(False, "Start over if the output exists")
    verify: int = option(
        0, "Verify N windows once the mask is written", metavar="N", least=0, most=_MOST,
        unset="off",
    )  # fmt: skip
    profile: bool = option(
        False, "Save the timings of every block beside the mask, as CSV and a plot"
    )

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        starters = [name for name in ("cluster", "workers", "scheduler") if getattr(self, name)]
        if len(starters) > 1:
            raise InputError(
                f"{starters[0]} and {starters[1]} exclude each other: a running scheduler has its "
                "own workers, and a cluster file starts its own"
            )
        if self.max_label_change is not None and self.precision not in ("int8", "fastest"):
            raise InputError(
                "max_label_change: bounds what --precision int8 or --precision fastest may change; "
                "give one of them"
            )

    @property
    def reading(self) -> Reading:
        """What to read of the image, and how, as far as the options say."""
        from tilepipe.images.reading import Reading

        return Reading(self.series, self.nodata, self.unscale, self.bands, self.rescale)

    @property
    def on_image_grid(self) -> bool:
        """Whether masks are brought to the image's grid, as labels of the image always are."""
        inside = any(label_path(as_path(output)) is not None for output in self.outputs)
        return self.like_image or self.with_image or inside

    @property
    def timeout_seconds(self) -> float | None:
        """How long the run waits for a block to finish, in seconds; None without a limit."""
        return None if self.timeout is None else 60 * self.timeout

    @property
    def stored_probabilities(self) -> StoredShares | None:
        """The form of probabilities in a new mask; None without any."""
        form = self.probabilities or ("uint8" if "probabilities" in self._implied else None)
        return "uint8-from-1" if form == "uint8" else form

    @property
    def further_products(self) -> tuple[str, ...]:
        """Keys of the products beside the mask other than `stored_probabilities`."""
        form = self.uncertainty or ("uint8" if "entropy" in self._implied else None)
        entropy = () if form is None else (f"entropy:{form}",)
        others = sorted(self._implied - {"probabilities", "entropy"})
        return (*entropy, *self.products, *others)

    @property
    def extras(self) -> tuple[str, ...]:
        """Keys of the products that are written beside the mask."""
        return extra_products(self.stored_probabilities, self.further_products)

    @property
    def _implied(self) -> set[str]:
        """The products that only the name of an output asks for (NAME.entropy.tif)."""
        from tilepipe.products.formats import product_in_name

        named = {key.partition(":")[0] for key in self.products}
        return {name for name in map(product_in_name, self.outputs) if name is not None} - named

    @property
    def uses_external_workers(self) -> bool:
        """Whether the workers are not of this program's own making on this machine."""
        return self.scheduler is not None or self.cluster is not None


def extra_products(probabilities: str | None, others: tuple[str, ...]) -> tuple[str, ...]:
    """Keys of the products beside a mask (see `tilepipe.products.product.product_named`)."""
    return (*([f"probabilities:{probabilities}"] if probabilities else []), *others)


def of_each(images: Sequence[str], options: RunOptions) -> list[RunOptions]:
    """The same options for several images.

    Raises
    ------
    InputError
        For an image that is named twice.
    """
    seen = set()
    for image in images:
        path = image if "://" in image else str(Path(image).resolve())
        if path in seen:
            raise InputError(f"{image} is named twice; name each image once")
        seen.add(path)
    return [replace(options, image=image) for image in images]


def image_stem(path: str) -> str:
    """The name of an image without its suffixes: ``slide`` for ``dir/slide.ome.tif``."""
    name = Path(path.rstrip("/")).name
    return re.sub(
        r"(\.ome)?\.(tiff?|zarr|svs|ndpi|jp2|jpe?g|png|vrt|img|scn|bif|btf)$",
        "",
        name,
        flags=re.IGNORECASE,
    )
