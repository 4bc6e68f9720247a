"""In fp32, float32 is computed, whatever the program or the environment asks libraries for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tilepipe
from tests.making import make_image, make_model, save_tiny, write_tiff
from tilepipe._torch import torch
from tilepipe.engine.options import RunOptions
from tilepipe.engine.planning.survey import require_precision, survey
from tilepipe.engine.resources import Resources
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.environment import environment, relevant_to
from tilepipe.errors import InputError
from tilepipe.models.float32 import keep_float32, require_float32
from tilepipe.models.onednn import (
    instruction_hints,
    instruction_limit,
    limit_leaves_avx512,
    limit_leaves_bf16,
    limit_leaves_vnni,
    reduced_float32,
)
from tilepipe.models.precision import Precision
from tilepipe.models.unet import UNetArguments

NEW = hasattr(torch.backends.mkldnn, "conv")
"""Whether this torch can be asked for less by operation."""
MODES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
OTHERS = ("MAX_CPU_ISA", "CPU_ISA_HINTS")


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has asked oneDNN for anything."""
    for name in (*MODES, *(f"{old}_{name}" for old in ("ONEDNN", "DNNL") for name in OTHERS)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asked() -> Iterator[None]:
    """Afterwards, torch computes in float32 again."""
    yield
    if NEW:
        torch.backends.fp32_precision = "none"
    keep_float32("cuda")


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An image, a model, and the mask of their run."""
    image = write_tiff(tmp_path / "image.tif", make_image(600, 600))
    model, store = tmp_path / "m.safetensors", tmp_path / "mask.ome.zarr"
    save_tiny(model, UNetArguments(width=1, depth=1))
    tilepipe.run(image, model=model, output=store)
    return image, model, store


def reduces(precision: Precision, runtime: str = "torch") -> bool:
    """Whether a pass is refused."""
    try:
        require_float32(precision, runtime, reduced_float32())
    except InputError:
        return True
    return False


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("mode", ["BF16", "any", "tf32", "F16"])
def test_a_variable_that_asks_for_less_is_refused(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, mode)
    model = make_model(UNetArguments(width=1, depth=1))
    with pytest.raises(InputError, match=rf"precision fp32: .*{name}={mode} .*unset it"):
        Device(model, "cpu", "fp32", 1)
    Device(model, "cpu", "bf16", 1).close()
    assert reduces(Precision.INT8)
    assert not any(map(reduces, (Precision.BF16, Precision.FP16, Precision.FP64)))
    assert not reduces(Precision.FP32, "onnxruntime"), "which has nothing to do with oneDNN"


@pytest.mark.parametrize(
    ("new", "old", "refused"),
    [
        (None, "BF16", True),
        ("", "BF16", True),
        ("STRICT", "BF16", False),
        ("nonsense", "BF16", False),  # oneDNN takes it for its default
        ("BF16", "STRICT", True),
    ],
)
def test_the_new_name_counts_unless_it_is_empty(
    new: str | None, old: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODES[1], old)
    if new is not None:
        monkeypatch.setenv(MODES[0], new)
    assert reduces(Precision.FP32) == refused


def run_cli(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a folder, which is also its cache."""
    return subprocess.run(
        [sys.executable, "-m", "tilepipe", *words],
        env=os.environ | variables | {"TILEPIPE_CACHE": str(folder / "cache")}, cwd=folder,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but those that lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name)
    return {path: path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_run_is_refused_before_anything_is_written_or_lost(tmp_path: Path) -> None:
    write_tiff(tmp_path / "image.tif", make_image(200, 200))
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=1, depth=1))
    run = "run", "image.tif", "-m", "m.safetensors", "-o"
    assert run_cli(tmp_path, *run, "mask.ome.zarr").returncode == 0
    before = contents(tmp_path)
    for words in (
        (*run, "mask.ome.zarr", "--overwrite"),
        (*run, "other.ome.zarr"),
        (*run, "other.tif", "--workers", "2"),
        (*run, "other.tif", "--precision", "bf16", "--verify", "2"),
        (*run, "other.tif", "--runtime", "onnxruntime", "--verify", "2"),
        ("plan", "image.tif", "-m", "m.safetensors", "--runtime", "torch"),
        ("verify", "mask.ome.zarr", "--scrub"),
        ("quantise", "m.safetensors", "image.tif", "-o", "n.safetensors"),
        ("train", "nothing", "-o", "n.safetensors"),
    ):
        done = run_cli(tmp_path, *words, ONEDNN_DEFAULT_FPMATH_MODE="BF16")
        assert done.returncode == 2, (words, done.stderr)
        lines = [line for line in done.stderr.splitlines() if "ONEDNN_DEFAULT_FPMATH_MODE" in line]
        assert len(lines) == 1, (words, done.stderr)
        assert "Traceback" not in done.stderr
        proof = bool({"verify", "--verify"} & set(words))
        assert ("verification is in fp32, and" in lines[0]) == proof
        assert ("validation is in fp32, and" in lines[0]) == (words[0] == "train")
        assert ("quantising is in fp32, and" in lines[0]) == (words[0] == "quantise")
        assert ("--precision bf16" in lines[0]) == lines[0].startswith("tilepipe: precision")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_planning_asks_before_it_computes_anything(
    finished: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes cost may be remembered, and then the first to compute is the worker."""
    image, model, store = finished
    before = contents(tmp_path)
    monkeypatch.setattr("tilepipe.engine.work.device.require_float32", lambda *_: None)
    monkeypatch.setenv(MODES[0], "BF16")
    with pytest.raises(InputError, match=r"precision fp32: .*BF16"):
        tilepipe.run(image, model=model, output=store, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_run_is_not_resumed_where_less_would_be_computed(
    finished: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, model, store = finished
    RunState(store).ledger_file.unlink()
    monkeypatch.setenv(MODES[1], "BF16")
    for more in ({}, {"allow_mixed": True}):
        with pytest.raises(InputError, match=r"precision fp32: .*DNNL_DEFAULT_FPMATH_MODE=BF16"):
            tilepipe.run(image, model=model, output=store, **more)


def test_workers_are_asked_and_not_only_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODES[0], "BF16")
    theirs = environment("cpu", 2)
    monkeypatch.delenv(MODES[0])
    options = RunOptions(image="image.tif", model="nuclei-he", outputs=("mask.tif",))
    reports = [
        {"environment": each, "group": str(n), "cores": 2, "memory": 10**9, "granted": 10**9,
         "device": "cpu"}
        for n, each in enumerate((environment("cpu", 2), theirs))
    ]  # fmt: skip
    workers = SimpleNamespace(ask=lambda *_: reports)
    far = Resources(2, False, 3, local=False)
    model = make_model(UNetArguments(width=1, depth=1))
    for mixed in (False, True):
        asked = replace(options, allow_mixed=mixed)
        found = survey(asked, workers, far)
        with pytest.raises(InputError, match="BF16"):
            require_precision(asked, model, found, Precision.FP32, "openvino")
        require_precision(asked, model, found, Precision.BF16, "torch")
        require_precision(asked, model, found, Precision.FP32, "onnxruntime")
    for precision in ("fp32", "int8", "bf16", "fp16", "fp64"):
        # Plans do not hold it: what it changes is refused.
        assert relevant_to(theirs, precision) == relevant_to(environment("cpu", 2), precision)


@pytest.mark.skipif(not NEW, reason="this torch cannot be asked for less by operation")
@pytest.mark.usefixtures("asked")
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


@pytest.mark.parametrize("less", ["tf32", "bf16"])
@pytest.mark.usefixtures("asked")
def test_each_operation_is_set_by_itself(less: str) -> None:
    """Left open, or turned off by ``allow_tf32``, it would follow what was asked for all."""
    backends: Any = torch.backends
    if NEW:
        backends.fp32_precision = less
    else:
        torch.set_float32_matmul_precision("medium")
        backends.cudnn.allow_tf32 = True
    keep_float32("cuda")
    if NEW:
        for operation in (
            backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn,
            backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul,
        ):  # fmt: skip
            assert operation.fp32_precision == "ieee"
    # Torch raises where the two ways of asking contradict each other.
    assert not backends.cudnn.allow_tf32
    assert not backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_limits_and_hints_are_part_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = environment("cpu", 1)
    assert not {"instruction_limit", "instruction_hints", "float32"} & set(plain)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "avx2")
    monkeypatch.setenv("ONEDNN_CPU_ISA_HINTS", "prefer_ymm")
    limited = environment("cpu", 1)
    assert limited == plain | {
        "instruction_limit": "AVX2", "instruction_hints": "PREFER_YMM", "int8": "", "half": "",
    }  # fmt: skip
    for precision in ("fp32", "bf16", "int8"):
        assert relevant_to(limited, precision)["instruction_limit"] == "AVX2"
    assert "instruction_limit" not in environment("mps", 1)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "default")
    monkeypatch.setenv("ONEDNN_CPU_ISA_HINTS", "NO_HINTS")
    assert environment("cpu", 1) == plain, "the new name counts"
    assert instruction_limit() is instruction_hints() is None


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        ("", (True, True, True)),
        ("avx2", (False, False, False)),
        ("AVX2_VNNI", (False, True, False)),
        ("AVX512_CORE", (True, False, False)),
        ("AVX512_CORE_VNNI", (True, True, False)),
        ("AVX512_CORE_BF16", (True, True, True)),
        ("AVX512_CORE_AMX", (True, True, True)),
        ("SVE_256", (True, True, True)),  # of other processors
    ],
)
def test_a_limit_leaves_what_its_name_says(
    limit: str, left: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert (limit_leaves_avx512(), limit_leaves_vnni(), limit_leaves_bf16()) == left
