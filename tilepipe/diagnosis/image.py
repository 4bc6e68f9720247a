"""Check the model and the image of a run: whether it would start, and what would slow it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tilepipe.diagnosis.disks import NETWORK, check_room, file_system
from tilepipe.diagnosis.findings import Finding
from tilepipe.engine.cluster.cluster_file import SLOTS
from tilepipe.engine.inputs import open_planned
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan, absolute, at_model_scale
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.planning import make_plan
from tilepipe.engine.planning.runtime_selection import choose_precision
from tilepipe.engine.resources import Estimate
from tilepipe.engine.work.environment import choose_device
from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images import Image, read_with_valid
from tilepipe.text import count, gigabytes

BEST_KEPT = 2048
"""Outputs a side that the automatic window keeps at most."""
READING_SECONDS = 1.5
LARGE_PIECE = 4 << 20
"""Pixels that are decoded together, from which most of what is decoded for a window is thrown
away."""
PIECE = 1024
"""Side of what each thread reads at a time."""


def check_model(name: str, free: int, usual: int | None = None) -> list[Finding]:
    """Check that a model loads, and the memory of its smallest and its best window.

    Parameters
    ----------
    name
        As `run` takes it.
    free
        Bytes free, as far as this process may have them.
    usual
        Bytes that a run takes by default; half of ``free`` unless given.
    """
    from tilepipe.models.file import load_model

    model = load_model(name)
    geometry = model.geometry
    device = choose_device("auto")
    precision = choose_precision("auto", device, model)

    needs = model.predictor.memory(geometry, precision, model.predictor.runtimes[0], device)

    smallest = geometry.input_for(512)
    best = geometry.input if model.predictor.fixed else geometry.input_for(BEST_KEPT)
    least, most = needs(smallest, smallest), needs(best, best)
    if device == "cuda":
        from tilepipe._torch import torch

        free = torch.cuda.mem_get_info(0)[0]
        usual = int(0.9 * free)
        base, where = model.predictor.weight_bytes, "of the GPU's memory"
    else:
        base = int(psutil.Process().memory_info().rss) + MemoryModel.FINISHING
        where = "in all"
        usual = free // 2 if usual is None else usual
    return [_verdict(model.name, device, where, (base + least, base + most), (free, usual))]


def _verdict(
    name: str, device: str, where: str, needs: tuple[int, int], there: tuple[int, int]
) -> Finding:
    """Whether what the smallest and the best window need is free, and is what a run takes."""
    (least, most), (free, usual) = needs, there
    what = (
        f"{name}: about {gigabytes(least)} {where} for the smallest window, {gigabytes(most)} for "
        "the fastest one"
    )
    room = f"; {gigabytes(free)} are free"
    if least > free:
        return Finding("model", "fails", what + room, _make_room(device))
    if least > usual and device == "cpu":
        return Finding("model", "fails", f"{what}{room}, of which a run takes {gigabytes(usual)} "
                       "by default", f"--memory {int(0.8 * free / 1e6)}MB")  # fmt: skip
    if most > usual:
        return Finding("model", "slow", f"{what}{room}, so windows are smaller, and more is "
                       "computed twice", _more_memory(device, free, most))  # fmt: skip
    return Finding("model", "ok", what)


def _make_room(device: str) -> str:
    return "end what takes the GPU's memory, or --device cpu" if device == "cuda" else (
        "end what takes the memory, or use a machine with more"
    )  # fmt: skip


def _more_memory(device: str, free: int, wanted: int) -> str:
    if device == "cpu" and wanted < 0.8 * free:
        return f"--memory {int(0.8 * free / 1e6)}MB, if nothing else needs it"
    return _make_room(device)


def check_image(
    path: str,
    model: str,
    folder: Path,
    speed: Callable[[Image, Plan], float] | None = None,
    large_piece: int = LARGE_PIECE,
) -> list[Finding]:
    """Check that a run on an image would start, and that reading keeps up with computing.

    Parameters
    ----------
    path, model, folder
        Of image, model and output.
    speed
        Measures how fast the image is read [`reading_speed`].
    large_piece
        Pixels decoded together beyond which reading wastes much of its work.

    Raises
    ------
    InputError
        For what a run would refuse.
    """
    options = RunOptions(path, model=model, outputs=(str(folder / "tilepipe-doctor.ome.zarr"),))
    plan, estimate = make_plan(options)
    facts = plan.image
    area = facts.height * facts.width
    findings = [
        Finding("image", "slow", warning, "see docs/running.md") for warning in estimate.warnings
    ]
    height, width = plan.tiling.input
    what = f"{facts.kind}, {facts.width} x {facts.height} pixels (width x height), "
    what += f"{count(plan.blocks, 'block')}, windows of {width} x {height}, at most "
    what += f"{gigabytes(estimate.memory)} of memory"
    findings.append(Finding("image", "ok", what))
    findings += check_room(folder, int(area * 4 / 3))
    kind = file_system(Path(absolute(path)))
    if kind in NETWORK:
        findings.append(
            Finding("image", "slow", f"it is on a network file system ({kind}): reading may be "
                    "slow, and stop when the network does", "copy it to a local disk if it "
                    "reads too slowly")
        )  # fmt: skip
    with contextlib.closing(open_planned(plan.image)) as image:
        findings += _check_reading(image, plan, estimate, speed or reading_speed, large_piece)
    return findings


def _check_reading(
    image: Image,
    plan: Plan,
    estimate: Estimate,
    measure: Callable[[Image, Plan], float],
    large_piece: int,
) -> list[Finding]:
    rows, columns = image.chunks[plan.image.level]
    pieces = f"decoded in pieces of {columns} x {rows}"
    advice = "`tilepipe convert` it to OME-Zarr once, and run on that"
    try:
        speed = measure(image, plan)
    except UnreadableError as error:
        return [
            Finding("reading", "slow", f"{error}; a run skips it, and names what has no "
                    "answer (exit code 3)", "copy the image again from where it came")
        ]  # fmt: skip
    what = f"{speed / 1e6:,.1f} Mpx/s with {SLOTS} threads, {pieces}"
    coverage = plan.coverage
    first = next(iter(coverage))
    reading = coverage.reach(first).area * len(coverage) / speed  # edge blocks are smaller
    if estimate.seconds is None:
        return [Finding("reading", "ok", what)]
    computing = plan.image.height * plan.image.width / estimate.seconds
    what += f"; {plan.model} computes {computing / 1e6:,.2f} Mpx/s here"
    if reading > 0.8 * estimate.seconds:
        return [Finding("reading", "slow", f"{what}: reading takes about {reading:,.0f} s and "
                        f"computing {estimate.seconds:,.0f} s", advice)]  # fmt: skip
    if rows * columns > large_piece:
        return [Finding("reading", "slow", f"{what}: large pieces are decoded again and again, by "
                        "each block that needs some of them", advice)]  # fmt: skip
    return [Finding("reading", "ok", what)]


def reading_speed(image: Image, plan: Plan, seconds: float = READING_SECONDS) -> float:
    """Pixels a second with as many threads as a worker has, from the disk where that can be had.

    Raises
    ------
    UnreadableError
        For a window that cannot be decoded.
    """
    _forget(Path(absolute(image.path)))
    shown, level = at_model_scale(image, plan.image), plan.image.level
    coverage = plan.coverage
    numbers = tuple(coverage)
    end = time.perf_counter() + seconds
    counted, troubles = [0] * SLOTS, []

    def read(thread: int) -> None:
        n = thread
        while n < 64 * SLOTS and (n == thread or time.perf_counter() < end):
            # All over the image, so that no piece is decoded for its neighbour's sake.
            reach = coverage.reach(numbers[n * 7919 % len(numbers)])
            window = Window(reach.y, reach.x, min(PIECE, reach.height), min(PIECE, reach.width))
            try:
                read_with_valid(shown, window, level)
            except Exception as error:  # told by the thread that asked
                troubles.append(error)
                return
            counted[thread] += window.area
            n += SLOTS

    begin = time.perf_counter()
    threads = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(SLOTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    return sum(counted) / (time.perf_counter() - begin)


def _forget(path: Path) -> None:
    """Drop a file from the system's memory, as a first run would find it."""
    if not hasattr(os, "posix_fadvise") or not path.is_file():
        return
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
