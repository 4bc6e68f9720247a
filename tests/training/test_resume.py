"""Killed at any moment, a training goes on and ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.making import QUICK, train
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.models.file import load_model
from tilepipe.training import state as states
from tilepipe.training.train import TrainCallbacks

pytestmark = pytest.mark.usefixtures("no_pictures")

SCRIPT = """
import os, signal, sys
import tilepipe
from tilepipe.training import train

validate = train._Training._validate

def killed(self):
    if self.progress.step > 4:
        os.kill(os.getpid(), signal.SIGKILL)
    validate(self)

train._Training._validate = killed
tilepipe.train(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
"""

RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {"dropout": 0.3, "normalisation": "batch", "average": 0.9, "schedule": "cosine"},
    "sgd": {"optimiser": "sgd", "schedule": "plateau", "average": 0, "loss": "bce", "patience": 90},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_killed_training_ends_with_the_bytes_of_one_that_was_not(
    spots: Path, tmp_path: Path, name: str
) -> None:
    options = {**QUICK, **RECIPES[name], "steps": 14, "validate_every": 2}
    (tmp_path / "whole").mkdir()
    whole = train(spots, tmp_path / "whole/m.safetensors", **options)

    output = tmp_path / "m.safetensors"
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(spots), str(output), repr(options)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len((tmp_path / "m.training/log.csv").read_text().splitlines()) == 3
    assert not output.exists()

    begun: list[int] = []

    class RunCallbacks(TrainCallbacks):
        def begin(self, recipe: Any) -> None:
            begun.append(recipe.resumed)

    summary = train(spots, output, RunCallbacks(), **options)
    assert begun == [4]
    assert summary.model.read_bytes() == whole.model.read_bytes()

    def without_times(folder: Path) -> list[list[str]]:
        lines = (folder / "log.csv").read_text().splitlines()
        return [[part for i, part in enumerate(line.split(",")) if i != 1] for line in lines]

    assert without_times(summary.folder) == without_times(whole.folder)


class Stop(TrainCallbacks):
    """Interrupts a training after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, step: int, loss: float) -> None:
        if step == self.after:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "one-cycle", "average": 0.9, "dropout": 0.3},
        {"schedule": "constant", "optimiser": "sgd", "normalisation": "batch"},
        {"schedule": "plateau", "border_weight": 10, "metric": "loss"},
    ],
)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    spots: Path, tmp_path: Path, stop: int, options: dict[str, Any]
) -> None:
    options = {**options, "steps": 8}
    (tmp_path / "whole").mkdir()
    whole = train(spots, tmp_path / "whole/m.safetensors", **options)
    with pytest.raises(KeyboardInterrupt):
        train(spots, tmp_path / "m.safetensors", Stop(stop), **options)
    again = train(spots, tmp_path / "m.safetensors", **options)
    assert again.model.read_bytes() == whole.model.read_bytes()


def test_ctrl_c_loses_no_step(spots: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    options: dict[str, Any] = {"steps": 8, "validate_every": 8, "dropout": 0.3}
    whole = train(spots, tmp_path / "whole/m.safetensors", **options)
    begun: list[int] = []

    class CtrlC(TrainCallbacks):
        def begin(self, recipe: Any) -> None:
            begun.append(recipe.resumed)

        def step(self, step: int, loss: float) -> None:
            if step == 3 and len(begun) == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(spots, tmp_path / "m.safetensors", CtrlC(), **options)
    assert signal.getsignal(signal.SIGINT) is before
    again = train(spots, tmp_path / "m.safetensors", CtrlC(), **options)
    assert begun == [0, 3]
    assert again.model.read_bytes() == whole.model.read_bytes()
    rows = [
        (s.folder / "log.csv").read_text().splitlines()[1].split(",")[3] for s in (again, whole)
    ]
    assert rows[0] == rows[1], "the mean loss counts the steps before, too"


def test_a_finished_training_called_again_does_no_more_steps(spots: Path, tmp_path: Path) -> None:
    first = train(spots, tmp_path / "m.safetensors")
    content = first.model.read_bytes()
    again = train(spots, tmp_path / "m.safetensors", Stop(after=1))
    assert again.model.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lr": 0.5, "batch": 3}, "batch was 2, now 3; lr was None, now 0.5"),
        ({"seed": 1, "validation": "03"}, "seed was 0, now 1"),
        ({"steps": 8}, "steps was 4, now 8"),
        ({"exclude": "00"}, "exclude was '', now '00'; the images differ"),
    ],
)
def test_other_settings_are_refused_by_name(
    spots: Path, tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(spots, tmp_path / "m.safetensors", Stop(3), validation="03")
    with pytest.raises(InputError, match=complaint) as refused:
        train(spots, tmp_path / "m.safetensors", **{"validation": "03", **options})
    assert "--overwrite" in str(refused.value)


def test_other_validation_images_are_refused(spots: Path, tmp_path: Path) -> None:
    from tests.training.making import write_folder

    first, second = (write_folder(tmp_path / name, i + 1) for i, name in enumerate("ab"))
    with pytest.raises(KeyboardInterrupt):
        train(spots, tmp_path / "m.safetensors", Stop(3), validation=str(first))
    with pytest.raises(InputError, match="the validation images differ"):
        train(spots, tmp_path / "m.safetensors", validation=str(second))


def test_settings_may_change_as_long_as_there_is_nothing_to_go_on_from(
    spots: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(spots, tmp_path / "m.safetensors", Stop(1))
    train(spots, tmp_path / "m.safetensors", batch=1, steps=2)


def test_what_is_only_said_of_a_model_may_change(spots: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(spots, tmp_path / "m.safetensors", Stop(3))
    summary = train(spots, tmp_path / "m.safetensors", about={"licence": "CC0"})
    assert load_model(summary.model).about["licence"] == "CC0"


def test_overwrite_starts_anew(spots: Path, tmp_path: Path) -> None:
    first = train(spots, tmp_path / "m.safetensors")
    content = first.model.read_bytes()
    second = train(spots, tmp_path / "m.safetensors", seed=1, overwrite=True)
    assert second.model.read_bytes() != content


def test_a_model_of_that_name_is_not_overwritten_unasked(spots: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_text("mine")
    with pytest.raises(InputError, match="exists already; use --overwrite"):
        train(spots, tmp_path / "m.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert (tmp_path / "m.safetensors").read_text() == "mine"


def test_a_checkpoint_that_cannot_be_read_is_said_to_be_so(spots: Path, tmp_path: Path) -> None:
    summary = train(spots, tmp_path / "m.safetensors")
    (summary.folder / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read; use --overwrite"):
        train(spots, tmp_path / "m.safetensors")


def test_a_full_disk_leaves_the_checkpoint_before_and_can_be_gone_on_from(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(spots, tmp_path / "whole/m.safetensors")
    save, calls = torch.save, 0

    def full(state: Any, path: Any) -> None:
        nonlocal calls
        calls += 1
        save(state, path)
        if calls == 2:
            raise RuntimeError("[enforce fail at inline_container.cc:659] . file write failed")

    monkeypatch.setattr(states.torch, "save", full)
    with pytest.raises(EnvironmentFailure, match="is the disk full") as stopped:
        train(spots, tmp_path / "m.safetensors")
    assert stopped.value.exit_code == 4
    assert not list(tmp_path.rglob("*.part"))
    assert train(spots, tmp_path / "m.safetensors").model.read_bytes() == whole.model.read_bytes()
