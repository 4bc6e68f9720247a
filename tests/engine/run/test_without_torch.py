"""A run that OpenVINO computes loads neither torch nor ONNX, once it knows this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import make_image, write_tiff

SCRIPT = """
import sys
from tilepipe.cli import call
from tilepipe.engine.planning import runtime_selection

runtime_selection.MAX_TIME_SHARE = 1e9  # timed, however short the run
runtime_selection.MIN_SPEEDUP = -1.0  # any but the reference
code = call(["run", *sys.argv[1:], "--quiet"])
print(code, *sorted({"torch", "onnx", "openvino"} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino here")
@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="needs the extra onnx")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_run_that_is_remembered_loads_no_torch(
    precision: str, model: Path, tmp_path: Path
) -> None:
    # A shipped model has an int8 network with it.
    used = {
        "fp32": ["-m", model],
        "int8": ["-m", "nuclei-he", "--precision", "int8", "--max-label-change", "1"],
    }
    image, loaded = write_tiff(tmp_path / "image.tif", make_image(400, 300)), []
    for name in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, image, *used[precision], "-o", f"{name}.ome.zarr"],
            env=os.environ | {"TILEPIPE_CACHE": str(tmp_path / "cache")}, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.startswith("0 "), done.stderr
        loaded.append(done.stdout.splitlines()[-1])
    assert loaded == ["0 onnx openvino torch", "0 openvino"]
