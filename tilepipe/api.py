"""Functions of the package whose keyword options are those of the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import cleandoc
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tilepipe.engine.options import RunOptions, of_each
from tilepipe.errors import InputError
from tilepipe.evaluation.options import EvaluateOptions
from tilepipe.objects.options import ObjectsOptions
from tilepipe.options import Options, help_text, signature
from tilepipe.training.options import TrainOptions

if TYPE_CHECKING:
    from tilepipe.engine.events import RunCallbacks
    from tilepipe.engine.plan.plan import Plan
    from tilepipe.engine.report.record import Summary
    from tilepipe.engine.resources import Estimate
    from tilepipe.engine.run.batch import BatchCallbacks, BatchSummary
    from tilepipe.engine.run.convert import InputKind
    from tilepipe.engine.run.find_objects import Found
    from tilepipe.engine.run.quantise import Quantised
    from tilepipe.evaluation.results import Evaluation
    from tilepipe.evaluation.scan import OnProgress as OnPairProgress
    from tilepipe.images.base import Image
    from tilepipe.images.reading import Reading
    from tilepipe.products.rewrite import Progress as OnProgress
    from tilepipe.storage import StoragePath
    from tilepipe.training.train import TrainCallbacks, TrainSummary
    from tilepipe.validation.result import Validation

F = TypeVar("F", bound=Callable[..., Any])


def _with_options(kind: type[Options], *positional: str) -> Callable[[F], F]:
    """Describe the ``**options`` of a function: its signature and docstring list them."""

    def described(function: F) -> F:
        function.__signature__ = signature(function, kind, *positional)  # type: ignore[attr-defined]
        function.__doc__ = f"{cleandoc(function.__doc__ or '')}\n\n{help_text(kind, *positional)}\n"
        return function

    return described


@_with_options(RunOptions, "image")
def run(image: str | Path, *, watch: RunCallbacks | None = None, **options: Any) -> Summary:
    """Segment an image, or resume an earlier run with the same options.

    Parameters
    ----------
    image
        A file, or an OME-Zarr folder.
    watch
        Receives the plan, each block and each stage of the run.
    **options
        See below; quantities may be text, such as ``memory="2GB"``.

    Returns
    -------
    Summary
        Classes with their share and area, timings, peak memory, blocks that could not be read.

    Raises
    ------
    InputError
        When image, model, options or an existing output are at fault.
    EnvironmentFailure
        When the machine stopped the run; calling it again resumes it.
    """
    from tilepipe.engine.run.run import run as start

    return start(_run_options(image, options), watch)


@_with_options(RunOptions, "image")
def run_batch(
    images: Sequence[str | Path], *, watch: BatchCallbacks | None = None, **options: Any
) -> BatchSummary:
    """Segment many images in one run; one that fails does not stop the others.

    Parameters
    ----------
    images
        Files, or OME-Zarr folders; no two of the same name. Finished ones are skipped.
    watch
        Receives each image, and its blocks.
    **options
        See below. ``outputs`` names a folder (``"masks/"``), or has ``{name}`` in it.

    Returns
    -------
    BatchSummary
        The outcome of each image, in the order given.

    Raises
    ------
    InputError
        When options or model are at fault, or the outputs of two images are the same.
    EnvironmentFailure
        When the machine stopped the batch; calling it again resumes it.
    """
    from tilepipe.engine.run.batch import run_batch as start

    named = [fspath(image) for image in images]
    if not named:
        raise InputError("no images to segment; give at least one")
    return start(of_each(named, _run_options(named[0], options)), watch)


@_with_options(RunOptions, "image")
def plan(image: str | Path, **options: Any) -> tuple[Plan, Estimate]:
    """Show what `run` would do with the same options, and what it would cost; writes nothing.

    Raises
    ------
    InputError
        For everything about image, model or options that `run` would refuse.
    """
    from tilepipe.engine.planning.planning import make_plan

    return make_plan(_run_options(image, options))


@_with_options(ObjectsOptions, "mask")
def find_objects(
    mask: str | Path, *, watch: Callable[[str], None] | None = None, **options: Any
) -> Found:
    """Make the objects of a mask, and files of them, or go on where an earlier call was stopped.

    Parameters
    ----------
    mask
        A mask by tilepipe or another program, in any format.
    watch
        Called with what begins, in words.
    **options
        See below; areas and lengths may be text, such as ``min_area="20um2"``.

    Returns
    -------
    Found
        The files, and the objects in numbers: counts, densities, sizes.

    Raises
    ------
    InputError
        When the mask, the options or an existing output are at fault.
    EnvironmentFailure
        When the machine stopped it; calling it again goes on.
    """
    from tilepipe.engine.run.find_objects import find_objects as start

    given = ObjectsOptions.parse({**_given(options), "mask": mask})
    return start(given, watch or (lambda _step: None))


@_with_options(TrainOptions, "data", "output")
def train(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    watch: TrainCallbacks | None = None,
    **options: Any,
) -> TrainSummary:
    """Train a network and write its model file, or resume the same training.

    Parameters
    ----------
    data
        Folders with ``images/`` and ``masks/``, CSV files of pairs, or images (with ``masks``).
    output
        The model file, ``NAME.safetensors``.
    watch
        Called after each step and each validation.
    **options
        See below.

    Returns
    -------
    TrainSummary
        The model's path, the scores of the weights that were kept, the folder of log and pictures.

    Raises
    ------
    InputError
        When images, masks or options are at fault, or the loss became NaN or infinite.
    EnvironmentFailure
        When memory or disk are exhausted.
    """
    from tilepipe.training.train import train as start

    return start(TrainOptions.parse({**_given(options), "data": data, "output": output}), watch)


def quantise(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Quantised:
    """Write a model file with an int8 network in it, for ``run(..., precision="int8")``.

    The file keeps its weights, and runs in other precisions are as before. Two thirds of the tiles
    taken of the images, about 16 in all and at least two of each image, calibrate the network; the
    labels of the others are compared with fp32's.

    Parameters
    ----------
    model
        A model file with a U-Net, or the name of a shipped model.
    images
        Images like those that the model is for; the more kinds, the better.
    output
        The model file to write, ``NAME.safetensors``.
    overwrite
        Replace what is at the output, which may be the model itself.
    progress
        Called with what begins, in words.
    **options
        How images are read, as for `run`: ``level``, ``pixel_size``, ``series``, ``bands``,
        ``nodata``, ``unscale``, ``rescale``.

    Returns
    -------
    Quantised
        The file, the model, and how far its labels in int8 are from fp32's.

    Raises
    ------
    InputError
        When the model cannot be quantised, an image does not suit it, the output exists, or NNCF is
        not installed.
    """
    from tilepipe.engine.run.quantise import quantise as start

    several = [images] if isinstance(images, str | Path) else list(images)
    return start(
        model, several, output, overwrite=overwrite, progress=progress or (lambda _step: None),
        options=_given(options),
    )  # fmt: skip


@_with_options(EvaluateOptions, "mask", "truth")
def evaluate(
    mask: str | Path,
    truth: str | Path | None = None,
    *,
    progress: OnPairProgress | None = None,
    **options: Any,
) -> Evaluation:
    """Compare masks with truths: Dice, IoU and more of each class, and of objects if asked for.

    Parameters
    ----------
    mask, truth
        Two files; two folders, whose files pair by their names; or a CSV file with the columns
        ``mask`` and ``truth``, and no ``truth``.
    progress
        Called with the name of a pair, the number of pixels done, and how many there are.
    **options
        See below; ``memory`` may be text, such as ``"2GB"``.

    Returns
    -------
    Evaluation
        Counts and scores of each image, of all pixels together, and of images on average.

    Raises
    ------
    InputError
        A file is missing or has no partner, grids differ, or labels have no meaning.
    """
    from tilepipe.evaluation.evaluate import evaluate as start

    given = _given({**options, "mask": mask, "truth": truth})
    return start(EvaluateOptions.parse(given), progress)


def convert(
    source: Image | str | Path,
    target: str | StoragePath,
    *,
    kind: InputKind = "auto",
    classes: str | Path | None = None,
    model: str | None = None,
    binary: bool = False,
    partial: bool = False,
    image: str | Path | None = None,
    reading: Reading | None = None,
    chunk: int = 512,
    memory_limit: int = 2**30,
    overwrite: bool = False,
    progress: OnProgress | None = None,
) -> tuple[str, ...]:
    """Convert an image into an OME-Zarr pyramid, or a mask into any format of masks; streamed.

    Pixels, pixel size and place are kept as they are. The pyramid of an image is the mean of 2 x 2
    pixels, that of labels the most frequent. The target appears when it is complete.

    Parameters
    ----------
    source
        An opened image, or the path of an image or a mask.
    target
        ``.ome.zarr``; for a mask also ``.ome.tif``, ``.tif`` (a cloud-optimised GeoTIFF), or
        ``.png`` (a picture of it).
    kind
        What the source is. ``auto``: a mask if tilepipe wrote it, if it names its classes, or if
        any of the options of masks is given; otherwise an image.
    classes, model
        Of a mask that does not name its classes: a table of them (a file or a text, see
        `tilepipe.products.class_table.read_class_table`), or a model that has them.
    binary
        Of a mask: every value but 0 is one class, with the label 1, as in masks of 0 and 255.
    partial
        Take the mask of an unfinished run; what is missing has no answer, and the target says that
        it is partial.
    image
        The image of the mask, at any scale, on which a ``.png`` is drawn.
    reading
        Of an image: series, bands, nodata, scaling.
    chunk
        Side of a chunk of an image, pixels.
    memory_limit
        Bytes that pixels may take while they are converted.
    overwrite
        Replace what is at the target.
    progress
        Called with steps done and all steps.

    Returns
    -------
    tuple of str
        What the target cannot hold and so lacks, a sentence each.

    Raises
    ------
    InputError
        The source is not understood, the target exists, a mask lacks names of classes or holds
        labels that are none of them, or its run is not finished.
    UnreadableError
        Part of the source cannot be decoded.
    EnvironmentFailure
        The disk is full.
    """
    from tilepipe.engine.run.convert import MaskOptions
    from tilepipe.engine.run.convert import convert as start

    return start(
        source, target, kind=kind, mask=MaskOptions(classes, model, binary, partial, image),
        reading=reading, chunk=chunk, memory_limit=memory_limit, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip


def validate(path: str | Path) -> Validation:
    """Hold a result against the specification of its format, and say who can open it.

    OME-Zarr is held against OME-NGFF, OME-TIFF against its specification, GeoTIFF against the
    rules of cloud-optimised GeoTIFF; by what is installed of ome-zarr-models, ome-types and
    rio-cogeo, and by checks of tilepipe's own.

    Parameters
    ----------
    path
        A file, or an OME-Zarr folder.

    Returns
    -------
    Validation
        The problems, the facts that readers care about, and for QuPath, OMERO, OpenSlide, napari,
        QGIS, GDAL, xarray and spatialdata: opens, opens with a manual step (and which), or cannot.

    Raises
    ------
    InputError
        The path does not exist, is of no known format, or cannot be read at all.
    """
    from tilepipe.validation.registry import validate as start

    return start(fspath(path))


def _run_options(image: str | Path, options: dict[str, Any]) -> RunOptions:
    return RunOptions.parse({**_given(options), "image": image})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
