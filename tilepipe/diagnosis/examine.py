"""`doctor`: one check after the other; none may hang, raise, or leave anything behind."""

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
    examination, scratch = _Examination(watch), Scratch()
    try:
        loaded = _examine_machine(examination)
        writable = _examine_disk(examination, folder, scratch, room=path is None)
        if loaded:
            sound = _examine_model(examination, name)
            if path is not None and writable and sound:
                _examine_image(examination, path, name, folder)
            if scheduler is not None:
                _examine_scheduler(examination, scheduler, folder, name, path, scratch)
    finally:
        # In a thread: a disk that hung once hangs now.
        ask("disk", scratch.clear, 5)
    return Diagnosis(tuple(examination.findings), time.perf_counter() - begin)


class _Examination:
    """Makes checks one after the other, and keeps and passes on their findings."""

    def __init__(self, watch: Callable[[Finding], None] | None) -> None:
        self.findings: list[Finding] = []
        self._watch = watch

    def check(
        self, topic: str, check: Callable[[], list[Finding]], seconds: float, late: Level = "slow"
    ) -> list[Finding]:
        found = ask(topic, check, seconds, late)
        self.findings += found
        for finding in found if self._watch is not None else ():
            self._watch(finding)  # type: ignore[misc]
        return found


def _examine_machine(examination: _Examination) -> bool:
    """Check software and hardware; returns whether torch can be loaded."""
    check = examination.check
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


def _examine_disk(examination: _Examination, folder: Path, scratch: Scratch, *, room: bool) -> bool:
    """Check the output's disk; returns whether it can be written to."""
    if examination.check("output", lambda: check_folder(folder), 5, "fails"):
        return False
    examination.check("disk", lambda: check_disk(folder, scratch), 10, "fails")
    if room:
        examination.check("room", lambda: check_room(folder), 5)
    return True


def _examine_model(examination: _Examination, name: str) -> bool:
    from tilepipe.diagnosis.image import check_model

    memory = free_memory(), default_memory()
    return examination.check("model", lambda: check_model(name, *memory), 10)[0].level != "fails"


def _examine_image(examination: _Examination, path: str, model: str, folder: Path) -> None:
    from tilepipe.diagnosis.image import check_image

    examination.check("image", lambda: check_image(path, model, folder), 30, "fails")


def _examine_scheduler(
    examination: _Examination,
    address: str,
    folder: Path,
    model: str,
    image: str | None,
    scratch: Scratch,
) -> None:
    from tilepipe.diagnosis.scheduler import check_scheduler

    examination.check(
        "scheduler", lambda: check_scheduler(address, folder, model, image, scratch), 30, "fails"
    )


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
