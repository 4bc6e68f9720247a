"""Which part of a run is called its bottleneck, on made-up receipts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tilepipe.engine.events import BlockReport
from tilepipe.engine.report.bottleneck import Bottleneck, Setting, find_bottleneck
from tilepipe.engine.state.totals import Totals
from tilepipe.models.unet import UNetArguments

HERE = Setting(1, 3, in_process=True, local=True, gpu=False, precision="fp32", bf16=False)


def receipts(count: int, read: float, wait: float, compute: float, write: float) -> Totals:
    timings = Totals()
    for n in range(count):
        timings.add(BlockReport(n, (1,), 1, 0, read, compute, write, "0", 0, wait=wait))
    return timings


def found(wall: float, timings: Totals, place: Setting = HERE, **others: float) -> Bottleneck:
    result = find_bottleneck({"blocks": wall, **others}, timings, place)
    assert result is not None
    assert sum(result.shares.values()) == pytest.approx(1)
    return result


def test_a_busy_device_computes_whatever_the_reading_takes() -> None:
    # Reading in the shadow of computing costs nothing, however long it takes.
    result = found(101, receipts(100, 1.5, 0.4, 1, 0.1))
    assert result.part == "computing"
    assert result.share == pytest.approx(100 / 101)
    assert result.sure
    assert "GPU" in result.help
    assert "bf16" not in result.help


def test_bf16_is_named_only_where_the_processor_has_it() -> None:
    timings = receipts(100, 0.1, 1.9, 1, 0.1)
    assert "--precision bf16" in found(101, timings, replace(HERE, bf16=True)).help
    assert "bf16" not in found(101, timings, replace(HERE, bf16=None)).help
    gpu = found(101, timings, replace(HERE, gpu=True, precision="fp16", bf16=True))
    assert "bf16" not in gpu.help
    assert "GPU was busy" in gpu.what


def test_tissue_is_recommended_only_where_it_would_spare_work() -> None:
    timings = receipts(100, 0.1, 1.9, 1, 0.1)
    assert "--tissue auto" in found(101, timings, replace(HERE, tissue=True)).help
    assert "--tissue" not in found(101, timings).help


def test_a_device_that_is_idle_most_of_the_time_waits_for_something() -> None:
    gpu = replace(HERE, slots=12, gpu=True, precision="fp16")
    # Busy for 43 %: more than reading (21 %) or writing (33 %), and yet not what takes the time.
    result = found(3.9, receipts(64, 0.3, 0.02, 0.026, 0.4), gpu)
    assert result.shares["computing"] == pytest.approx(0.43, abs=0.01)
    assert result.part == "writing"
    assert "--workers 2" in result.help
    assert "share the GPU" in result.help
    result = found(3.9, receipts(64, 0.4, 0.02, 0.026, 0.3), gpu)
    assert result.part == "reading"
    assert "share the GPU" in result.help
    assert "GPU" not in found(3.9, receipts(64, 0.4, 0.02, 0.026, 0.3)).help


def test_slow_reading() -> None:
    # Three slots, each 3.6 s a block, of which 0.5 compute.
    result = found(120, receipts(100, 3.0, 0, 0.5, 0.1))
    assert result.part == "reading"
    assert result.share > 0.5
    assert "tilepipe convert" in result.help
    assert "42%" in result.what


def test_slow_writing() -> None:
    result = found(120, receipts(100, 0.1, 0, 0.5, 3.0))
    assert result.part == "writing"
    assert "tilepipe doctor" in result.help


def test_empty_slots_wait_for_a_scheduler() -> None:
    cluster = Setting(4, 3, in_process=False, local=False, gpu=False, precision="fp32")
    result = found(100, receipts(200, 0.1, 0, 0.5, 0.1), cluster)
    assert result.part == "waiting"
    assert "scheduler" in result.help


def test_too_few_blocks_for_the_workers() -> None:
    crew = Setting(8, 3, in_process=False, local=True, gpu=False, precision="fp32")
    result = found(10, receipts(2, 0.5, 0, 9, 0.1), crew)
    assert result.part == "waiting"
    assert "2 blocks for 24 slots" in result.what
    assert "fewer workers" in result.help
    assert not result.sure


def test_int8_is_named_where_the_plan_offered_it() -> None:
    slow = receipts(100, 0.1, 1.9, 1, 0.1)
    assert "int8" not in found(101, slow).help
    assert "or --precision int8" in found(101, slow, replace(HERE, offered="--precision int8")).help


def test_a_short_run_says_so() -> None:
    result = found(0.9, receipts(1, 0.1, 0, 0.7, 0.1), start=4.0, exports=0.1)
    assert not result.sure
    assert "short run, 1 block in 0.9 s" in result.what
    assert "starting took longer than the blocks, 4.0 s" in result.what


def test_nothing_computed_nothing_said() -> None:
    assert find_bottleneck({"blocks": 0.1}, Totals(), HERE) is None


def test_a_receipt_of_an_older_ledger_has_no_begin_and_no_wait() -> None:
    receipt = BlockReport(3, (1, 2), 3, 0, 0.1, 0.2, 0.3, "0", 7, begin=12.5, wait=0.5)
    record = receipt.to_record()
    assert BlockReport.from_record(record).begin == 12.5
    del record["begin"], record["wait"]
    old = BlockReport.from_record(record)
    assert (old.number, old.begin, old.wait, old.write) == (3, 0.0, 0.0, 0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("region", "tissue"), [(None, True), ((0, 0, 60, 60), False)])
def test_a_run_that_leaves_parts_out_already_is_not_told_to(
    region: Any, tissue: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Setting] = []
    monkeypatch.setattr(
        "tilepipe.engine.run.job.find_bottleneck", lambda _, __, setting: seen.append(setting)
    )
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=1))
    image = write_tiff(tmp_path / "image.tif", make_image(120, 110))
    tilepipe.run(
        image,
        model=tmp_path / "m.safetensors",
        outputs=tmp_path / "m.ome.zarr",
        region=region,
        window=572,
    )
    assert [setting.tissue for setting in seen] == [tissue]
