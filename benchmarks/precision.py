"""What bf16 and int8 gain in speed, and what they cost in labels and in scores.

    python benchmarks/precision.py ../shared/data [--windows 1148] [--rounds 7] [--images 6]

Three parts. Speed: passes of one window by each precision and runtime, all in turns in one process,
medians. Labels: CMU-1-Small-Region computed whole in int8 and in fp32, pixel by pixel. Scores: of
labelled images, the first of each data set, each with the network that a run would quantise for it
(calibrated on tiles of that image), against fp32: Dice of nuclei, and F1 of objects by the rule of
`objects_quality.py`.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, command_line, fresh, parse, record
from numpy.typing import NDArray
from objects_quality import NUCLEUS, Case, cases, true_objects

import tilepipe
from tilepipe.engine.hardware import bf16_in_hardware
from tilepipe.engine.options import RunOptions
from tilepipe.engine.planning.planning import plan_alone
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.work.device import Device
from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.grid import Window
from tilepipe.images.reading import Reading
from tilepipe.models.predictors.quantised import with_network
from tilepipe.models.specs import Model

THREADS = len(os.sched_getaffinity(0))
KINDS = [("fp32", "torch"), ("fp32", "openvino"), ("bf16", "torch"), ("bf16", "openvino"),
         ("int8", "openvino")]  # fmt: skip


def labels_of_a_slide(slide: Path, region: str | None) -> Path:
    """Compute a slide in int8 and in fp32 and compare; returns the store of int8."""
    stores = {name: WORK / f"precision_{name}.ome.zarr" for name in ("int8", "fp32")}
    fresh(*stores.values(), *(WORK / f"precision_{name}.run.json" for name in stores))
    planes, summaries = {}, {}
    for name, store in stores.items():
        summaries[name] = tilepipe.run(
            slide, outputs=store, precision=name, runtime="auto" if name == "int8" else "torch",
            region=region, max_label_change=1.0 if name == "int8" else None,
        )  # fmt: skip
        mask = tilepipe.open_mask(store)
        planes[name] = np.squeeze(mask.read(Window(0, 0, *mask.shape)))
        mask.close()
    known = planes["fp32"] != 255
    change = summaries["int8"].plan.change
    record(
        "precision", f"nuclei-he, {slide.name}, int8",
        [
            ("labels that differ from fp32's", 100 * differing(planes, known), "%", ""),
            ("Dice between the two", dice(*(planes[n] == NUCLEUS for n in stores)), "", ""),
            ("labels that differ, as the plan measured", 100 * change.share, "%", ""),
            ("trial and planning", summaries["int8"].seconds["start"], "s", ""),
            ("planning in fp32", summaries["fp32"].seconds["start"], "s", ""),
        ],
    )  # fmt: skip
    return stores["int8"]


def differing(planes: dict[str, NDArray[Any]], known: NDArray[np.bool_]) -> float:
    """The share of labels that differ, among those with an answer."""
    return float(((planes["int8"] != planes["fp32"]) & known).sum() / known.sum())


def dice(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Of two masks; 1 where both are empty."""
    total = int(ours.sum() + theirs.sum())
    return 2 * int((ours & theirs).sum()) / total if total else 1.0


def speed_of_passes(model: Model, network: bytes, side: int, rounds: int) -> None:
    """Time passes of a window, all kinds in turns."""
    kinds = [kind for kind in KINDS if kind[0] != "bf16" or bf16_in_hardware()]
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    keep = (model.geometry.kept(side),) * 2
    quantised = with_network(model, network)
    devices = {
        (precision, runtime): Device(
            quantised if precision == "int8" else model, "cpu", precision, THREADS, runtime
        )
        for precision, runtime in kinds
    }
    walls: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    cpus: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    for turn in range(rounds + 1):
        for kind, device in devices.items():
            begin, cpu = time.perf_counter(), time.process_time()
            device.answer(pixels, None, keep).result()
            if turn:  # the first builds kernels
                walls[kind].append(time.perf_counter() - begin)
                cpus[kind].append(time.process_time() - cpu)
    millions = side**2 / 1e6
    for kind, device in devices.items():
        device.close()
        record(
            "precision", f"nuclei-he, {side} x {side} in: {', '.join(kind)}",
            [
                ("input", millions / statistics.median(walls[kind]), "Mpx/s", ""),
                ("processor time", statistics.median(cpus[kind]) / millions, "s/Mpx", ""),
                ("load of the machine", os.getloadavg()[0], "", ""),
            ],
        )  # fmt: skip


def scores(case: Case) -> None:
    """Score fp32 and int8 on the labelled images of a case."""
    found: dict[str, list[tuple[float, ObjectCounts]]] = {"fp32": [], "int8": []}
    rule = case.rules[2]
    for path in case.images:
        truth = true_objects(case.truths / path.name)
        bands = (1,) if case.model == "nuclei-fluo" else (1, 2, 3)
        options = RunOptions(
            image=str(path), model=case.model, outputs=(str(WORK / "none.ome.zarr"),), bands=bands,
            level=0, precision="int8", max_label_change=1.0,
        )  # fmt: skip
        quantised = plan_alone(options).settled.model
        for precision, model, runtime in (
            ("fp32", tilepipe.load_model(case.model), "torch"),
            ("int8", quantised, "openvino"),
        ):
            labels = whole(model, precision, runtime, path, bands)
            counts = ObjectCounts.of(rule.objects(labels), truth)
            found[precision].append((dice(labels == NUCLEUS, truth > 0), counts))
    means = {name: statistics.fmean(d for d, _ in pairs) for name, pairs in found.items()}
    f1 = {name: sum((c for _, c in pairs), ObjectCounts()).f1 for name, pairs in found.items()}
    record(
        "precision", f"{case.model} on {case.name}",
        [
            ("images", len(case.images), "", ""),
            ("Dice in fp32, mean over images", means["fp32"], "", ""),
            ("Dice in int8, mean over images", means["int8"], "", ""),
            ("Dice lost", means["fp32"] - means["int8"], "", "<= 0.005"),
            ("object F1 in fp32", f1["fp32"], "", ""),
            ("object F1 in int8", f1["int8"], "", ""),
        ],
    )  # fmt: skip


def whole(
    model: Model, precision: str, runtime: str, path: Path, bands: tuple[int, ...]
) -> NDArray[Any]:
    """The labels of an image in one window, at its own pixels, (H, W)."""
    factor = model.geometry.stride_factor
    with tilepipe.open_image(str(path), Reading(bands=bands)) as image:
        height, width, _ = image.shape
        keep = (-(-height // factor) * factor, -(-width // factor) * factor)
        pixels = image.read(model.geometry.window_for(Window(0, 0, *keep)))
    device = Device(model, "cpu", precision, THREADS, runtime)
    try:
        return np.squeeze(device.answer(pixels, None, keep).result().mask)[:height, :width]
    finally:
        device.close()


def main() -> None:
    """Measure speed, labels and scores."""
    parser = command_line(__doc__)
    parser.add_argument("data", type=Path, help="folder of the real images (docs/data.md)")
    parser.add_argument("--windows", type=int, nargs="+", default=[1148])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=6, help="of each data set, the first ones")
    parser.add_argument("--region", help="Y,X,HEIGHT,WIDTH of the slide, instead of all of it")
    options = parse(parser, windows=[204], rounds=1, images=1, region="1000,1000,300,300")
    store = labels_of_a_slide(options.data / "wsi" / "CMU-1-Small-Region.svs", options.region)
    network = RunState(store).network_file.read_bytes()
    for side in options.windows:
        speed_of_passes(tilepipe.load_model("nuclei-he"), network, side, options.rounds)
    for case in cases(options.data):
        scores(replace(case, images=tuple(islice(case.images, options.images))))


if __name__ == "__main__":
    main()
