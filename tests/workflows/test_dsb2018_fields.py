"""Crops of one picture are found to be neighbours; strangers are not."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ndimage = pytest.importorskip("scipy.ndimage")

SCRIPT = Path(__file__).parents[2] / "workflows" / "dsb2018_fields.py"
SIDE = 96


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("dsb2018_fields", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def scene(seed: int, side: int = 2 * SIDE) -> np.ndarray:
    """Bright spots on a dark, noisy background."""
    rng = np.random.default_rng(seed)
    spots = np.zeros((side, side))
    spots[tuple(rng.integers(0, side, (2, side * side // 250)))] = rng.uniform(1, 3)
    spots = ndimage.gaussian_filter(spots, 4) * 4000 + 10
    return (spots + rng.normal(0, 0.7, spots.shape)).clip(0, 255).astype(np.uint8)


def quarters(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[y : y + SIDE, x : x + SIDE] for y in (0, SIDE) for x in (0, SIDE)]


def pictures(script, crops: list[np.ndarray]) -> list:
    return [script.Picture(f"{k:02d}", "fluo", crop[..., None]) for k, crop in enumerate(crops)]


def test_quarters_of_a_scene_are_one_field(script):
    crops = [crop for seed in range(4) for crop in quarters(scene(seed))]
    order = np.random.default_rng(0).permutation(len(crops))
    found = script.find_fields(pictures(script, [crops[k] for k in order]))
    fields = {frozenset(int(order[i]) for i in members) for members in found.fields}
    assert fields == {frozenset(range(k, k + 4)) for k in range(0, 16, 4)}
    assert found.chance == 0
    assert not any(group.open for group in found.groups)
    for group in found.groups:
        first = min(group.places, key=lambda i: order[i])
        x0, y0 = group.places[first]
        places = {int(order[i]) % 4: (x - x0, y - y0) for i, (x, y) in group.places.items()}
        assert places == {0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (1, 1)}


def test_strangers_stay_apart(script):
    found = script.find_fields(pictures(script, [scene(seed, SIDE) for seed in range(10)]))
    assert found.seams == []
    assert found.fields == [[i] for i in range(10)]


def test_overlapping_crops_are_one_field(script):
    large = scene(20, 4 * SIDE)
    crops = [large[: 2 * SIDE, : 2 * SIDE], large[50 : 50 + 2 * SIDE, 30 : 30 + 2 * SIDE]]
    found = script.find_fields(pictures(script, [*crops, *(scene(s) for s in range(30, 38))]))
    assert found.overlaps == [(0, 1)]
    assert [0, 1] in found.fields


def test_empty_look_alikes_are_held_together(script):
    """Borders without anything on them tell nothing; what looks alike may be one field."""
    rng = np.random.default_rng(5)
    empty = [rng.normal(10, 0.7, (SIDE, SIDE)).round().astype(np.uint8) for _ in range(2)]
    crops = [crop for seed in range(4) for crop in quarters(scene(seed))]
    found = script.find_fields(pictures(script, crops + empty))
    assert [16, 17] in found.fields
    assert len(found.fields) == 5


def test_split_keeps_fields_whole(script, tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    crops = [crop for seed in range(10) for crop in quarters(scene(seed))]
    rows = ["id\tkind"]
    for k, crop in enumerate(crops):
        Image.fromarray(crop).save(data / "images" / f"{k:02d}.png")
        rows.append(f"{k:02d}\tfluo")
    (data / "index.tsv").write_text("\n".join(rows) + "\n")
    output, pairs = tmp_path / "fields.csv", tmp_path / "pairs"
    command = ["x", data, "-o", output, "--pairs", pairs, "--show", tmp_path / "sheet.png"]
    monkeypatch.setattr(sys, "argv", [str(a) for a in command])
    script.main()

    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"{k:02d}" for k in range(40)]
    sides = {row["field"]: {r["split"] for r in rows if r["field"] == row["field"]} for row in rows}
    assert len(sides) == 10
    assert all(len(side) == 1 for side in sides.values())
    assert {row["split"] for row in rows} == {"train", "validation", "test"}

    with (pairs / "fluo.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(r["split"], r["group"]) for r in listed] == [(r["split"], r["field"]) for r in rows]
    with Image.open(listed[0]["image"]) as image:
        assert image.mode == "L"
        assert np.array_equal(
            np.asarray(image), crops[0][..., 0] if crops[0].ndim == 3 else crops[0]
        )
    assert Path(listed[0]["mask"]) == data / "labels" / "00.png"
    assert (tmp_path / "sheet.png").stat().st_size > 0
