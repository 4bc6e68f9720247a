"""Other people's readers, each in the Python or program that has it.

`TILEPIPE_READERS` names a folder of virtual environments (see ``install.py``). A reader that is
neither there, nor in this interpreter, nor on PATH, is not tried, and the test says so.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).with_name("scripts")
VARIABLE = "TILEPIPE_READERS"
SECONDS = 240
"""Against hanging only."""


def environments() -> Path | None:
    """The folder of virtual environments, if one is named."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


@dataclass(frozen=True)
class Reader:
    """A Python that has some packages."""

    python: Path

    def ask(self, script: str, *arguments: object) -> Any:
        """What a script of this folder prints: one line of JSON, the last."""
        command = [str(self.python), str(SCRIPTS / f"{script}.py"), *map(str, arguments)]
        return json.loads(_output(command).splitlines()[-1])


def reader(name: str, *modules: str) -> Reader:
    """The first Python that imports the modules; the test is skipped where none does."""
    python = _python(name, modules)
    if python is None:
        pytest.skip(
            f"no Python with {', '.join(modules)}; {VARIABLE} may name a folder that has one"
        )
    return Reader(python)


def program(name: str) -> str:
    """The path of a program; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on PATH")
    return found


def output_of(name: str, *arguments: object) -> str:
    """What a program writes to standard output."""
    return _output([program(name), *map(str, arguments)])


@functools.cache
def _python(name: str, modules: tuple[str, ...]) -> Path | None:
    folder = environments()
    candidates = [Path(sys.executable), Path("/usr/bin/python3")]
    if folder is not None:
        candidates.insert(0, folder / name / "bin" / "python")
    for python in candidates:
        if python.exists() and not _fails([str(python), "-c", f"import {', '.join(modules)}"]):
            return python
    return None


def _fails(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, env=_environment(), timeout=SECONDS)
    return done.returncode != 0


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env=_environment(), timeout=SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _environment() -> dict[str, str]:
    """Without a screen, and without the packages of this interpreter."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"QT_QPA_PLATFORM": "offscreen", "LC_ALL": "C.UTF-8"}
