"""`tilepipe train` from the command line: options, messages, exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.making import write_folder
from tilepipe.cli import call
from tilepipe.cli.train import collect_train
from tilepipe.errors import InputError
from tilepipe.models.file import load_model
from tilepipe.training import pictures
from tilepipe.training import train as training
from tilepipe.training.options import TrainOptions

TINY = (
    "--width", "2", "--depth", "1", "--tile", "48", "--steps", "4", "--validate-every", "2",
    "--threads", "1", "--precision", "fp32", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("spots"))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_curves", "draw_sheet", "draw_tiles"):
        monkeypatch.setattr(pictures, name, lambda *_: None)


def refused(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 2) -> str:
    """Assert the exit code and one line of error; return it."""
    assert call(["train", *map(str, words)]) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("tilepipe: ")
    assert not [line for line in said[:-1] if line.startswith("tilepipe: ")]
    assert "Traceback" not in "\n".join(said)
    return said[-1]


def test_a_training_says_what_it_does_what_came_of_it_and_what_is_next(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.safetensors"
    assert call(["train", str(spots), "-o", str(output), *TINY]) == 0
    said = capsys.readouterr()
    for words in ("3 to train on, 1 to validate on", "background", "width 2, depth 1", "step 4"):
        assert words in said.err
    for words in (str(output), "dice", f"tilepipe run IMAGE -m {output}"):
        assert words in said.out
    assert load_model(output).arguments.width == 2


def test_quiet_says_nothing(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["train", "-q", str(spots), "-o", str(tmp_path / "m.safetensors"), *TINY]) == 0
    said = capsys.readouterr()
    assert said.out + said.err == ""


def test_flags_win_over_the_yaml_file(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        "data: [a, b]\noutput: x.safetensors\nwidth: 8\nlr: 0.1\nfrom: nuclei-he\n"
        "validate-every: 7\nabout: {licence: CC0}\nflips: false\n"
    )
    given = {"width": 4, "lr": None, "masks": (), "data": ("c",)}
    options = TrainOptions.parse(collect_train(config, given))
    assert (options.data, options.width, options.lr) == (("c",), 4, 0.1)
    assert (options.start_from, options.validate_every) == ("nuclei-he", 7)
    assert (options.about, options.flips) == ({"licence": "CC0"}, False)


def test_no_augmentation_is_none_but_what_is_named(tmp_path: Path) -> None:
    given = {"data": ("a",), "output": "x.safetensors", "elastic": 3.0}
    options = TrainOptions.parse(collect_train(None, given, plain=True))
    assert (options.flips, options.rotate, options.scale, options.elastic) == (False, False, 1, 3)
    assert (options.brightness, options.contrast, options.hed) == (0, 0, 0)
    config = tmp_path / "train.yaml"
    config.write_text("flips: true\nscale: 2.0\n")
    options = TrainOptions.parse(collect_train(config, given, plain=True))
    assert (options.flips, options.scale) == (False, 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("widht: 3", "widht is not a known option; did you mean width?"),
        ("width: wide", "width must be a whole number, not 'wide'"),
        ("flips: 3", "flips must be true or false, not 3"),
        ("shares: [a]", "shares[0] must be a number, not 'a'"),
        ("about: text", "about must be an object, not 'text'"),
        ("loss: hinge", "loss hinge"),
        ("[", "is not valid YAML"),
        ("- width", "must hold options"),
    ],
)
def test_a_yaml_file_at_fault_is_told_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(text)
    said = refused(capsys, "x", "-o", tmp_path / "m.safetensors", "--config", config)
    assert complaint in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--loss", "hinge"), "loss hinge"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--steps", "many"), "--steps"),
        (("--lr", "-1"), "lr must be above 0"),
        (("--lr", "nan"), "lr must be above 0, not nan"),
        (("--scale", "nan"), "scale"),
        (("--shares", "a,b"), "shares: 'a,b' must be numbers with commas"),
        (("--preset", "vnet"), "--preset"),
        (("--width", "0"), "width"),
        (("--dropout", "1"), "dropout"),
        (("--tile", "47"), "tile 47"),
        (("--validation", "2"), "validation 2"),
        (("--validation", "nobody_*"), "validation nobody_*: matches no image's name"),
        (("--from", "nowhere.safetensors"), "nowhere.safetensors: there is no such file"),
        (("--mask", "a.png", "--mask", "b.png"), "1 images and 2 masks"),
        (("--class-weights", "1,x"), "class_weights 1,x"),
        (("--metric", "rmse"), "metric rmse"),
        (("--hed", "inf"), "hed must be a finite number, not inf"),
        (("--tversky", "1"), "tversky"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_one_line(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: Any, complaint: str
) -> None:
    output = tmp_path / "m.safetensors"
    given = (spots, "-o", output, "--width", "2", "--depth", "1", *words)
    assert complaint in refused(capsys, *given)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "which images?" in refused(capsys, "-o", "m.safetensors")
    assert "which model file to write?" in refused(capsys, "images")


def test_instances_become_one_class(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "d", mask=lambda numbers: numbers)
    output = tmp_path / "m.safetensors"
    words = ["train", "-q", str(data), "-o", str(output), "--instances", *TINY]
    assert call(words) == 0
    assert [c.name for c in load_model(output).output.classes] == ["background", "object"]


@pytest.mark.parametrize("kind", ["classes", "binary", "values"])
def test_labels_are_what_they_are_told_to_be(
    monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    told = []

    def train(options: Any, _: Any) -> Any:
        told.append(options.labels)
        raise InputError("enough")

    monkeypatch.setattr(training, "train", train)
    assert call(["train", "x", "-o", "m.safetensors", "--labels", kind]) == 2
    assert call(["train", "x", "-o", "m.safetensors", "--instances"]) == 2
    assert told == [kind, "instances"]


def test_a_loss_that_is_no_number_is_code_2_and_out_of_memory_code_4(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.training.learner import PixelLoss

    def nan(*_: Any) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    def memory(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PixelLoss, "__call__", nan)
    output = tmp_path / "m.safetensors"
    assert "the loss became nan at step 1" in refused(capsys, "-q", spots, "-o", output, *TINY)
    monkeypatch.setattr(PixelLoss, "__call__", memory)
    said = refused(capsys, "-q", spots, "-o", output, *TINY, code=4)
    assert "lower --batch (now 2), --tile (now 48) or --width (now 2)" in said


@pytest.mark.slow
def test_ctrl_c_is_code_130_and_the_same_command_goes_on(
    spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.safetensors"
    words = ["train", str(spots), "-o", str(output), *TINY, "--steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tilepipe", *words], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "m.training/log.csv"
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "interrupted; the same command resumes" in said
    assert "Traceback" not in said
    assert "seed was 0, now 1" in refused(capsys, *words[1:], "--seed", "1")
