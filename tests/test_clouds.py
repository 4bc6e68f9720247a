"""The satellite workflow with real weights, where the extra `clouds` and the data are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilepipe
from tilepipe.grid import Window

WORKFLOWS = Path(__file__).parents[1] / "workflows"


def _script(name: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, WORKFLOWS / name, *arguments], check=True, capture_output=True)


@pytest.mark.timeout(900)
def test_the_workflow_runs_as_it_stands(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime", "ukis_csmask"):
        pytest.importorskip(package, reason="needs the extra clouds")
    scene = data / "geo" / "sentinel2.npz"
    if not scene.exists():
        pytest.skip(f"{scene} is not there")
    monkeypatch.chdir(tmp_path)
    _script("make_clouds_model.py", "out/clouds-6band.onnx")
    _script("make_sentinel2_scene.py", scene, "out/sentinel2.tif", "out/sentinel2_truth.tif")
    config = WORKFLOWS / "sentinel2_clouds.yaml"
    command = [sys.executable, "-m", "tilepipe", "run", "--config", config, "--threads", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "cannot be tiled exactly (GlobalAveragePool" in done.stdout
    assert Path("out/sentinel2_clouds.png").exists()

    everything = Window(0, 0, 512, 512)
    found = tilepipe.open_mask("out/sentinel2_clouds.tif").read(everything)
    truth = tilepipe.open_image("out/sentinel2_truth.tif").read(everything, 0)[..., 0]
    assert np.mean(found == truth) > 0.89
    for label in (0, 1, 2):
        dice = 2 * np.sum((found == label) & (truth == label))
        assert dice / (np.sum(found == label) + np.sum(truth == label)) > 0.8
