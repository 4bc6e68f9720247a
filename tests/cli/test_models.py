"""`tilepipe models`, and the cards of what comes with tilepipe."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import tilepipe
from tilepipe.cli import app
from tilepipe.models.file import DEFAULT_MODEL, shipped_models

CARD = ("finds", "data", "data_licence", "licence", "split", "limits", "trained_by", "metrics")


def test_every_shipped_model_is_listed_with_its_figure() -> None:
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    for name in shipped_models():
        assert name in result.output
    assert "(default)" in result.output
    assert DEFAULT_MODEL in result.output
    assert result.output.count("Dice 0.") == len(shipped_models())


@pytest.mark.parametrize("name", shipped_models())
def test_a_card_says_all_that_a_user_must_know(name: str) -> None:
    model = tilepipe.load_model(name)
    assert set(CARD) <= model.about.keys()
    metrics = model.about["metrics"]
    low, high = metrics["dice_95_percent"]
    assert low <= metrics["dice"] <= high
    assert (model.geometry.input, model.geometry.output) == (572, 388)
    result = CliRunner().invoke(app, ["info", name])
    assert "not for diagnosis" in " ".join(result.output.split())
