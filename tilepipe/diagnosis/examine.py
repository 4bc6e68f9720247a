"""`doctor`: every check after the other, none of which may hang, raise, or leave anything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tilepipe.diagnosis.disks import Scratch, check_disk, check_folder, check_room
from tilepipe.diagnosis.findings import Diagnosis, Finding, Level, ask
from tilepipe.diagnosis.software import check_codecs, check_gdal, check_packages
from tilepipe.engine.hardware import default_memory, free_memory

TORCH_SECONDS = 30
"""For loading torch, which is slow from a cold or a network disk."""


def doctor(
    image: str | Path | None = None,
    *,
    output: str | Path = ".",
    scheduler: str | None = None,
    model: str | Path = "nuclei-he",
    watch: Callable[[Finding], None] | None = None,
) -> Diagnosis:
    """What would make runs fail or be slow here; takes some seconds, and leaves nothing.

    Parameters
    ----------
    image
        An image to be segmented: whether a run would start, and whether it is read fast enough.
    output
        The folder where masks are to go.
    scheduler
        Address of a running Dask scheduler, such as ``tcp://host:8786``.
    model
        A model file, or the name of a shipped model.
    watch
        Is told of each finding when it is made.
    """
    begin = time.perf_counter()
    folder, name = _folder(Path(output)), os.fspath(model)
    path = None if image is None else os.fspath(image)
    findings: list[Finding] = []
    scratch = Scratch()

    def look(
        topic: str, check: Callable[[], list[Finding]], seconds: float, late: Level = "slow"
    ) -> list[Finding]:
        found = ask(topic, check, seconds, late)
        findings.extend(found)
        for finding in found if watch is not None else ():
            watch(finding)  # type: ignore[misc]
        return found

    try:
        look("versions", check_packages, 5)
        look("codecs", check_codecs, 10)
        look("GDAL", check_gdal, 10)
        torch = ask("torch", _load, TORCH_SECONDS, "fails")
        findings += torch
        if not torch:
            from tilepipe.diagnosis import machine

            look("torch", machine.check_torch, 5)
            look("cores", machine.check_cores, 5)
            look("memory", machine.check_memory, 5)
            look("limits", machine.check_limits, 5)
            look("GPU", machine.check_gpu, 10)
        elif watch is not None:
            for finding in torch:
                watch(finding)
        writable = not look("output", lambda: check_folder(folder), 5, "fails")
        if writable:
            look("disk", lambda: check_disk(folder, scratch), 10, "fails")
            if path is None:
                look("room", lambda: check_room(folder), 5)
        if not torch:
            from tilepipe.diagnosis.image import check_image, check_model

            memory = free_memory(), default_memory()
            sound = look("model", lambda: check_model(name, *memory), 10)
            if path is not None and writable and sound[0].level != "fails":
                look("image", lambda: check_image(path, name, folder), 30, "fails")
            if scheduler is not None:
                from tilepipe.diagnosis.scheduler import check_scheduler

                look("scheduler", lambda: check_scheduler(scheduler, folder, name, path, scratch),
                     30, "fails")  # fmt: skip
    finally:
        # In a thread: a disk that hung once hangs now.
        ask("disk", scratch.clear, 5)
    return Diagnosis(tuple(findings), time.perf_counter() - begin)


def _folder(output: Path) -> Path:
    """The folder of an output, also where a mask to be is named."""
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
