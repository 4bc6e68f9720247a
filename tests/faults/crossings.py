"""Features of a run crossed with events: what each is, and rows in which every pair meets.

Features are entries of `FEATURES`, events functions in `EVENTS`; nothing else knows their names.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr
from numpy.typing import NDArray

from tests.faults.scene import NO_ANSWER
from tests.making import digest, make_image, make_model, write_tiff, zero_tiles
from tests.zygote import Run, Zygote
from tilepipe.models.file import save_model
from tilepipe.models.onnx_file import import_onnx
from tilepipe.models.unet import UNetArguments

HEIGHT, WIDTH = 560, 640
ARGUMENTS = UNetArguments(width=2, depth=2, outputs=3)
SPOILED = [3 * 5 + 1]
"""A tile of 128 at (384, 128), whose lower edge lies on the seam of two blocks of 512."""


@dataclass(frozen=True)
class Feature:
    """What a run has that another has not."""

    options: dict[str, Any] = field(default_factory=dict)
    """Of `tilepipe run`, by their long names; True for a flag."""
    pixel_size: float = 0.25
    """Of the image, in micrometres; the model's is 0.25."""
    model: str = "m.safetensors"
    several: bool = False
    """Whether a second image is segmented by the same command."""
    in_file: bool = False
    """Whether the options stand in a YAML file."""
    same_bytes: bool = False
    """Whether the masks must be those of a run without it."""


FEATURES = {
    "region": Feature({"region": "100,60,430,500"}),
    "like-image": Feature({"like-image": True}, pixel_size=0.4),
    "resampled": Feature(pixel_size=0.4),
    "probabilities": Feature({"probabilities": "uint8"}),
    "uncertainty": Feature({"uncertainty": "float16"}),
    "channels": Feature({"channels": True}),
    "series": Feature({"series": 0}, same_bytes=True),
    "bands": Feature({"bands": "3,1,2"}),
    "rescale": Feature({"rescale": "20,230"}),
    "nodata": Feature({"nodata": 120}),
    "ONNX": Feature({"runtime": "onnxruntime"}, model="m.onnx"),
    "batch": Feature(several=True, same_bytes=True),
    "workers": Feature({"workers": 2}, same_bytes=True),
    "config": Feature(in_file=True, same_bytes=True),
}
"""A new option of a run is one more entry."""


@dataclass(frozen=True)
class Setting:
    """The features of one run together."""

    features: frozenset[str]

    @property
    def parts(self) -> list[Feature]:
        return [FEATURES[name] for name in FEATURES if name in self.features]

    @property
    def plain(self) -> Setting:
        """Without what must not change the masks."""
        return Setting(frozenset(name for name in self.features if not FEATURES[name].same_bytes))

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"runtime": "torch", "threads": 1, "memory": "4GB"}
        for part in self.parts:
            options |= part.options
        return options

    @property
    def pixel_size(self) -> float:
        return max((part.pixel_size for part in self.parts), default=0.25)

    @property
    def model(self) -> str:
        return next((part.model for part in self.parts if part.model != "m.safetensors"),
                    "m.safetensors")  # fmt: skip

    @property
    def several(self) -> bool:
        return any(part.several for part in self.parts)

    @property
    def in_file(self) -> bool:
        return any(part.in_file for part in self.parts)


class Bench:
    """A folder with images and models, and what undisturbed runs gave."""

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder, self.zygote = folder, zygote
        self.window = 0
        self._references: dict[Setting, Path] = {}
        self._make_models()
        for pixel_size in {feature.pixel_size for feature in FEATURES.values()}:
            where = folder / f"{pixel_size:g}"
            where.mkdir()
            write_tiff(where / "a.tif", make_image(HEIGHT, WIDTH), pixel_size)
            write_tiff(where / "b.tif", make_image(200, 260, seed=1), pixel_size)

    def _make_models(self) -> None:
        from tests.models.making_onnx import write_unet

        for name, seed in (("m", 0), ("other", 1)):
            model = make_model(ARGUMENTS, seed=seed)
            save_model(self.folder / f"{name}.safetensors", model)
            plain = write_unet(self.folder / f"{name}.plain.onnx", model.network)
            save_model(self.folder / f"{name}.onnx", import_onnx(plain, model.input, model.output))
            self.window = model.geometry.input_for(256)  # four windows for a block of one chunk

    def reference(self, setting: Setting) -> Path:
        """The masks of an undisturbed run of a setting, without what must not change them."""
        setting = setting.plain
        if setting not in self._references:
            folder = self.folder / f"reference {len(self._references)}"
            for name in ("a", "b"):
                trial = Trial(self, setting, folder, image=name)
                trial.command(expect=0)
            self._references[setting] = folder
        return self._references[setting]


class Trial:
    """One setting in a folder of its own, its images included, so that these can be damaged."""

    def __init__(self, bench: Bench, setting: Setting, folder: Path, image: str = "a") -> None:
        self.bench, self.setting, self.image = bench, setting, image
        self.masks = folder / "masks"
        self.inputs = folder / "images"
        if not self.inputs.exists():
            shutil.copytree(bench.folder / f"{setting.pixel_size:g}", self.inputs)
        self.masks.mkdir(parents=True, exist_ok=True)
        self._runs = 0

    @property
    def slide(self) -> Path:
        return self.inputs / "a.tif"

    @property
    def mask(self) -> Path:
        return self.masks / "a_mask.ome.zarr"

    @property
    def record(self) -> dict[str, Any]:
        document = json.loads((self.masks / "a_mask.run.json").read_text())
        assert isinstance(document, dict)
        return document

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """The undisturbed answer."""
        return labels_of(self.bench.reference(self.setting) / "masks" / "a_mask.ome.zarr")

    def command(
        self, *more: str, expect: int, fault: dict[str, Any] | None = None, model: str = ""
    ) -> Run:
        """Give the command, and wait for its exit code."""
        options = self.setting.options | {
            "model": str(self.bench.folder / (model or self.setting.model)),
            "output": f"{self.masks}/",
            "window": self.bench.window,
        }
        names = ("a", "b") if self.setting.several else (self.image,)
        images = [str(self.inputs / f"{name}.tif") for name in names]
        if self.setting.in_file:
            file = self.inputs / "run.yaml"
            file.write_text(yaml.safe_dump(options))
            words = [*images, "--config", str(file)]
        else:
            words = [*images, *words_of(options)]
        return self.start(["run", *words, *more], expect, fault)

    def verify(self, *, expect: int) -> None:
        """Prove the mask on so many windows that none of its blocks is left out."""
        self.start(["verify", str(self.mask), "--windows", "12"], expect)

    def start(self, words: list[str], expect: int, fault: dict[str, Any] | None = None) -> Run:
        self._runs += 1
        log = self.inputs / f"{self.image}{self._runs}.log"
        run = self.bench.zygote.start(words, log, fault)
        code = run.wait()
        assert code == expect, f"{words}: {code}, not {expect}: {run.said[-1500:]}"
        assert "Traceback" not in run.said
        return run

    def same_bytes(self) -> None:
        """All masks are those of the undisturbed run, and nothing else is there."""
        expected = digest(self.bench.reference(self.setting) / "masks")
        if not self.setting.several:
            expected = {name: d for name, d in expected.items() if name.startswith("a_mask")}
        found = digest(self.masks)
        assert sorted(found) == sorted(expected)
        differing = sorted(name for name in found if found[name] != expected[name])
        assert differing == []

    def lost_in_named_blocks_alone(self) -> None:
        """Pixels without their answer have none, and lie in all blocks that are named, and only
        there."""
        found = labels_of(self.mask)
        lost = found != self.labels
        assert set(np.unique(found[lost])) == {NO_ANSWER}
        record = self.record
        tiling = record["plan"]["tiling"]
        rows, columns = (
            (np.arange(n) + 0.5) * tiling[side] / n
            for n, side in zip(found.shape, ("height", "width"), strict=True)
        )
        named = np.zeros(found.shape, np.bool_)
        blocks = record["blocks"]["incomplete"]
        for block in blocks:
            window = block["window"]
            inside = np.ix_(
                (rows >= window["y"]) & (rows < window["y"] + window["height"]),
                (columns >= window["x"]) & (columns < window["x"] + window["width"]),
            )
            named[inside] = True
            assert lost[inside].any(), f"block {block['number']} is named, and lost nothing"
        assert blocks
        assert not (lost & ~named).any()
        assert lost.mean() < 0.25


def words_of(options: dict[str, Any]) -> Iterator[str]:
    """Options as the command line takes them."""
    for name, value in options.items():
        yield f"--{name}"
        if value is not True:
            yield str(value)


def labels_of(mask: Path) -> NDArray[np.uint8]:
    return np.asarray(zarr.open_array(str(mask / "0"), mode="r")[:], np.uint8)


def resume(trial: Trial) -> None:
    """Killed when some of its blocks are done, and run again."""
    trial.command(expect=-signal.SIGKILL, fault={"kill_in_ledger": 2})
    trial.command(expect=0)
    trial.same_bytes()
    trial.verify(expect=0)


def unreadable(trial: Trial) -> None:
    """A tile of the image is damaged and stays so."""
    zero_tiles(trial.slide, SPOILED)
    trial.command(expect=3)
    trial.lost_in_named_blocks_alone()
    trial.verify(expect=0)


def repair(trial: Trial) -> None:
    """A tile is damaged, and whole again before the next run."""
    whole = trial.slide.read_bytes()
    zero_tiles(trial.slide, SPOILED)
    trial.command(expect=3)
    trial.slide.write_bytes(whole)
    trial.command(expect=0)
    trial.same_bytes()
    trial.verify(expect=0)


def verify(trial: Trial) -> None:
    """Proved; and refuted, once one chunk holds other classes."""
    trial.command(expect=0)
    trial.same_bytes()
    trial.verify(expect=0)
    array = zarr.open_array(str(trial.mask / "0"), mode="r+")
    chunk = np.asarray(array[:512, :512])
    array[:512, :512] = np.where(chunk == NO_ANSWER, chunk, (chunk + 1) % ARGUMENTS.outputs)
    trial.verify(expect=5)


def overwrite(trial: Trial) -> None:
    """Over the finished masks of another model."""
    trial.command(expect=0, model=trial.setting.model.replace("m.", "other."))
    assert (labels_of(trial.mask) != trial.labels).any()
    trial.command("--overwrite", expect=0)
    trial.same_bytes()
    trial.verify(expect=0)


EVENTS: dict[str, Callable[[Trial], None]] = {
    event.__name__: event for event in (resume, repair, verify, unreadable, overwrite)
}

Row = tuple[str, frozenset[str]]


def rows(features: Iterable[str], events: Iterable[str], at_once: int = 8) -> list[Row]:
    """Events with features, so few that each pair of them meets in one, and the same each time.

    Greedy: the event with most pairs to come; then, one by one, the feature that brings most.
    """
    features, events = list(features), list(events)
    open_pairs = {frozenset(pair) for pair in combinations(features, 2)}
    open_pairs |= {frozenset(pair) for pair in product(features, events)}
    found: list[Row] = []
    while open_pairs:

        def brought(new: str, row: set[str], open_pairs: set[frozenset[str]] = open_pairs) -> int:
            return sum(frozenset((new, old)) in open_pairs for old in row)

        event = max(events, key=lambda event: brought(event, set(features)))
        row = {event}
        while len(row) <= at_once:
            best = max((f for f in features if f not in row), key=lambda f: brought(f, row))
            if not brought(best, row):
                break
            row.add(best)
        if len(row) == 1:  # all of its pairs have met; what is left are pairs of features
            row |= set(next(pair for pair in sorted(map(sorted, open_pairs))))
        open_pairs -= {frozenset(pair) for pair in combinations(row, 2)}
        found.append((event, frozenset(row - {event})))
    return found
