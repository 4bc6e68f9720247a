"""`run`, `run_batch`, `plan`, `train`: keyword options, the same as the command line's."""

from __future__ import annotations

from collections.abc import Sequence
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilepipe.engine.options import RunOptions, of_each, options_from_mapping
from tilepipe.errors import InputError

if TYPE_CHECKING:
    from tilepipe.engine.events import RunCallbacks
    from tilepipe.engine.plan.plan import Plan
    from tilepipe.engine.report.record import Summary
    from tilepipe.engine.resources import Estimate
    from tilepipe.engine.run.batch import BatchCallbacks, BatchSummary
    from tilepipe.training.train import TrainCallbacks, TrainSummary


def run(image: str | Path, *, watch: RunCallbacks | None = None, **options: Any) -> Summary:
    """Segment an image, or go on where an earlier run of the same options stopped.

    Parameters
    ----------
    image
        A file, or an OME-Zarr folder.
    watch
        Is told of the plan, of each block, of each stage.
    **options
        The fields of `tilepipe.engine.options.RunOptions`: ``model``, ``outputs``, ``window``,
        ``memory`` (bytes, or ``"2GB"``), ``workers``, ``scheduler``, ``verify`` ...

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

    return start(_options(image, options), watch)


def run_batch(
    images: Sequence[str | Path], *, watch: BatchCallbacks | None = None, **options: Any
) -> BatchSummary:
    """Segment many images in one run; one that fails stops no other, done ones are skipped.

    Parameters
    ----------
    images
        Files, or OME-Zarr folders; no two of one name.
    watch
        Is told of each image, and of its blocks.
    **options
        As `run` takes them. ``outputs`` names a folder (``"masks/"``), or has ``{name}`` in it.

    Returns
    -------
    BatchSummary
        What came of each image, in the order given.

    Raises
    ------
    InputError
        When options or model are at fault, or the outputs of two images are the same.
    EnvironmentFailure
        When the machine stopped the batch; calling it again goes on.
    """
    from tilepipe.engine.run.batch import run_batch as start

    named = [fspath(image) for image in images]
    if not named:
        raise InputError("no images to segment; give at least one")
    return start(of_each(named, _options(named[0], options)), watch)


def plan(image: str | Path, **options: Any) -> tuple[Plan, Estimate]:
    """What `run` would do with the same options, and what it would cost; writes nothing.

    Raises
    ------
    InputError
        For everything about image, model or options that `run` would refuse.
    """
    from tilepipe.engine.planning.planning import make_plan

    return make_plan(_options(image, options))


def train(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    watch: TrainCallbacks | None = None,
    **options: Any,
) -> TrainSummary:
    """Train a network and write its model file, or resume a training with the same options.

    Parameters
    ----------
    data
        Folders with ``images/`` and ``masks/``, CSV files of pairs, or images (with ``masks``).
    output
        The model file, ``NAME.safetensors``.
    watch
        Called after each step and each validation.
    **options
        The fields of `tilepipe.training.options.TrainOptions`: ``preset``, ``loss``, ``steps`` ...

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
    from tilepipe.training.options import TrainOptions, train_options
    from tilepipe.training.train import train as start

    several = [data] if isinstance(data, str | Path) else data
    given = {name: value for name, value in options.items() if value is not None}
    given |= {"data": [fspath(path) for path in several], "output": fspath(output)}
    if "masks" in given:
        masks = [given["masks"]] if isinstance(given["masks"], str | Path) else given["masks"]
        given["masks"] = [fspath(path) for path in masks]
    for name in ("start_from", "validation"):
        if isinstance(given.get(name), Path):
            given[name] = fspath(given[name])
    return start(TrainOptions(**train_options(given, "train")), watch)


def _options(image: str | Path, options: dict[str, Any]) -> RunOptions:
    if "outputs" in options:
        outputs = options["outputs"]
        several = [outputs] if isinstance(outputs, str | Path) else outputs
        options = {**options, "outputs": [fspath(path) for path in several]}
    for name in ("model", "tissue"):
        if isinstance(options.get(name), Path):
            options = {**options, name: fspath(options[name])}
    given = {name: value for name, value in options.items() if value is not None}
    return RunOptions(fspath(image), **options_from_mapping(given, "run"))
