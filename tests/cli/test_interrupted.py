"""What an interrupted run prints leads to the mask that was asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tilepipe.cli import call
from tilepipe.engine.run import run as engine
from tilepipe.errors import EnvironmentFailure


def interrupted(monkeypatch: pytest.MonkeyPatch, *, begun: bool, words: list[str]) -> int:
    def stop(options: Any, watch: Any) -> None:
        watch.begun = begun
        raise KeyboardInterrupt if "x.tif" in options.image else EnvironmentFailure("no room")

    monkeypatch.setattr(engine, "run", stop)
    monkeypatch.setattr(sys, "argv", ["tilepipe", *words])
    return call(words)


@pytest.mark.parametrize(("image", "code"), [("x.tif", 130), ("y.tif", 4)])
def test_overwrite_is_repeated_until_the_older_mask_is_gone(
    image: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", image, "--overwrite"]
    assert interrupted(monkeypatch, begun=False, words=words) == code
    assert f"tilepipe run {image} --overwrite\n" in capsys.readouterr().err
    assert interrupted(monkeypatch, begun=True, words=words) == code
    assert f"tilepipe run {image}\n" in capsys.readouterr().err


def test_overwrite_in_a_configuration_is_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("overwrite: true\n")
    words = ["run", "x.tif", "--config", str(tmp_path / "c.yaml")]
    interrupted(monkeypatch, begun=True, words=words)
    assert "remove `overwrite` from the configuration" in capsys.readouterr().err
