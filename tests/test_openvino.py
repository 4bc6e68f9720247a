"""OpenVINO and NNCF are loaded in one place, and report nothing to anyone."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import tilepipe

ROOT = Path(tilepipe.__file__).parent

REPORTS = """
import sys
import tilepipe._openvino as loading
loading.{load}()
reports = [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert not reports, reports
import {package}
"""


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_no_reports_are_sent(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    program = REPORTS.format(load=f"load_{package}", package=package)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_the_package_of_reports_stays_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from tilepipe._openvino import load_openvino

    theirs = type(sys)("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", theirs)
    load_openvino()
    assert sys.modules["openvino_telemetry"] is theirs


def test_nothing_else_imports_them() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.split(".")[0] for name in names} & {"openvino", "nncf"}:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
