"""What ends a training early: a loss that is NaN, no memory, no place to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.making import train
from tilepipe.errors import EnvironmentFailure, InputError, NonFiniteError
from tilepipe.models.file import load_model
from tilepipe.training.learner import Learner

pytestmark = pytest.mark.usefixtures("no_pictures")


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, what: Any) -> None:
    """Make the loss of a step NaN, or raise."""
    learn = Learner.step

    def failing(self: Learner, batch: Any, number: int) -> float:
        if number + 1 == step:
            if isinstance(what, Exception):
                raise what
            loss = self.loss
            monkeypatch.setattr(self, "loss", lambda *batch: loss(*batch) * what)
        return learn(self, batch, number)

    monkeypatch.setattr(Learner, "step", failing)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_loss_that_is_no_number_stops_at_its_step_and_keeps_the_last_good_weights(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: float
) -> None:
    output = tmp_path / "m.safetensors"
    fail_at(monkeypatch, 7, float("nan"))
    with pytest.raises(
        NonFiniteError, match="the loss became nan at step 7; the last good"
    ) as stop:
        train(spots, output, steps=20, average=average)
    assert stop.value.exit_code == 2
    assert str(output) in str(stop.value)
    assert "--lr" in str(stop.value)
    kept = torch.load(tmp_path / "m.training/checkpoint.pt", weights_only=True)["best"]
    assert kept["step"] <= 6
    model = load_model(output)
    assert model.about["training"]["steps"] == kept["step"]
    assert torch.equal(model.network.state_dict()["head.weight"], kept["weights"]["head.weight"])


def test_before_the_first_validation_there_are_no_weights_to_keep(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, 1, float("inf"))
    with pytest.raises(NonFiniteError, match="loss became inf at step 1; no weights were kept yet"):
        train(spots, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_an_absurd_learning_rate_ends_with_the_step_named(spots: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step \d+|after step \d+|end of step \d+"):
        train(
            spots, tmp_path / "m.safetensors", optimiser="sgd", lr=1e30, clip=0, steps=20,
            warmup=0, loss="cross-entropy",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_says_which_options_to_lower(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fail_at(monkeypatch, 2, error)
    with pytest.raises(EnvironmentFailure) as stop:
        train(spots, tmp_path / "m.safetensors")
    assert stop.value.exit_code == 4
    for option in ("--batch (now 2)", "--tile (now 48)", "--width (now 2)"):
        assert option in str(stop.value)


def test_an_error_that_is_a_bug_is_not_dressed_up(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, 2, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        train(spots, tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("m.pt", r"m\.pt: the name of a model file ends in \.safetensors"),
        ("nowhere/m.safetensors", "there is no folder .*nowhere; make it first"),
        ("taken.safetensors", r"taken\.training: cannot be written"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_first_step(
    spots: Path, tmp_path: Path, output: str, complaint: str
) -> None:
    (tmp_path / "taken.training").write_text("a file of that name")
    with pytest.raises(InputError, match=complaint):
        train(spots, tmp_path / output)


def test_a_folder_without_write_permission_is_refused(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.storage.ops.os.access", lambda *_: False)
    with pytest.raises(InputError, match="you may not write in"):
        train(spots, tmp_path / "m.safetensors")
