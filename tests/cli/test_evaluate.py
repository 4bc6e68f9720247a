"""`tilepipe evaluate` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tilepipe.cli import call


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    paths = []
    for name in ("mask", "truth"):
        Image.fromarray(rng.integers(0, 3, (40, 50)).astype(np.uint8)).save(
            tmp_path / f"{name}.png"
        )
        paths.append(str(tmp_path / f"{name}.png"))
    return paths[0], paths[1]


def test_a_table_is_printed(pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["evaluate", *pair]) == 0
    said = capsys.readouterr().out
    assert "Dice" in said
    assert "accuracy" in said
    assert "predicted" in said


def test_json_is_printed_alone(pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["evaluate", *pair, "--json", "-", "--instances", "--object-class", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["object_class"] == "2"
    assert 0 <= document["pooled"]["objects"]["f1"] <= 1


def test_files_are_written(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--json", "r.json", "--csv", "r.csv", "--plot", "r.png"]
    words = [str(tmp_path / word) if word.startswith("r.") else word for word in words]
    assert call(["evaluate", *pair, "-q", *words]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "r.json").read_text())["images"] == 1
    assert (tmp_path / "r.csv").read_text().startswith("image,class,")
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.width >= 50


def test_a_table_of_pairs(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text("mask,truth\nmask.png,truth.png\nmask.png,mask.png\n")
    assert call(["evaluate", str(tmp_path / "pairs.csv")]) == 0
    assert "2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{mask}"], "has no truth to compare with"),
        (["{mask}", "/nowhere/truth.png"], "/nowhere/truth.png does not exist"),
        (["{mask}", "{truth}", "--instances"], "--object-class"),
        (["{mask}", "{truth}", "--warp"], "not georeferenced"),
        (["{mask}", "{truth}", "--no-answer-as", "sky"], "no such class"),
        (["{mask}", "{truth}", "--memory", "much"], "much"),
        (["{mask}", "{truth}", "--csv", "/nowhere/r.csv"], "/nowhere/r.csv cannot be written"),
        (["{mask}", "{truth}", "--json", "/nowhere/r.json"], "/nowhere/r.json cannot be written"),
        (["{mask}", "{truth}", "--image", "/nowhere/i.png"], "--plot"),
    ],
)
def test_bad_input_is_one_line(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    words = [word.format(mask=pair[0], truth=pair[1]) for word in words]
    assert call(["evaluate", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("tilepipe: ")
    assert said in lines[-1]
