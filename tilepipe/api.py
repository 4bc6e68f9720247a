"""`run` and `plan` as functions of keyword options, the same as the command line's."""

from __future__ import annotations

from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilepipe.engine.options import RunOptions, options_from_mapping

if TYPE_CHECKING:
    from tilepipe.engine.plan import Plan
    from tilepipe.engine.record import Summary, Watch
    from tilepipe.engine.sizing import Estimate


def run(image: str | Path, *, watch: Watch | None = None, **options: Any) -> Summary:
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
    SurroundingsError
        When the machine stopped the run; calling it again resumes it.
    """
    from tilepipe.engine.run import run as start

    return start(_options(image, options), watch)


def plan(image: str | Path, **options: Any) -> tuple[Plan, Estimate]:
    """What `run` would do with the same options, and what it would cost; writes nothing.

    Raises
    ------
    InputError
        For everything about image, model or options that `run` would refuse.
    """
    from tilepipe.engine.planning import make_plan

    return make_plan(_options(image, options))


def _options(image: str | Path, options: dict[str, Any]) -> RunOptions:
    if "outputs" in options:
        outputs = options["outputs"]
        several = [outputs] if isinstance(outputs, str | Path) else outputs
        options = {**options, "outputs": [fspath(path) for path in several]}
    if isinstance(options.get("model"), Path):
        options = {**options, "model": fspath(options["model"])}
    given = {name: value for name, value in options.items() if value is not None}
    return RunOptions(fspath(image), **options_from_mapping(given, "run"))
