"""A few hundred mutants, always the same: the long form is ``make fuzz``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COUNTS = {"tiff": 50, "picture": 30, "zarr": 40, "model": 30, "onnx": 20, "mask": 30, "config": 30}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_mutants_are_read_or_refused() -> None:
    # In processes of their own: what forks must have no threads, and pytest may have some.
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    words = [f"{family}={count}" for family, count in COUNTS.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words, "--seed", "1"],
        check=False, capture_output=True, text=True, cwd=root, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"| tiff | {COUNTS['tiff']} |" in done.stdout


def test_the_harness_sees_what_goes_wrong() -> None:
    """A crash, a hang, memory, a traceback and a refusal of two lines are told apart."""
    root = Path(__file__).parents[2]
    code = """
import os, signal
from tests.fuzz.harness import isolated
from tilepipe.errors import InputError
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
def hang():
    while True: pass
def greedy():
    bytearray(400 * 2**20)
    return "read"
def claims(): bytearray(2**33)
def bug(): {}["key"]
def refusal(): raise InputError("a.tif is broken; copy it again")
for target in (crash, hang, greedy, claims, bug, refusal, lambda: "read"):
    outcome = isolated(target, seconds=1)
    print(outcome.verdict, outcome.reason.split(" ")[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root
    )
    assert done.stdout.splitlines() == [
        "failed crash:", "failed hang:", "failed memory:", "failed MemoryError:",
        "failed KeyError:", "refused a.tif", "read ",
    ]  # fmt: skip
