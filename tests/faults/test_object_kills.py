"""`tilepipe objects` killed at any moment: the same command ends with the bytes of one let be."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest
from scipy import ndimage

from tests.faults.scene import wait_for
from tests.making import digest
from tests.zygote import Run, Zygote
from tilepipe.grid import Window
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.store import create_mask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="looks at processes as Linux shows them"
    ),
]

SHAPE = (1024, 2048)
"""Eight windows, of the side that fits the memory limit."""
STEPS = 15
"""What is marked as done one after another, with specks merged and holes filled."""


class Objects:
    """A mask of touching blobs, specks and holes, and the files that an undisturbed run makes."""

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder, self.zygote = folder, zygote
        smooth = ndimage.gaussian_filter(np.random.default_rng(0).random(SHAPE), 4)
        classes = (MaskClass("background", "#000000"), MaskClass("nucleus", "#ff0000"))
        mask = create_mask(folder / "m.ome.zarr", MaskSpec(*SHAPE, "labels", classes, background=0))
        mask.write(Window(0, 0, *SHAPE), (smooth > np.median(smooth)).astype(np.uint8))
        self.expected = self.finished(folder / "whole", workers=1)

    def start(self, to: Path, workers: int) -> Run:
        """Begin the command, or go on with it."""
        to.mkdir(exist_ok=True)
        words = [
            "objects", str(self.folder / "m.ome.zarr"), "-o", str(to / "n.geojson"),
            "-o", str(to / "n.ome.zarr"), "--method", "split", "--min-area", "60", "--specks",
            "merge", "--fill-holes", "--memory", "100MB", "--workers", str(workers),
        ]  # fmt: skip
        return self.zygote.start(words, to.with_suffix(".log"))

    def finished(self, to: Path, workers: int) -> dict[str, str]:
        """The bytes once it has ended."""
        run = self.start(to, workers)
        assert run.wait() == 0, run.said
        assert "Traceback" not in run.said
        return digest(to)

    def killed(self, to: Path, workers: int, steps: int, delay: float) -> bool:
        """Kill the command so long after that many steps are done; False if it ended before."""
        run = self.start(to, workers)
        done = to / "n.geojson.unfinished" / "done"
        if not wait_for(run, lambda: sum(1 for _ in done.glob("*")) >= steps):
            return False
        time.sleep(delay)
        run.kill()
        code = run.wait()
        assert code in (0, -signal.SIGKILL), run.said
        assert_within(20, lambda: not members(run.pid))
        return code != 0


def members(group: int) -> list[psutil.Process]:
    """The processes of a group that still run."""

    def is_one(process: psutil.Process) -> bool:
        try:
            running = process.status() != psutil.STATUS_ZOMBIE
            return running and os.getpgid(process.pid) == group
        except (ProcessLookupError, psutil.Error):
            return False

    return [process for process in psutil.process_iter() if is_one(process)]


def assert_within(seconds: float, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "processes outlive their client"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Objects:
    return Objects(tmp_path_factory.mktemp("objects"), zygote)


@pytest.mark.parametrize(("number", "workers"), [(4, 1), (9, 2), (14, 1)])
def test_after_a_kill_the_same_command_ends_with_the_same_bytes(
    number: int, workers: int, objects: Objects
) -> None:
    """In the pass that finds objects, in the one that joins specks, and while tables are made."""
    to = objects.folder / f"killed {number}"
    assert objects.killed(to, workers, number, Random(number).uniform(0, 0.1))
    assert objects.finished(to, workers) == objects.expected
    shutil.rmtree(to)
