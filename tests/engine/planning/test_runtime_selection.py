"""Runs by every runtime: exact, alike each time, within the memory foretold, chosen by speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import tilepipe
from tests.making import make_image, make_model, save_tiny, write_tiff
from tests.models.making import OTHERS, has_bf16
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.planning import measured, passes, runtime_selection, timing
from tilepipe.engine.planning.cost import PassCost, Timing
from tilepipe.engine.planning.passes import Passes
from tilepipe.engine.planning.runtime_selection import (
    RuntimeChoice,
    fastest_runtime,
    larger_to_time,
    quickest,
    worth_timing,
)
from tilepipe.engine.planning.timing import PassSettings, Sample
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.environment import environment, relevant_to
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Window
from tilepipe.models.precision import Precision
from tilepipe.models.unet import UNetArguments
from tilepipe.products.store import open_zarr_mask

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of odd sides."""
    return write_tiff(tmp_path_factory.mktemp("odd") / "odd.tif", make_image(613, 741))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of depth 2, so that windows may be small."""
    path = tmp_path_factory.mktemp("shallow") / "shallow.safetensors"
    save_tiny(path, UNetArguments(width=4, depth=2, outputs=3))
    return path


def labels(store: Path) -> NDArray[np.uint8]:
    mask = open_zarr_mask(store)
    return mask.read(Window(0, 0, *mask.shape))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_the_mask_is_exact_whatever_the_window_and_alike_each_time(
    name: str, odd: Path, shallow: Path, tmp_path: Path
) -> None:
    masks = []
    for i, window in enumerate((300, 404, 300)):
        store = tmp_path / str(i) / "m.ome.zarr"
        store.parent.mkdir()
        summary = tilepipe.run(
            odd, model=shallow, outputs=store, window=window, threads=1, runtime=name, verify=4
        )
        assert summary.plan.runtime == name
        assert summary.verification is not None
        assert summary.verification.exact, str(summary.verification)
        assert summary.verification.tie_bound == 1e-5
        masks.append(labels(store))
    assert np.array_equal(masks[0], masks[-1]), "the same window, the same bytes"
    assert (masks[1] != masks[0]).mean() < 1e-3, "ties at most"
    assert len(np.unique(masks[0])) == 3


@pytest.mark.slow
def test_what_a_runtime_computes_in_half_precision_is_judged_by_its_own_bound(
    odd: Path, shallow: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="no openvino here")
    if not has_bf16():
        pytest.skip("OpenVINO has no bf16 on this processor")
    summary = tilepipe.run(
        odd, model=shallow, outputs=tmp_path / "m.ome.zarr", window=404, threads=1,
        runtime="openvino", precision="bf16", verify=4,
    )  # fmt: skip
    assert summary.verification is not None
    assert summary.verification.exact, str(summary.verification)
    assert "half" in summary.plan.environment


@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_every_runtime_computes_tiles_that_are_cut_to_a_region(
    name: str, odd: Path, shallow: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"model": shallow, "threads": 1, "runtime": name}
    whole, part = tmp_path / "whole.ome.zarr", tmp_path / "part.ome.zarr"
    tilepipe.run(odd, outputs=whole, **asked)
    plan = tilepipe.run(odd, outputs=part, region=(64, 96, 300, 170), **asked).plan
    assert plan.region is not None
    assert plan.region.framed == (name != "compile")
    assert plan.coverage.work < 0.5 * plan.tiling.work
    there = (slice(64, 364), slice(96, 266))
    assert (labels(part)[there] != labels(whole)[there]).mean() < 1e-3, "ties at most"


def test_a_run_goes_on_with_the_runtime_it_began_with(
    odd: Path, shallow: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="no onnxruntime here")
    store = tmp_path / "m.ome.zarr"
    asked: dict[str, Any] = {"model": shallow, "outputs": store, "window": 404, "threads": 1}
    tilepipe.run(odd, runtime="onnxruntime", **asked)
    assert tilepipe.run(odd, **asked).plan.runtime == "onnxruntime"
    with pytest.raises(InputError, match="runtime was onnxruntime, now torch"):
        tilepipe.run(odd, runtime="torch", **asked)
    # Another version of the runtime rounds in another way.
    state = RunState(store)
    plan = state.read_plan()
    assert plan is not None
    assert plan.environment["onnxruntime"]
    state.freeze(replace(plan, environment=plan.environment | {"onnxruntime": "0.1"}))
    state.ledger_file.write_text("")
    (tmp_path / "m.run.json").unlink()
    with pytest.raises(InputError, match=r"another kind of worker \(onnxruntime 0.1 and"):
        tilepipe.run(odd, **asked)


def test_a_plan_of_before_there_were_runtimes_is_one_of_torch(
    odd: Path, shallow: Path, tmp_path: Path
) -> None:
    plan, _ = tilepipe.plan(odd, model=shallow, outputs=tmp_path / "m.ome.zarr")
    document = json.loads(plan.to_json())
    del document["runtime"]
    document["batch"] = 1
    assert Plan.from_json(json.dumps(document)) == plan


def test_only_small_types_depend_on_instructions_for_them() -> None:
    here = environment("cpu", 1)
    assert {"half", "int8"} <= set(here)
    for precision in ("fp32", "fp64"):
        assert not {"half", "int8"} & set(relevant_to(here, precision))
    assert set(relevant_to(here, "bf16")) == set(here) - {"int8"}, "as plans had it before int8"
    assert relevant_to(here, "int8") == here


class FakeDevice:
    """Logits and speeds as a test wants them."""

    logits_of: ClassVar[dict[str, float]] = {}
    seconds_of: ClassVar[dict[str, float]] = {}
    opened: ClassVar[list[str]] = []
    now = 0.0

    def __init__(self, model: Any, device: str, precision: str, threads: int, name: str) -> None:
        self.name = name
        self.opened.append(name)
        if self.logits_of.get(name, 0.0) < 0:
            raise InputError("is broken")

    def logits(self, *_: Any) -> NDArray[np.float64]:
        return np.array([0.0, 1.0 + self.logits_of.get(self.name, 0.0)])

    def answer(self, *_: Any) -> Any:
        from concurrent.futures import Future

        type(self).now += self.seconds_of[self.name]
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def close(self) -> None:
        pass


def fastest(
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[str, float],
    logits: dict[str, float] | None = None,
) -> RuntimeChoice:
    monkeypatch.setattr(FakeDevice, "seconds_of", {k: 1 / v for k, v in speeds.items()})
    monkeypatch.setattr(FakeDevice, "logits_of", logits or {})
    monkeypatch.setattr(FakeDevice, "opened", [])
    monkeypatch.setattr(timing, "Device", FakeDevice)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: FakeDevice.now)
    model = make_model(UNetArguments(width=1, depth=1))
    tile = Sample(np.zeros((76, 76, 3), np.uint8), None, (60, 60))
    reference = PassSettings("cpu", Precision.FP32, 1, "torch")
    return fastest_runtime(model, tile, reference, ("onnxruntime", "openvino"))


def test_the_fastest_is_taken_if_it_is_clearly_so(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"torch": 1.0, "onnxruntime": 1.2, "openvino": 1.5}
    choice = fastest(monkeypatch, speeds)
    assert choice.runtime == "openvino"
    assert [name for name, _ in choice.speeds] == ["torch", "onnxruntime", "openvino"]
    assert dict(choice.speeds)["openvino"] == pytest.approx(1.5 * 76 * 76)
    assert choice.warnings == ()
    close = fastest(monkeypatch, speeds | {"onnxruntime": 0.5, "openvino": 1.04})
    assert close.runtime == "torch"
    assert len(close.speeds) == 3


@pytest.mark.parametrize("error", [1e-4, 6e-6, float("nan")])
def test_one_that_does_not_agree_with_torch_is_left_out(
    error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {"torch": 1.0, "onnxruntime": 1.2, "openvino": 9.0}
    choice = fastest(monkeypatch, speeds, {"openvino": error})
    assert choice.runtime == "onnxruntime"
    assert "the tile that was timed, it differs from torch by" in choice.warnings[0]


def test_one_that_does_not_work_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"torch": 1.0, "onnxruntime": 9.0, "openvino": 1.0}
    choice = fastest(monkeypatch, speeds, {"onnxruntime": -1.0})
    assert choice.runtime == "torch"
    assert "onnxruntime does not work here (is broken)" in choice.warnings[0]


def cost_of(*timings: tuple[int, float, float], shrink: int = 0) -> PassCost:
    """The cost from square windows: side, seconds, and seconds of the first pass."""
    return PassCost(shrink, tuple(Timing(side, side, *seconds) for side, *seconds in timings))


def test_both_windows_give_what_is_fixed_and_what_a_pixel_costs() -> None:
    cost = cost_of((100, 0.02, 0.02), (200, 0.05, 0.06))
    assert cost.seconds(100, 100) == pytest.approx(0.02)
    assert cost.seconds(200, 200) == pytest.approx(0.05)
    assert cost.seconds(0, 0) == pytest.approx(0.01)
    assert cost.seconds(400, 400) == pytest.approx(0.17)
    # Where a busy machine held up the small one, neither part is nothing.
    disturbed = cost_of((100, 0.06, 0.06), (200, 0.05, 0.05))
    assert disturbed.seconds(0, 0) > 0
    assert disturbed.seconds(400, 400) > 2 * disturbed.seconds(200, 200)
    guess = PassCost.guess(0, (200, 200), 0.05)
    assert guess.seconds(200, 200) == pytest.approx(0.05)
    assert guess.seconds(400, 400) > 0.1
    assert guess.fresh({(400, 400): 1}) == 0
    shrinks = cost_of((100, 0.02, 0.02), (200, 0.05, 0.05), shrink=20)
    assert shrinks.seconds(200, 200) == pytest.approx(0.05)


def test_where_a_pixel_costs_more_is_found_by_a_larger_window() -> None:
    cost = cost_of((100, 0.01, 0.01), (200, 0.04, 0.04), (400, 0.16, 0.16))
    jump = cost.with_timing(Timing(800, 800, 1.12, 1.2))
    assert jump.seconds(400, 400) == cost.seconds(400, 400) == pytest.approx(0.16)
    assert jump.seconds(800, 800) == pytest.approx(1.12)
    assert jump.seconds(600, 600) == pytest.approx(0.56), "between them, evenly"
    assert jump.seconds(800, 1600) == pytest.approx(1.12 + 640_000 * 2e-6), "and on from there"
    faster = cost.with_timing(Timing(800, 800, 0.1, 0.1))
    assert faster.seconds(800, 800) > cost.seconds(400, 400), "no larger window takes less"


def test_fresh_memory_is_paid_for_once() -> None:
    cost = cost_of((100, 0.01, 0.03), (200, 0.04, 0.05), (400, 0.2, 0.5))
    assert cost.fresh({(400, 400): 9, (100, 100): 50}) == pytest.approx(0.3)
    assert cost.fresh({(200, 200): 9}) == pytest.approx(0.02), "never less for a larger window"
    assert cost.fresh({(50, 50): 1}) == pytest.approx(0.02)
    assert cost.fresh({}) == pytest.approx(0.02)
    assert cost.fresh({(800, 800): 1}) > 1


@pytest.mark.parametrize(
    ("size", "seconds", "keep"),
    [((5000, 5000), 1e3, 1024), ((1500, 900), 1e3, None), ((5000, 5000), 1.0, None)],
)
def test_larger_windows_are_timed_in_long_runs_of_large_images(
    size: tuple[int, int], seconds: float, keep: int | None
) -> None:
    geometry = Geometry()
    cost = cost_of((332, 0.01, 0.02), (572, 0.04, 0.05), shrink=92)
    assert larger_to_time(cost, geometry, size, seconds) == keep
    further = cost.with_timing(Timing(1212, 1212, 0.3, 0.4))
    assert larger_to_time(further, geometry, size, seconds) == (keep and 2 * keep)
    last = further.with_timing(Timing(2236, 2236, 1.0, 1.4))
    assert larger_to_time(last, geometry, size, seconds) is None


def test_the_quickest_run_is_taken_if_it_is_clearly_so() -> None:
    assert quickest("torch", {"torch": 20.0, "openvino": 15.0}) == "openvino"
    assert quickest("torch", {"torch": 20.0, "openvino": 18.9}) == "torch", "opening costs, too"
    assert quickest("torch", {"torch": 20.0}) == "torch"
    assert quickest("torch", {"torch": 8.0, "openvino": 7.9}, loaded=False) == "openvino"
    assert quickest("torch", {"torch": 8.0, "openvino": 8.5}, loaded=False) == "torch"


def test_measuring_is_a_small_share_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_selection, "MAX_TIME_SHARE", 0.05)
    assert worth_timing(1, pass_seconds=1.0, run_seconds=120)
    assert not worth_timing(1, pass_seconds=1.0, run_seconds=110)
    assert not worth_timing(2, pass_seconds=1.0, run_seconds=120)
    assert worth_timing(0, pass_seconds=1.0, run_seconds=60)
    assert not worth_timing(0, pass_seconds=1.0, run_seconds=50)


def test_a_larger_window_has_the_holes_of_its_tile() -> None:
    model = make_model(UNetArguments(width=1, depth=1), dtype="float32")
    pixels = make_image(60, 50).astype(np.float32)
    pixels[7:20] = np.nan
    tile = Sample(pixels, np.isfinite(pixels), (16, 16))
    settings = PassSettings("cpu", Precision.FP32, 1, "torch")
    found = timing.time_larger(model, tile, settings, 128)
    assert found.height == found.width == model.geometry.input_for(128)
    assert 0 < found.seconds <= found.first


def test_measurements_are_remembered_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "new"))
    keys = [measured.measurement_key(model="a", names=names) for names in (["b"], ["c"])]
    assert measured.recall(keys[0]) is None
    cost = cost_of((10, 0.5, 0.75), (20, 1.5, 2.5), shrink=4)
    choice = RuntimeChoice("b", (("b", 1.5),), ("it rains",), (("b", cost),))
    measured.remember(keys[0], choice)
    assert measured.recall(keys[0]) == choice
    assert measured.recall(keys[1]) is None
    monkeypatch.setattr(measured, "DAYS", 0)
    assert measured.recall(keys[0]) is None
    monkeypatch.undo()
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "new"))
    (tmp_path / "new" / "passes.json").write_text("[1")
    assert measured.recall(keys[0]) is None
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "new" / "passes.json"))
    measured.remember(keys[0], choice)  # a file is no folder: without an error


def test_short_runs_measure_nothing(
    odd: Path, shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr(passes, "fastest_runtime", refuse)
    # So that the run is short on any machine.
    monkeypatch.setattr(runtime_selection, "MAX_TIME_SHARE", 1e-9)
    plan, estimate = tilepipe.plan(odd, model=shallow, outputs=tmp_path / "m.ome.zarr")
    assert plan.runtime == "torch"
    assert estimate.speeds == ()


def test_the_next_short_run_times_nothing(
    odd: Path, shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_selection, "MAX_TIME_SHARE", 1e-9)
    asked: dict[str, Any] = {"model": shallow, "outputs": tmp_path / "m.ome.zarr"}
    plan, estimate = tilepipe.plan(odd, **asked)
    monkeypatch.setattr(passes, "speed_of", lambda *_: pytest.fail("timed again"))
    again, other = tilepipe.plan(odd, **asked)
    assert again == plan
    assert other.seconds == estimate.seconds
    with pytest.raises(pytest.fail.Exception, match="timed again"):
        tilepipe.plan(odd, **asked, threads=plan.threads + 1)


@pytest.mark.parametrize("region", [None, (30, 40, 500, 300)])
def test_what_was_measured_is_frozen_told_and_remembered(
    region: tuple[int, int, int, int] | None,
    odd: Path,
    shallow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino", reason="no openvino here")
    from tilepipe.cli.show import show_plan

    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_selection, "MAX_TIME_SHARE", 1e9)
    monkeypatch.setattr(runtime_selection, "MIN_SPEEDUP", -1.0)  # any but the reference
    asked: dict[str, Any] = {"model": shallow, "outputs": tmp_path / "m.ome.zarr"}
    plan, estimate = tilepipe.plan(odd, **asked, region=region)
    assert {name for name, _ in estimate.speeds} >= {"torch", "openvino"}
    assert plan.runtime == "openvino"
    assert (plan.region is not None) == (region is not None)
    assert f", {plan.runtime} (measured: torch " in show_plan(plan, estimate)
    assert estimate.warnings == ()
    for name in ("fastest_runtime", "speed_of"):
        monkeypatch.setattr(passes, name, lambda *_: pytest.fail("measured again"))
    assert tilepipe.plan(odd, **asked, region=region)[0] == plan


def test_a_long_run_takes_the_window_whose_passes_take_least(
    odd: Path, shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel costs ten times as much in large windows here, which only they tell."""
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_selection, "MAX_TIME_SHARE", 1e9)
    monkeypatch.setattr(runtime_selection, "LARGER_SHARE", 1e9)
    monkeypatch.setattr(runtime_selection, "LARGER", (608,))
    monkeypatch.setattr(Passes, "_others", [])
    timed: list[int] = []

    def area(plan: Plan) -> int:
        return plan.tiling.input[0] * plan.tiling.input[1]

    def stand_in(_: Device, tile: Sample) -> Timing:
        height, width = tile.pixels.shape[:2]
        timed.append(height)
        seconds = 10 + 1e-5 * height * width * (20 if height > 600 else 1)
        return Timing(height, width, seconds, seconds)

    monkeypatch.setattr("tilepipe.engine.planning.timing.timed", stand_in)
    asked: dict[str, Any] = {"model": shallow, "outputs": tmp_path / "m.ome.zarr"}
    found = tilepipe.plan(odd, **asked)[0]
    assert area(found) < 600**2 < max(timed) ** 2
    timed.clear()
    assert tilepipe.plan(odd, **asked)[0] == found
    assert not timed, "it is remembered"
    monkeypatch.setattr(runtime_selection, "LARGER_SHARE", 0.0)
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "another"))
    assert area(tilepipe.plan(odd, **asked)[0]) > 600**2, "a short run times none"


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from tests.engine.making import foretold
from tests.making import make_model
from tilepipe.engine.work.device import Device
from tilepipe.models.unet import UNetArguments

name, width, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

model = make_model(UNetArguments(width=width))
bound = foretold(model, name, side)
pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
device = Device(model, "cpu", "fp32", 1, name)
for less in (0, 0, 0, 16, 32, 48, 64):  # tiles of a region have many shapes
    device.answer(pixels[less:, 2 * less :], None, (16, 16)).result()
print((status("VmHWM") - before) / bound)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "width", "side"),
    [
        ("torch", 4, 892), ("torch", 32, 412),
        *(pytest.param(*other.values, 4, 892, marks=other.marks) for other in OTHERS),
    ],
)  # fmt: skip
def test_a_pass_keeps_to_the_memory_foretold(name: str, width: int, side: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, name, str(width), str(side)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 0.1 < float(result.stdout) < 1
