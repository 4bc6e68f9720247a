"""`doctor`: one check after the other; none may hang, raise, or leave anything behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tilepipe.diagnosis.disks import Scratch, check_disk, check_folder, check_room
from tilepipe.diagnosis.findings import Diagnosis, Finding, Level, ask
from tilepipe.diagnosis.software import check_codecs, check_gdal, check_packages
from tilepipe.engine.hardware import default_memory, free_memory

Check = Callable[..., list[Finding]]
"""Runs a check, given its topic, itself, seconds to wait, and the level of being late."""

TORCH_SECONDS = 30
"""Time for loading torch, which is slow from a cold or a network disk."""


def doctor(
    image: str | Path | None = None,
    *,
    output: str | Path = ".",
    scheduler: str | None = None,
    model: str | Path = "nuclei-he",
    watch: Callable[[Finding], None] | None = None,
) -> Diagnosis:
    """Find what would make runs fail or slow here; takes some seconds, and leaves nothing behind.

    Parameters
    ----------
    image
        An image to segment: checks that a run would start, and that it is read fast enough.
    output
        The folder for masks.
    scheduler
        Address of a running Dask scheduler, such as ``tcp://host:8786``.
    model
        A model file, or the name of a shipped model.
    watch
        Receives each finding as it is made.
    """
    begin = time.perf_counter()
    folder, name = _folder(Path(output)), os.fspath(model)
    path = None if image is None else os.fspath(image)
    findings, scratch = list[Finding](), Scratch()

    def check(
        topic: str, of: Callable[[], list[Finding]], seconds: float, late: Level = "slow"
    ) -> list[Finding]:
        found = ask(topic, of, seconds, late)
        findings.extend(found)
        if watch is not None:
            for finding in found:
                watch(finding)
        return found

    try:
        loaded = _check_machine(check)
        writable = _check_output(check, folder, scratch, room=path is None)
        if loaded:
            _check_run(check, name, path if writable else None, folder)
        if loaded and scheduler is not None:
            _check_scheduler(check, scheduler, folder, name, path, scratch)
    finally:
        # In a thread: a disk that hung once hangs now.
        ask("disk", scratch.clear, 5)
    return Diagnosis(tuple(findings), time.perf_counter() - begin)


def _check_machine(check: Check) -> bool:
    """Check software and hardware; returns whether torch can be loaded."""
    check("versions", check_packages, 5)
    check("codecs", check_codecs, 10)
    check("GDAL", check_gdal, 10)
    if check("torch", _load, TORCH_SECONDS, "fails"):
        return False
    from tilepipe.diagnosis import machine

    check("torch", machine.check_torch, 5)
    check("cores", machine.check_cores, 5)
    check("memory", machine.check_memory, 5)
    check("limits", machine.check_limits, 5)
    check("GPU", machine.check_gpu, 10)
    return True


def _check_output(check: Check, folder: Path, scratch: Scratch, *, room: bool) -> bool:
    """Check the output's disk; returns whether it can be written to."""
    if check("output", lambda: check_folder(folder), 5, "fails"):
        return False
    check("disk", lambda: check_disk(folder, scratch), 10, "fails")
    if room:
        check("room", lambda: check_room(folder), 5)
    return True


def _check_run(check: Check, model: str, image: str | None, folder: Path) -> None:
    from tilepipe.diagnosis.image import check_image, check_model

    memory = free_memory(), default_memory()
    [first, *_] = check("model", lambda: check_model(model, *memory), 10)
    if image is not None and first.level != "fails":
        check("image", lambda: check_image(image, model, folder), 30, "fails")


def _check_scheduler(check: Check, address: str, folder: Path, *rest: Any) -> None:
    from tilepipe.diagnosis.scheduler import check_scheduler

    check("scheduler", lambda: check_scheduler(address, folder, *rest), 30, "fails")


def _folder(output: Path) -> Path:
    """The folder of an output, which may name a mask in it."""
    from tilepipe.errors import InputError
    from tilepipe.products.formats import suffix_kind

    try:
        suffix_kind(output)
    except InputError:
        return output
    return output.parent


def _load() -> list[Finding]:
    """Load torch, and what computes with it."""
    try:
        import tilepipe.engine.planning.planning  # noqa: F401
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        return [Finding("torch", "fails", f"cannot be loaded ({reason})",
                        "install torch as its own instructions say")]  # fmt: skip
    return []
