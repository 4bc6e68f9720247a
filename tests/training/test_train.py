"""Trainings from end to end: what comes out, and that it is the same again."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import tilepipe
from tests.making import write_tiff
from tests.training.making import (
    discs,
    picture_of,
    train,
    write_folder,
    write_png,
    write_values,
)
from tilepipe.errors import InputError
from tilepipe.models.file import load_model
from tilepipe.training.train import TrainCallbacks


class Losses(TrainCallbacks):
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rows: list[dict[str, Any]] = []
        self.best: list[bool] = []

    def step(self, step: int, loss: float) -> None:
        self.losses.append(loss)

    def validated(self, row: dict[str, Any], best: bool) -> None:
        self.rows.append(row)
        self.best.append(best)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_an_easy_task_is_learnt_and_the_model_runs_and_verifies(
    spots: Path, tmp_path: Path
) -> None:
    watch = Losses()
    output = tmp_path / "spots.safetensors"
    summary = train(
        spots, output, watch, width=4, steps=60, validate_every=20, lr=0.01, scale=1.1,
        classes=["paper", "spot=#123456"], about={"source": "drawn"},
    )  # fmt: skip
    assert np.mean(watch.losses[-10:]) < 0.5 * np.mean(watch.losses[:5])
    assert summary.scores["dice"] > 0.8
    for name in ("log.csv", "curves.png", "validation.png", "tiles.png"):
        assert (summary.folder / name).stat().st_size > 0
    assert [row["step"] for row in rows_of(summary.folder)] == ["20", "40", "60"]

    model = load_model(output)
    assert [(c.name, c.colour) for c in model.output.classes][1] == ("spot", "#123456")
    assert model.about["source"] == "drawn"
    assert model.about["validation"]["dice"] == pytest.approx(summary.scores["dice"], abs=1e-4)

    # What `run` says of a validation image is what the training scored.
    truth = discs(150, 77)
    image = write_tiff(tmp_path / "image.tif", picture_of(truth, 77), None)
    mask = tmp_path / "mask.ome.zarr"
    tilepipe.run(image, model=str(output), outputs=[mask], threads=1, memory="4GB")
    labels = np.asarray(tilepipe.open_mask(mask).as_dask())
    predicted, wanted = labels == 1, truth > 0
    assert 2 * (predicted & wanted).sum() / (predicted.sum() + wanted.sum()) > 0.8
    assert tilepipe.verify(mask)


@pytest.mark.usefixtures("no_pictures")
def test_the_score_is_that_of_the_model_file_over_whole_images(spots: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    summary = train(spots, output, width=4, steps=10, validate_every=10, validation="03")
    truth = _png(spots / "masks/03.png")
    tilepipe.run(
        spots / "images/03.png", model=str(output), outputs=[tmp_path / "mask.ome.zarr"],
        threads=1, memory="4GB",
    )  # fmt: skip
    labels = np.asarray(tilepipe.open_mask(tmp_path / "mask.ome.zarr").as_dask())
    both = ((labels == 1) & (truth == 1)).sum()
    dice = 2 * both / ((labels == 1).sum() + (truth == 1).sum())
    assert summary.scores["dice"] == pytest.approx(dice)
    assert summary.scores["accuracy"] == pytest.approx((labels == truth).mean())


def _png(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({"loss": "cross-entropy", "normalisation": "none"}, 2),
        ({"preset": "unet-three-level", "depth": None, "tile": 112, "fold": True}, 2),
        ({"padding": "same", "normalisation": "batch", "upsampling": "interpolation"}, 2),
        ({"loss": "bce+dice"}, 1),
        ({"loss": "bce", "optimiser": "sgd", "schedule": "plateau", "patience": 3}, 1),
        ({"loss": "tversky", "schedule": "one-cycle", "average": 0, "clip": 0}, 2),
        ({"border_weight": 10, "border_sigma": 2, "dropout": 0.5, "store": "float16"}, 2),
        ({"class_weights": "1,3", "schedule": "constant", "hed": 0.2, "keep": "last"}, 2),
        ({"precision": "bf16", "metric": "loss"}, 2),
    ],
)
def test_every_kind_of_network_and_loss_makes_a_model_file(
    spots: Path, tmp_path: Path, options: dict[str, Any], outputs: int
) -> None:
    summary = train(spots, tmp_path / "m.safetensors", **options)
    model = load_model(summary.model)
    assert model.arguments.outputs == outputs
    assert len(model.output.classes) == 2
    assert model.arguments.depth == (3 if "preset" in options else 1)
    if options.get("fold"):
        assert "batch" not in str(model.arguments)
    assert np.isfinite(list(summary.scores.values())).all()


@pytest.mark.usefixtures("no_pictures")
def test_objects_are_scored_where_masks_number_them(numbered: Path, tmp_path: Path) -> None:
    summary = train(
        numbered, tmp_path / "m.safetensors", labels="instances", border=3.0,
        metric="object-f1", width=4,
    )  # fmt: skip
    assert 0 <= summary.scores["object-f1"] <= 1
    names = [c.name for c in load_model(summary.model).output.classes]
    assert names == ["background", "object", "border"]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_values_are_regressed_and_nan_says_nothing(
    tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        mask = discs(64, i)
        values = (mask > 0).astype(np.float32) * 2 - 1
        values[:, :8] = np.nan
        write_png(tmp_path / "d/images" / f"{i}.png", picture_of(mask, i))
        write_values(tmp_path / "d/masks" / f"{i}.tif", values)
    if loss == "mae":
        monkeypatch.setattr("tilepipe.training.pictures.draw_tiles", lambda *_: None)
    summary = train(
        tmp_path / "d", tmp_path / "m.safetensors", loss=loss, width=4, steps=40,
        validate_every=20, lr=0.01, classes=["height"],
    )  # fmt: skip
    rows = rows_of(summary.folder)
    assert float(rows[-1]["rmse"]) < float(rows[0]["rmse"]) < 2
    model = load_model(summary.model)
    assert model.output.activation == "linear"
    assert model.output.classes[0].name == "height"


@pytest.mark.usefixtures("no_pictures")
def test_a_class_that_no_validation_image_has_does_not_spoil_the_model(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 3)
    write_png(tmp_path / "d/masks/00.png", discs(64, 0).clip(0, 2))
    summary = train(tmp_path / "d", tmp_path / "m.safetensors", validation="02")
    model = load_model(summary.model)
    assert all(math.isfinite(v) for v in model.about["validation"].values())
    assert model.arguments.outputs == 3


@pytest.mark.usefixtures("no_pictures")
def test_tiles_come_from_two_sources_by_their_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.training.tiles import TileMaker

    first, second = (write_folder(tmp_path / n, 3, seed=i) for i, n in ((0, "a"), (9, "b")))
    drawn: list[str] = []
    original = TileMaker._draw

    def spy(self: TileMaker, opened: Any, rng: Any) -> Any:
        drawn.append(Path(opened.pair.image).parts[-3])
        return original(self, opened, rng)

    monkeypatch.setattr(TileMaker, "_draw", spy)
    train([first, second], tmp_path / "m.safetensors", shares=[1, 9], steps=30, validate_every=30)
    assert len(drawn) == 60
    assert 2 < drawn.count("a") < 14


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kind", ["tiff", "ome-zarr"])
def test_a_large_image_is_trained_on_by_windows_never_whole(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.images.convert import convert
    from tilepipe.images.windowed import WindowedImage

    numbers = discs(600, 0, count=80, radius=20)
    image = write_tiff(tmp_path / "image.tif", picture_of(numbers, 0))
    mask = tmp_path / "mask.tif"
    tifffile.imwrite(mask, (numbers > 0).astype(np.uint8), tile=(128, 128), metadata=None)
    if kind == "ome-zarr":
        convert(image, tmp_path / "image.ome.zarr")
        convert(mask, tmp_path / "mask.ome.zarr")
        image, mask = tmp_path / "image.ome.zarr", tmp_path / "mask.ome.zarr"
    monkeypatch.setattr("tilepipe.training.labels.HELD_BYTES", 0)
    monkeypatch.setattr("tilepipe.training.survey.WINDOW", 128)
    monkeypatch.setattr("tilepipe.training.validate.LARGEST_KEEP", 128)
    largest = 0
    read = WindowedImage.read_with_valid

    def spy(self: Any, window: Any, level: int = 0) -> Any:
        nonlocal largest
        largest = max(largest, window.area)
        return read(self, window, level)

    monkeypatch.setattr(WindowedImage, "read_with_valid", spy)
    summary = train([image], tmp_path / "m.safetensors", masks=[str(mask)])
    assert 0 < largest <= 160**2
    assert summary.scores["accuracy"] > 0
    size = load_model(summary.model).input.pixel_size
    assert size is not None
    assert size.x == pytest.approx(0.25)


@pytest.mark.usefixtures("no_pictures")
def test_one_seed_gives_the_same_bytes_and_another_does_not(spots: Path, tmp_path: Path) -> None:
    options = {"dropout": 0.3, "normalisation": "batch"}
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        summary = train(
            spots, tmp_path / name / "m.safetensors", seed=seed, validation="03", **options
        )
        files.append(summary.model.read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.usefixtures("no_pictures")
def test_it_stops_after_so_many_validations_without_a_better_one(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.training import train as module
    from tilepipe.training.validate import ValidationScores

    dice = iter([0.5, 0.7, 0.6, 0.7, 0.65, 0.9])
    monkeypatch.setattr(
        module, "validate", lambda *_, **__: ValidationScores(1.0, {"dice": next(dice)})
    )
    watch = Losses()
    summary = train(
        spots, tmp_path / "m.safetensors", watch, steps=20, validate_every=2, patience=3
    )
    assert summary.stopped_early
    assert watch.best == [True, True, False, False, False]
    assert (summary.steps, summary.best_step, summary.scores["dice"]) == (10, 4, 0.7)
    assert load_model(summary.model).about["training"]["steps"] == 4


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("keep", "metric", "step"), [("best", "dice", 4), ("best", "loss", 2), ("last", "dice", 6)]
)
def test_the_weights_kept_are_the_best_by_the_metric_or_the_last(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, metric: str, step: int
) -> None:
    from tilepipe.training import train as module
    from tilepipe.training.validate import ValidationScores

    scores = iter(
        [
            ValidationScores(0.1, {"dice": 0.2}),
            ValidationScores(0.5, {"dice": 0.8}),
            ValidationScores(0.3, {"dice": 0.5}),
        ]
    )
    weights: dict[int, torch.Tensor] = {}

    def judge(model: Any, *_: Any, **__: Any) -> ValidationScores:
        weights[2 * len(weights) + 2] = model.network.head.weight.clone()
        return next(scores)

    monkeypatch.setattr(module, "validate", judge)
    summary = train(spots, tmp_path / "m.safetensors", steps=6, keep=keep, metric=metric, lr=0.01)
    assert summary.best_step == step
    kept = load_model(summary.model).network.head.weight
    assert [s for s, w in weights.items() if torch.equal(w, kept)] == [step]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_without_validation_images_the_last_weights_are_kept(spots: Path, tmp_path: Path) -> None:
    summary = train(spots, tmp_path / "m.safetensors", validation=0)
    assert (summary.best_step, summary.scores) == (4, {})
    assert "validation_loss" not in rows_of(summary.folder)[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"loss": "mse"}, "loss mse: is for values"),
        ({"loss": "bce+cross-entropy"}, "bce and cross-entropy do not combine"),
        ({"metric": "rmse"}, "metric rmse: is not for masks of labels"),
        ({"metric": "object-f1"}, "object-f1: requires masks that number"),
        ({"classes": ["a", "b=red"]}, "class b=red"),
        ({"classes": ["a", "a"]}, "a"),
        ({"tile": 47}, "tile 47: .* the nearest is"),
        ({"width": 0}, "width"),
        ({"border": 3.0}, "border: requires masks that number"),
        ({"shares": [0]}, "shares"),
        ({"scale": float("nan")}, "scale"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"about": {"when": object()}}, "about"),
        ({"class_weights": "1,2,3"}, "class_weights"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    spots: Path, tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        train(spots, tmp_path / "m.safetensors", **options)
    assert not list(tmp_path.iterdir())
