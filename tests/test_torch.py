"""Torch is loaded in one place, with its settings, and the environment stays as it was."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tilepipe

ROOT = Path(tilepipe.__file__).parent
LOADS_TORCH = ("load_model", "device", "train", "doctor")
SETTINGS = ("OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE")

CALL_FIRST = """
import os, sys
before = dict(os.environ)
import tilepipe
name = sys.argv[1]
try:
    if name == "doctor":
        from tilepipe.diagnosis.machine import check_torch
        check_torch()
    elif name == "load_model":
        tilepipe.load_model("nuclei-he").network
    elif name == "device":
        from tilepipe.engine.work.device import Device
        Device(tilepipe.load_model("nuclei-he"), "cpu", "fp32", 1)
    elif name == "train":
        tilepipe.train("nothing", "nothing.safetensors")
except tilepipe.errors.TilepipeError:
    pass
assert "torch" in sys.modules
assert dict(os.environ) == before, set(os.environ) ^ set(before)

import torch
large = torch.ones(64 << 20, dtype=torch.uint8)
place = large.data_ptr() + (32 << 20)
inside = False
for line in open("/proc/self/smaps"):
    first = line.split(" ", 1)[0]
    if not first.endswith(":"):
        low, high = (int(edge, 16) for edge in first.split("-"))
        inside = low <= place < high
    elif inside and first == "VmFlags:":
        print("huge pages" if " hg" in line else "small pages")
"""
"""A public function is the first thing that is called; then, how torch takes its memory."""


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    return {**kept, "OMP_DISPLAY_ENV": "TRUE"}


def _load(entry: str, environment: dict[str, str]) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CALL_FIRST, entry],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("entry", LOADS_TORCH)
def test_settings_take_effect_whatever_is_called_first(entry: str) -> None:
    out, err = _load(entry, _environment())
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in err
    assert "huge pages" in out


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_the_user_has_set_stays() -> None:
    given = {"OMP_WAIT_POLICY": "ACTIVE", "THP_MEM_ALLOC_ENABLE": "0"}
    out, err = _load("load_model", {**_environment(), **given})
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in err
    assert "small pages" in out


def test_torch_is_imported_in_one_place() -> None:
    """Elsewhere only within functions of modules that have it from there already."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.name == "_torch.py":
            continue
        tree = ast.parse(path.read_text())
        ours = any(
            isinstance(node, ast.ImportFrom) and node.module == "tilepipe._torch"
            for node in tree.body
        )
        at_top = {id(node) for node in tree.body}
        found += [
            f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            for node in ast.walk(tree)
            if _imports_torch(node) and (id(node) in at_top or not ours)
        ]
    assert not found


def _imports_torch(node: ast.AST) -> bool:
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [node.module or ""]
    return any(name.split(".")[0] == "torch" or name == "safetensors.torch" for name in names)
