"""Memory is computed before anything runs, and the window is the least work within it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import tilepipe
from tests.making import make_image, make_model, write_tiff
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.cost import PassCost
from tilepipe.engine.planning.facts import image_facts
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.sizing import _larger_blocks, choose_tiling
from tilepipe.engine.resources import Resources
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Tiling, candidate_tilings
from tilepipe.images import open_image
from tilepipe.images.tiff import TiffSource
from tilepipe.models.unet import UNetArguments
from tilepipe.quantities import parse_bytes

ALONE = Resources(1, in_process=True, slots=3)


def chosen(
    path: Path, limit: int, crew: Resources = ALONE, device: str = "cpu"
) -> tuple[Tiling, int]:
    """The tiling chosen and what it needs."""
    image, model = open_image(path), make_model(UNetArguments(width=8))
    options = RunOptions(str(path))
    memory = MemoryModel(image, 0, model, crew, device, "fp32", extras=())
    memory._base = 200 * 10**6
    facts = image_facts(image, choose_scale(image, model, options))
    tiling = choose_tiling(model, facts, memory, limit, options, crew)
    image.close()
    return tiling, memory.total(tiling)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiff(tmp_path_factory.mktemp("image") / "i.tif", make_image(3000, 3100))


@pytest.mark.slow
def test_more_memory_means_less_work_and_never_more_than_allowed(path: Path) -> None:
    works = []
    for limit in (330, 400, 600, 1000, 4000):
        tiling, needed = chosen(path, limit * 10**6)
        assert needed <= limit * 10**6
        works.append(tiling.work)
    assert works == sorted(works, reverse=True)
    assert works[0] > 1.3 * works[-1]


def test_with_room_enough_the_time_is_the_least_there_is(path: Path) -> None:
    tiling, _ = chosen(path, 64 * 10**9)
    geometry = tiling.geometry
    cost = PassCost.guess(geometry.shrink)
    candidates = candidate_tilings(3000, 3100, geometry, 2048)
    least = min(t.forward_passes * cost.seconds(*t.input) for t in candidates)
    assert tiling.forward_passes * cost.seconds(*tiling.input) == least


def test_a_network_that_sees_single_pixels_gets_large_windows(path: Path) -> None:
    # Whatever its window, it does the same work: only passes cost.
    model = make_model(UNetArguments(width=1, depth=1))
    model = replace(model, geometry=Geometry(16, 16, 0, 1))
    image, options = open_image(path), RunOptions(str(path))
    memory = MemoryModel(image, 0, model, ALONE, "cpu", "fp32", extras=())
    facts = image_facts(image, choose_scale(image, model, options))
    tiling = choose_tiling(model, facts, memory, 10**10, options, ALONE)
    image.close()
    assert tiling.forward_passes <= 4
    assert tiling.work <= 1.1 * 3000 * 3100


def test_small_windows_share_a_block_where_there_are_many() -> None:
    geometry = Geometry()
    small = Tiling(16384, 12000, (1024, 1024), (1024, 1024), geometry)
    larger = list(_larger_blocks(small, 1))
    assert larger[0].block == (2048, 2048)
    assert larger[-1].block == small.block
    assert all(each.forward_passes == small.forward_passes for each in larger)
    few = Tiling(4096, 4096, (1024, 1024), (1024, 1024), geometry)
    assert [len(each) for each in _larger_blocks(few, 1)] == [8, 8, 16]
    assert [each.block for each in _larger_blocks(few, 2)] == [few.block]
    assert not list(_larger_blocks(few, 3)), "as few as they are"
    uneven = Tiling(16384, 16384, (1024, 1024), (768, 768), geometry)
    assert [each.block for each in _larger_blocks(uneven, 1)] == [uneven.block], "fewer tiles"


@pytest.mark.slow
def test_an_image_of_one_large_strip_is_refused_before_any_of_it_is_read(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((4000, 4000, 3), np.uint8)
    tiled = write_tiff(tmp_path / "tiled.tif", pixels)
    strip = tmp_path / "strip.tif"
    tifffile.imwrite(strip, pixels, rowsperstrip=4000, compression="zlib", photometric="rgb")
    given: dict[str, Any] = {"model": model, "pixel_size": 0.25}
    _, needed = tilepipe.plan(tiled, window=220, **given)
    memory = needed.memory + 10**8  # its window fits; that of the strip lacks 1.3 GB

    monkeypatch.setattr(TiffSource, "read", lambda *_: pytest.fail("it was read"))
    for options in ({}, {"tissue": "auto"}, {"window": 572}):
        with pytest.raises(InputError, match=r"decoded 4000 x 4000 .* tilepipe convert .*strip"):
            tilepipe.plan(strip, memory=memory, **given, **options)
        with pytest.raises(InputError, match="tilepipe convert"):
            tilepipe.plan(strip, memory=150 * 10**6, **given, **options)  # alone beyond


@pytest.mark.slow
def test_several_workers_are_all_given_work(path: Path) -> None:
    tiling, _ = chosen(path, 64 * 10**9, Resources(4, in_process=False, slots=3))
    assert len(tiling) >= 4


def test_what_cannot_fit_is_refused_with_what_would(path: Path) -> None:
    with pytest.raises(
        InputError, match=r"204 x 204 \(width x height\), needs 0\.\d+ GB, and --memory is 0.10 GB"
    ):
        chosen(path, 10**8)


def test_workers_elsewhere_are_bounded_each(path: Path) -> None:
    local = chosen(path, 64 * 10**9, Resources(8, in_process=False, slots=3))[1]
    remote = chosen(path, 64 * 10**9, Resources(8, in_process=False, slots=3, local=False))[1]
    assert 6 < local / remote < 10


def test_more_blocks_are_in_hand_only_as_far_as_memory_goes(path: Path) -> None:
    image, model = open_image(path), make_model(UNetArguments(width=8))
    crew = replace(ALONE, most_slots=8)
    memory = MemoryModel(image, 0, model, crew, "cpu", "fp32", extras=())
    tiling = choose_tiling(
        model, image_facts(image, choose_scale(image, model, RunOptions(str(path)))), memory,
        64 * 10**9, RunOptions(str(path)), crew,
    )  # fmt: skip
    image.close()
    planned = memory.total(tiling)
    assert memory.slots(tiling, 64 * 10**9) == 8
    assert memory.slots(tiling, planned) == memory.slots(tiling, 0) == ALONE.slots
    for slots in range(ALONE.slots, 9):
        needed = memory.with_slots(slots).total(tiling)
        assert memory.slots(tiling, needed) == slots
        assert memory.slots(tiling, needed - 1) == max(ALONE.slots, slots - 1)
    alone = MemoryModel(image, 0, model, ALONE, "cpu", "fp32", extras=())
    assert alone.slots(tiling, 64 * 10**9) == ALONE.slots


@pytest.mark.slow
def test_a_small_gpu_takes_a_smaller_window(path: Path) -> None:
    free, _ = chosen(path, 64 * 10**9, device="cuda")
    crew = replace(ALONE, gpu_memory=250 * 10**6)
    tight, _ = chosen(path, 64 * 10**9, crew, device="cuda")
    assert tight.input < free.input
    with pytest.raises(InputError, match="of the GPU's"):
        chosen(path, 64 * 10**9, replace(ALONE, gpu_memory=10**6), device="cuda")


@pytest.mark.parametrize(
    ("text", "value"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("800m", 8 * 10**8), ("4096", 4096), (7, 7)],
)
def test_amounts_of_memory_are_read_as_people_write_them(text: str | int, value: int) -> None:
    assert parse_bytes(text) == value
