"""Moving memory to huge pages, where Linux can."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.making import make_model
from tilepipe.models.precision import Precision
from tilepipe.models.runtimes import huge_pages, installed
from tilepipe.models.runtimes.huge_pages import LEAST_BYTES, collapse_large_memory
from tilepipe.models.unet import UNetArguments

SMAPS = Path("/proc/self/smaps")


def fresh(size: int) -> NDArray[np.int64]:
    """An array in memory of its own, which is not there before it is written."""
    private = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private.madvise(mmap.MADV_DONTFORK)  # unlike its neighbours, which would be joined with it
    return np.frombuffer(private, np.int64)


def of_mapping(array: NDArray[np.int64], name: str) -> int:
    """A figure of the mapping of an array, in bytes: ``Rss``, ``AnonHugePages``."""
    address = array.__array_interface__["data"][0]
    inside = False
    for line in SMAPS.read_text().splitlines():
        if edges := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(edges[1], 16) <= address < int(edges[2], 16)
        elif inside and line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no mapping")


def collapse(array: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the memory of an array, if it is taken: this process goes on with other tests."""
    address, found = array.__array_interface__["data"][0], huge_pages._large_mappings

    def own(maps: str) -> list[tuple[int, int]]:
        return [(start, size) for start, size in found(maps) if start <= address < start + size]

    monkeypatch.setattr(huge_pages, "_large_mappings", own)
    collapse_large_memory()


@pytest.mark.skipif(not SMAPS.exists(), reason="not Linux")
def test_large_memory_is_moved_and_keeps_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    array = fresh(2 * LEAST_BYTES)
    array[:] = np.arange(array.size)
    before = of_mapping(array, "AnonHugePages")
    collapse(array, monkeypatch)
    after = of_mapping(array, "AnonHugePages")
    if after == 0:
        pytest.skip("this kernel does not move memory to huge pages")
    assert after >= max(before, LEAST_BYTES)
    np.testing.assert_array_equal(array, np.arange(array.size))


@pytest.mark.skipif(not SMAPS.exists(), reason="not Linux")
def test_memory_that_is_hardly_used_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    array = fresh(4 * LEAST_BYTES)
    array[:: (1 << 21) // 8] = 1  # a page of each huge one
    collapse(array, monkeypatch)
    assert of_mapping(array, "AnonHugePages") == 0


def test_only_large_memory_without_a_name_that_is_used_is_taken() -> None:
    maps = "".join(
        f"{first}\nSize: 65536 kB\nRss: {rss} kB\nPss: 65536 kB\nVmFlags: rd wr\n"
        for first, rss in [
            ("7f0000000000-7f0004000000 rw-p 00000000 00:00 0", 64000),
            ("7f1000000000-7f1000001000 rw-p 00000000 00:00 0", 65536),
            ("7f2000000000-7f2004000000 r--p 00000000 00:00 0", 65536),
            ("7f3000000000-7f3004000000 rw-p 00000000 08:01 77 /a/file", 65536),
            ("7f4000000000-7f4004000000 rw-p 00000000 00:00 0 [heap]", 65536),
            ("7f5000000000-7f5004000000 rw-p 00000000 00:00 0", 60000),
        ]
    )
    assert huge_pages._large_mappings(maps) == [(0x7F0000000000, 1 << 26)]


def test_where_there_is_no_such_list_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "_MAPS", tmp_path / "none")
    collapse_large_memory()


@pytest.mark.skipif(not installed("openvino"), reason="no openvino here")
def test_memory_is_moved_once_for_the_largest_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilepipe.models.runtimes import openvino_cpu

    sides = [16, 32, 16, 32, 32, 16, 32, 64, 32, 32, 32]
    moved: list[int] = []
    monkeypatch.setattr(openvino_cpu, "LARGE_PIXELS", 1)
    monkeypatch.setattr(openvino_cpu.OpenVino, "_settled_after", 3)
    monkeypatch.setattr(openvino_cpu, "collapse_large_memory", lambda: moved.append(len(seen)))
    model = make_model(UNetArguments(width=1, depth=1, padding="same"))
    runtime = model.predictor.open("cpu", Precision.FP32, 1, "openvino")
    seen: list[int] = []
    for side in sides:
        seen.append(side)
        runtime(np.zeros((1, 3, side, side), np.float32))
    assert moved == [4, 10], "before the third since it grew"
