"""How far images lie from the shipped models, and what that costs: where a plan should warn.

    python benchmarks/likeness.py ../shared/data [--images 12]

First the distances of whole groups of images (`tilepipe.engine.planning.likeness`), and the
time of a look.
Then the scores of `nuclei-he` on H&E whose stains are made weaker or stronger, or the light of
another colour, step by step, beside the distances: the threshold should lie where scores fall.
(Stains as in Ruifrok and Johnston 2001. The model has seen all images of TNBC in training, so that
their scores are higher than those of new ones; what counts is how they fall.)
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tifffile
from common import command_line, parse, record, sample_slide
from skimage.color import hed2rgb, rgb2hed
from skimage.io import imread

import tilepipe
from tilepipe.engine.planning.likeness import Likeness, compare
from tilepipe.engine.work.device import Device
from tilepipe.grid import Window
from tilepipe.images.reading import Reading
from tilepipe.models import load_model

Change = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Measure groups, then changes of stain."""
    parser = command_line(__doc__)
    parser.add_argument("data", type=Path, help="folder of the real images (docs/data.md)")
    parser.add_argument("--images", type=int, default=12, help="of each set whose stains change")
    options = parse(parser, images=1)
    few = 1 if options.quick else None
    for model in ("nuclei-he", "nuclei-fluo"):
        for name, paths in groups(options.data, model, quick=options.quick).items():
            measure_group(model, name, paths[:few])
    tnbc, others = options.data / "nuclei/tnbc", options.data / "nuclei/dsb2018_test/stained"
    changes = dict(list(stain_changes().items())[:few])
    for folder, name in ((tnbc, "TNBC"), (others, "Data Science Bowl, test, stained")):
        images = sorted((folder / "images").iterdir())
        images = images[:: max(1, len(images) // options.images)][: options.images]
        for change, function in changes.items():
            measure_change(images, folder / "masks", f"{name}: {change}", function)
    for image in sorted((others / "images").iterdir())[:few]:
        measure_change([image], others / "masks", f"{image.stem} as it is", lambda pixels: pixels)


def groups(data: Path, model: str, *, quick: bool) -> dict[str, list[Path]]:
    """Images by kind: the model's own, others of its kind, and what is foreign to it."""
    nuclei, bowl = data / "nuclei", data / "nuclei/dsb2018"
    with (bowl / "index.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    kinds = {
        f"Data Science Bowl, {kind}": [
            bowl / "images" / f"{row['id']}.png" for row in rows if row["kind"] == kind
        ]
        for kind in ("stained_purple_white", "stained_purple", "fluo", "gray_bright")
    }
    test = nuclei / "dsb2018_test"
    found = {
        "TNBC": sorted((nuclei / "tnbc/images").iterdir()),
        **kinds,
        "Data Science Bowl, test, stained": sorted((test / "stained/images").iterdir()),
    }
    if model == "nuclei-he":
        for name in ("CMU-1-Small-Region.svs", "HE_example.ome.tif", "XYC.png"):
            found[name] = [data / "wsi" / name]
        found["IHC, mirrored"] = [sample_slide(1024 if quick else 4096)]
        found["aerial, NAIP fields"] = sorted((data / "geo/naip_fields/images").iterdir())
        found["Landsat, RGB.byte.tif"] = [data / "geo/RGB.byte.tif"]
    else:  # of one band
        fluorescence = sorted((test / "fluorescence/images").iterdir())
        found["Data Science Bowl, test, fluorescence"] = fluorescence
    found["test3-DAPI-2-387.ndpi"] = [data / "wsi/test3-DAPI-2-387.ndpi"]
    return {name: paths for name, paths in found.items() if paths}


def measure_group(model: str, name: str, paths: Iterable[Path]) -> None:
    """Distances of one group, and the time of a look."""
    loaded, found, seconds = load_model(model), [], []
    for path in paths:
        # Of three grey bands, and for the NDPI the one that is stained: one.
        band = 3 if path.suffix == ".ndpi" else 1
        reading = Reading(bands=(band,)) if model == "nuclei-fluo" else None
        with tilepipe.open_image(str(path), reading) as image:
            begin = time.process_time()
            likeness = compare(image, loaded.input)
            seconds.append(time.process_time() - begin)
        assert likeness is not None
        found.append(likeness)
    if found:
        show(
            f"{model} on {name}, {len(found)} images",
            found,
            [("CPU time of the longest look", max(seconds), "s", "<= 1")],
        )


def show(case: str, found: list[Likeness], more: list[tuple[str, float, str, str]]) -> None:
    """Record the distances of some images."""
    far = [max(likeness.distances) for likeness in found]
    record(
        "likeness", case,
        [
            ("distance, median", statistics.median(far), "std", ""),
            ("distance, most", max(far), "std", ""),
            ("warned", sum(likeness.is_far for likeness in found) / len(found), "of all", ""),
            *more,
        ],
    )  # fmt: skip


def stain_changes() -> dict[str, Change]:
    """What is done to images, by name."""

    def stains(haematoxylin: float, eosin: float) -> Change:
        def change(pixels: np.ndarray) -> np.ndarray:
            density = rgb2hed(pixels) * (haematoxylin, eosin, 1.0)
            return (hed2rgb(density) * 255).round().clip(0, 255).astype(np.uint8)

        return change

    def light(red: float, green: float, blue: float) -> Change:
        return lambda pixels: (pixels * (red, green, blue)).round().clip(0, 255).astype(np.uint8)

    both = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    return {
        **{f"both stains x {factor:g}": stains(factor, factor) for factor in both},
        **{f"haematoxylin x {factor:g}": stains(factor, 1) for factor in (0.5, 2.0)},
        **{f"eosin x {factor:g}": stains(1, factor) for factor in (0.25, 2.0, 3.0)},
        **{f"light x {f:g}": light(f, f, f) for f in (0.85, 0.7, 0.5)},
        "light yellow (blue x 0.8)": light(1, 1, 0.8),
        "light yellow (blue x 0.65)": light(1, 1, 0.65),
    }


def measure_change(images: list[Path], masks: Path, case: str, change: Change) -> None:
    """Distances and scores of some images that are changed."""
    model = load_model("nuclei-he")
    device = Device(model, "cpu", "fp32", 2, "torch")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        said, true = Path(folder, "masks"), Path(folder, "truths")
        said.mkdir()
        true.mkdir()
        for path in images:
            changed = Path(folder, f"{path.stem}.png.tif")
            tifffile.imwrite(changed, change(imread(path)[..., :3]), photometric="rgb")
            with tilepipe.open_image(str(changed)) as image:
                likeness = compare(image, model.input)
                assert likeness is not None
                found.append(likeness)
                height, width, _ = image.shape
                keep = tuple(-(-n // 16) * 16 for n in (height, width))
                window = model.geometry.window_for(Window(0, 0, *keep))
                answer = device.answer(image.read(window), None, keep).result()
            labels = np.squeeze(answer.mask)[:height, :width]
            tifffile.imwrite(said / f"{path.stem}.tif", labels)
            truth = next(masks.glob(f"{path.stem}.*"))
            (true / truth.name).symlink_to(truth.resolve())
        scores = tilepipe.evaluate(said, true, instances=True).pooled.scores()
    device.close()
    dice, f1 = scores["foreground"]["dice"], scores["objects"]["f1"]
    show(f"nuclei-he on {case}", found, [("Dice", dice, "", ""), ("object F1", f1, "", "")])


if __name__ == "__main__":
    main()
