"""A model's card takes the figures that `tilepipe evaluate` wrote, and nothing else changes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tilepipe
from tests.making import save_tiny
from tilepipe.models.unet import UNetArguments

SCRIPT = Path(__file__).parents[2] / "workflows" / "write_card.py"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_figures_go_into_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    path = tmp_path / "m.safetensors"
    tilepipe.save_model(path, save_tiny(path, UNetArguments(width=2, depth=2)), dtype)
    before, size = tilepipe.load_model(path), path.stat().st_size
    rng = np.random.default_rng(0)
    for number in range(3):
        for folder in ("masks", "truths"):
            (tmp_path / folder).mkdir(exist_ok=True)
            labels = rng.integers(0, 2, (40, 40), np.uint8)
            Image.fromarray(labels).save(tmp_path / folder / f"{number}.png")
    found = tilepipe.evaluate(tmp_path / "masks", tmp_path / "truths")
    document = tmp_path / "found.json"
    document.write_text(found.to_json())
    label = json.loads(found.to_json())["classes"][1]

    spec = importlib.util.spec_from_file_location("write_card", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(
        sys, "argv", ["x", str(path), str(document), label, "--on", "three drawn images"]
    )
    script.main()
    script.main()  # again: the same card, not a longer one

    after = tilepipe.load_model(path)
    metrics = after.about["metrics"]
    assert metrics["dice"] == pytest.approx(
        np.mean([i.counts.scores()["classes"][label]["dice"] for i in found.images]), abs=1e-4
    )
    assert metrics["dice_95_percent"][0] <= metrics["dice"] <= metrics["dice_95_percent"][1]
    assert (metrics["on"], metrics["images"]) == ("three drawn images", 3)
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[name])
    assert abs(path.stat().st_size - size) < 1000, "stored as it was"
