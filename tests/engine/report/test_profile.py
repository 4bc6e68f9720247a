"""`--profile`: the table is what the record says, and the plot is one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as Picture

import tilepipe
from tests.making import WINDOW
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report import profile
from tilepipe.engine.report.profile import write_profile
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.state.ledger import Ledger, read_ledger
from tilepipe.grid import Tiling


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def profiled(image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mask of a run with --profile."""
    mask = tmp_path_factory.mktemp("profiled") / "mask.ome.zarr"
    summary = tilepipe.run(image, model=model, outputs=[mask], window=WINDOW, profile=True)
    assert [p.name for p in summary.profile] == ["mask.profile.csv", "mask.profile.png"]
    return mask


def test_sums_are_those_of_the_record(profiled: Path) -> None:
    rows = rows_of(profiled.with_name("mask.profile.csv"))
    record = json.loads(profiled.with_name("mask.run.json").read_text())
    assert sorted(int(row["number"]) for row in rows) == list(range(record["blocks"]["total"]))
    assert {row["run"] for row in rows} == {"this"}
    for phase in ("read", "wait", "compute", "write"):
        total = sum(float(row[phase]) for row in rows)
        assert total == pytest.approx(record["seconds"][phase], abs=1e-3)
    assert sum(int(row["pixels"]) for row in rows) == record["pixels"]["answered"]
    assert record["bottleneck"]["part"] in ("computing", "reading", "writing", "waiting")


def test_the_plot_is_a_picture(profiled: Path) -> None:
    with Picture.open(profiled.with_name("mask.profile.png")) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 4


@pytest.mark.slow
def test_a_resumed_run_marks_the_blocks_of_the_earlier_one(
    image: Path, model: Path, tmp_path: Path
) -> None:
    class Stop(RunCallbacks):
        def block(self, receipt: object) -> None:
            raise KeyboardInterrupt

    mask = tmp_path / "mask.ome.zarr"
    options = {"model": model, "outputs": [mask], "window": WINDOW, "profile": True}
    with pytest.raises(KeyboardInterrupt):
        tilepipe.run(image, watch=Stop(), **options)
    done = sum(record["kind"] == "block" for record in read_ledger(RunState(mask).ledger_file))
    summary = tilepipe.run(image, **options)
    rows = rows_of(tmp_path / "mask.profile.csv")
    runs = [row["run"] for row in rows]
    assert runs.count("earlier") == done == summary.resumed
    assert len(rows) == summary.blocks
    before = (tmp_path / "mask.profile.csv").read_bytes()
    again = tilepipe.run(image, **options)  # nothing to do: the profile stays that of who did it
    assert (tmp_path / "mask.profile.csv").read_bytes() == before
    assert again.bottleneck is None
    assert len(again.profile) == 2


@pytest.mark.slow
def test_overwrite_removes_it(profiled: Path, image: Path, model: Path, tmp_path: Path) -> None:
    mask = shutil.copytree(profiled.parent, tmp_path / "copy") / profiled.name
    assert mask.with_name("mask.profile.csv").exists()
    tilepipe.run(image, model=model, outputs=[mask], window=WINDOW, overwrite=True)
    assert mask.is_dir()
    assert not mask.with_name("mask.profile.csv").exists()
    assert not mask.with_name("mask.profile.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("side", "workers"), [(4096, 2), (20000, 1), (20000, 30)])
def test_many_blocks_and_workers(
    image: Path, model: Path, tmp_path: Path, side: int, workers: int
) -> None:
    plan = _plan(image, model)
    tiling = Tiling(side, side, (1024, 1024), (1024, 1024), plan.tiling.geometry)
    plan = replace(plan, image=replace(plan.image, height=side, width=side), tiling=tiling)
    with Ledger(tmp_path / "ledger") as ledger:
        for n in tiling:
            receipt = BlockReport(
                n, (1,), tiling.block_window(n).area, 0, 0.2, 0.5, 0.1, f"w{n % workers}", 0,
                begin=1e9 + n // workers, wait=0.1,
            )  # fmt: skip
            ledger.append(receipt.to_record())
    written = write_profile(tmp_path / "ledger", 0, plan, tmp_path / "big.run.json", None)
    rows = rows_of(written[0])
    assert len(rows) == len(tiling)
    assert sum(int(row["pixels"]) for row in rows) == side * side
    with Picture.open(written[1]) as picture:
        assert picture.height < 1000


def test_time_is_spread_over_the_steps_it_lies_in() -> None:
    times = profile._Times(first=0.0, last=float(profile.STEPS), blocks=1)
    row = times.pixels
    times.spread(row, 1.5, 2.0, 100.0)
    assert row[:5].tolist() == [0, 25, 50, 25, 0]
    times.spread(row, 10.0, 0.0, 7.0)  # in no time at all
    assert row[10] == pytest.approx(7)
    times.spread(row, profile.STEPS - 0.5, 0.5, 3.0)
    assert row.sum() == pytest.approx(110)


@pytest.mark.slow
def test_the_peak_of_a_process_is_its_own() -> None:
    """Not what the process that started it had taken: getrusage would say so."""
    code = "from tilepipe.engine.work.block import peak_memory; print(peak_memory())"
    heavy = (
        "import subprocess, sys; b = bytearray(1_000_000_000); b[::4096] = b'x' * len(b[::4096]);"
        f"print(subprocess.run([sys.executable, '-c', {code!r}], capture_output=True, text=True, "
        "check=True).stdout)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells")
    result = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert 50e6 < int(result.stdout) < 0.9e9


def _plan(image: Path, model: Path) -> Plan:
    return tilepipe.plan(image, model=model, window=WINDOW)[0]
