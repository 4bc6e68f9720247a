"""In fp32, float32 is computed, whatever the program or the environment asks libraries for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.making import make_image, make_model, save_tiny, write_tiff
from tilepipe._torch import torch
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError
from tilepipe.models.float32 import keep_float32, require_float32
from tilepipe.models.precision import Precision
from tilepipe.models.unet import UNetArguments

NEW = hasattr(torch.backends.mkldnn, "conv")
"""Whether this torch can be asked for less by operation."""


@pytest.fixture
def settings() -> Iterator[None]:
    """What torch was asked for, as it was before."""
    yield
    torch.backends.fp32_precision = "none"
    keep_float32()


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
@pytest.mark.parametrize("mode", ["BF16", "any", "tf32", "F16"])
def test_a_variable_that_asks_for_less_is_refused(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, mode)
    model = make_model(UNetArguments(width=1, depth=1))
    with pytest.raises(InputError, match=rf"precision fp32: .*{name}={mode} .*unset it"):
        Device(model, "cpu", "fp32", 1)
    with pytest.raises(InputError, match="precision int8"):
        require_float32(Precision.INT8)
    for precision in (Precision.BF16, Precision.FP16, Precision.FP64):
        require_float32(precision)
    Device(model, "cpu", "bf16", 1).close()


def test_the_first_variable_counts_and_strict_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT")
    require_float32(Precision.FP32)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "nonsense")  # oneDNN ignores it
    require_float32(Precision.FP32)
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE")
    with pytest.raises(InputError, match="DNNL_DEFAULT_FPMATH_MODE=BF16"):
        require_float32(Precision.FP32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["run", "image.tif", "-m", "m.safetensors", "-o", "mask.ome.zarr"],
        ["run", "image.tif", "-m", "m.safetensors", "-o", "mask.tif", "--workers", "2"],
        ["plan", "image.tif", "-m", "m.safetensors", "--runtime", "torch"],
    ],
)
def test_a_run_is_refused_in_one_line_before_anything_is_written(
    command: list[str], tmp_path: Path
) -> None:
    write_tiff(tmp_path / "image.tif", make_image(200, 200))
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=1, depth=1))
    done = subprocess.run(
        [sys.executable, "-m", "tilepipe", *command],
        env=os.environ | {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, cwd=tmp_path, timeout=100,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = (each for each in done.stderr.splitlines() if "ONEDNN" in each)
    assert "unset it" in line
    assert "Traceback" not in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["image.tif", "m.safetensors"]


@pytest.mark.skipif(not NEW, reason="this torch cannot be asked for less")
@pytest.mark.usefixtures("settings")
def test_what_the_program_asked_of_torch_does_not_count() -> None:
    model = make_model(UNetArguments(width=16, depth=2))
    side = model.geometry.input_for(128)
    pixels, found = make_image(side, side), []
    for asked in ("none", "bf16"):
        torch.backends.fp32_precision = asked
        torch.backends.mkldnn.conv.fp32_precision = asked
        with closing(Device(model, "cpu", "fp32", 2)) as device:
            found.append(device.logits(pixels, None, (128, 128)))
    np.testing.assert_array_equal(*found)  # where the processor has bf16, that can differ


@pytest.mark.skipif(not NEW, reason="this torch cannot be asked for less")
@pytest.mark.parametrize("asked", ["tf32", "bf16"])
@pytest.mark.usefixtures("settings")
def test_each_operation_is_set_by_itself(asked: str) -> None:
    """Left open, or turned off by ``allow_tf32``, it would follow what was asked for all."""
    torch.backends.fp32_precision = asked
    keep_float32()
    backends = torch.backends
    for operation in (
        backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn, backends.cudnn.conv,
        backends.cudnn.rnn, backends.cuda.matmul,
    ):  # fmt: skip
        assert operation.fp32_precision == "ieee"
    # Torch raises where the two ways of asking contradict each other.
    assert not backends.cudnn.allow_tf32
    assert not backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
