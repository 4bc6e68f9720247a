"""The memory of a forward pass is foretold as it turns out to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tilepipe.models.geometry import geometry_of
from tilepipe.models.memory import ForwardMemory, _LiveBytes, forward_bytes
from tilepipe.models.precision import Precision
from tilepipe.models.unet import UNet, UNetArguments
from tilepipe.models.unet_memory import bytes_by_layers

MEASURE = """
import sys, torch
from pathlib import Path
from tilepipe.models.memory import forward_bytes
from tilepipe.models.unet import UNet, UNetArguments

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

torch.set_num_threads(2)
network = UNet(UNetArguments(width=16)).eval().to(memory_format=torch.channels_last)
def run(side):
    x = torch.full((1, 3, side, side), 0.5).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(x)
run(204)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
run(1148)
print((status("VmHWM") - before) / forward_bytes(network, 3, 1148, 1148))
"""


def _reckoned_on_tensors(network: nn.Module, bands: int, side: int) -> int:
    """The same account, kept of a pass that does compute."""
    network = network.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode(), _LiveBytes() as live:
        x = torch.empty((1, bands, side, side), memory_format=torch.channels_last)
        network(x)
    return live.peak


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolation"])
def test_it_is_what_real_tensors_take(padding: str, upsampling: str) -> None:
    network = UNet(
        UNetArguments(width=4, depth=3, padding=padding, upsampling=upsampling)  # type: ignore[arg-type]
    )
    side = 108 if padding == "valid" else 128
    foretold = forward_bytes(network, 3, side, side)
    assert foretold == pytest.approx(_reckoned_on_tensors(network, 3, side), rel=0.02)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_small_passes_tell_of_large_ones(padding: str, upsampling: str, dtype: torch.dtype) -> None:
    network = UNet(
        UNetArguments(width=4, depth=3, padding=padding, upsampling=upsampling)  # type: ignore[arg-type]
    ).eval()
    geometry = geometry_of(network.arguments)
    memory = ForwardMemory(network, 3, geometry.smallest_input, geometry.stride_factor, dtype)
    for keep in (8, 512, 2048):
        height, width = geometry.input_for(keep), geometry.input_for(1024)
        assert memory.peak(height, width) == forward_bytes(network, 3, height, width, dtype)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolation"])
@pytest.mark.parametrize("normalisation", ["none", "batch"])
def test_unets_are_reckoned_without_torch(
    padding: Any, upsampling: Any, normalisation: Any
) -> None:
    """With other peaks: at the input, in the first level, at the head."""
    for bands, outputs, width, depth in ((1, 2, 2, 2), (9, 2, 2, 1), (3, 40, 2, 2)):
        arguments = UNetArguments(
            bands, outputs, width, depth, padding, normalisation, upsampling, dropout=0.1
        )
        geometry, network = geometry_of(arguments), UNet(arguments).eval()
        smallest, step = geometry.smallest_input, geometry.stride_factor
        for precision in (Precision.FP32, Precision.BF16):
            traced = ForwardMemory(network, bands, smallest, step, precision.dtype)
            for keep in (step, 512):
                sides = geometry.input_for(keep), geometry.input_for(1024)
                found = bytes_by_layers(arguments, *sides, precision.itemsize)
                assert found == traced.peak(*sides)


def test_items_are_as_large_as_torchs() -> None:
    assert all(each.itemsize == each.dtype.itemsize for each in Precision)


@pytest.mark.slow
def test_starting_does_not_load_the_compiler() -> None:
    code = (
        "import sys, tilepipe.engine.work.device;"
        "from tilepipe.models import ForwardMemory, load_model;"
        "import torch; m = load_model('nuclei-he'); g = m.geometry;"
        "f = ForwardMemory(m.network, 3, g.smallest_input, g.stride_factor, torch.float32);"
        "f.peak(700, 700);"
        "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_what_the_profiler_sees() -> None:
    network = UNet(UNetArguments(width=8, depth=2)).eval().to(memory_format=torch.channels_last)
    with (
        torch.inference_mode(),
        torch.profiler.profile(profile_memory=True, acc_events=True) as profile,
    ):
        x = torch.empty((1, 3, 252, 252)).to(memory_format=torch.channels_last)
        network(x)
    events = sorted(
        (event for event in profile.profiler.kineto_results.events() if event.nbytes()),  # type: ignore[union-attr]
        key=lambda event: event.start_ns(),
    )
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    # oneDNN's scratch memory and reordered weights come on top.
    assert 0.95 <= peak / forward_bytes(network, 3, 252, 252) <= 1.3


def test_a_relu_in_place_takes_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(inplace=True))
    assert forward_bytes(network, 1, 10, 10) == 100 * 4 * (1 + 4)


def test_what_is_let_go_of_does_not_count() -> None:
    network = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(9)))
    assert forward_bytes(network, 1, 10, 10) == 100 * 4 * 3


def test_half_precision_takes_half() -> None:
    network = UNet(UNetArguments(width=2, depth=2))
    full = forward_bytes(network, 3, 252, 252)
    assert forward_bytes(network, 3, 252, 252, torch.bfloat16) * 2 == full


def test_it_allocates_nothing() -> None:
    with torch.device("meta"):
        network = UNet()
    assert forward_bytes(network, 3, 40_012, 40_012) > 10**12


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_process_grows_about_as_much() -> None:
    environment = os.environ | {"THP_MEM_ALLOC_ENABLE": "1"}
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.8 < float(result.stdout) < 2
