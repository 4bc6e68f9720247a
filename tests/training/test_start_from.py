"""Going on from a trained model: the same task, other classes, other bands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.making import make_image, make_model, save_tiny
from tests.training.making import discs, picture_of, train, write_folder, write_png
from tilepipe.errors import InputError
from tilepipe.models.file import load_model
from tilepipe.models.fold import fold_batch_normalisation
from tilepipe.models.unet import UNet, UNetArguments

pytestmark = pytest.mark.usefixtures("no_pictures")

TINY = UNetArguments(width=2, depth=1)


def go_on(data: Path, output: Path, start: Path, **options: Any) -> Path:
    given: dict[str, Any] = {
        "width": None, "depth": None, "start_from": str(start), "steps": 1, "lr": 1e-12,
        "weight_decay": 0.0, "average": 0.0,
    }  # fmt: skip
    return train(data, output, **{**given, **options}).model


def test_the_same_classes_begin_with_the_same_answers(spots: Path, tmp_path: Path) -> None:
    start = save_tiny(tmp_path / "start.safetensors", TINY, pixel_size_um=None)
    model = load_model(go_on(spots, tmp_path / "m.safetensors", tmp_path / "start.safetensors"))
    # What the images are now known to hold is all that is new.
    assert model.input == replace(start.input, band_names=("red", "green", "blue"))
    assert model.output.classes == start.output.classes
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.network(x), start.network(x), atol=1e-6, rtol=1e-5)


def test_other_classes_get_a_new_head_and_keep_the_rest(tmp_path: Path) -> None:
    start = save_tiny(tmp_path / "start.safetensors", TINY)
    data = write_folder(tmp_path / "d", mask=lambda numbers: numbers.clip(0, 2))
    model = load_model(go_on(data, tmp_path / "m.safetensors", tmp_path / "start.safetensors"))
    assert model.arguments.outputs == 3
    ours, theirs = model.network.state_dict(), start.network.state_dict()
    for name in ours:
        if not name.startswith("head"):
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bands", [1, 4])
def test_other_bands_begin_as_the_mean_of_the_old_ones(tmp_path: Path, bands: int) -> None:
    import tifffile

    start = save_tiny(tmp_path / "start.safetensors", TINY)
    for i in range(3):
        numbers = discs(64, i)
        (tmp_path / "d/images").mkdir(parents=True, exist_ok=True)
        pixels = picture_of(numbers, i, bands)
        tifffile.imwrite(
            tmp_path / "d/images" / f"{i}.tif", pixels[..., 0] if bands == 1 else pixels,
            photometric="minisblack", planarconfig=None if bands == 1 else "contig", metadata=None,
        )  # fmt: skip
        write_png(tmp_path / "d/masks" / f"{i}.png", (numbers > 0).astype("u1"))
    model = load_model(
        go_on(tmp_path / "d", tmp_path / "m.safetensors", tmp_path / "start.safetensors")
    )
    assert model.input.bands == bands
    first, old = (m.network.state_dict()["down.0.0.weight"] for m in (model, start))
    torch.testing.assert_close(first.sum(1), old.sum(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first[:, 0], old.mean(1) * 3 / bands, atol=1e-5, rtol=1e-5)


def test_images_of_another_type_are_normalised_by_their_own_numbers(tmp_path: Path) -> None:
    from tests.making import write_tiff

    save_tiny(tmp_path / "start.safetensors", TINY)
    for i in range(2):
        numbers = discs(64, i)
        (tmp_path / "d/images").mkdir(parents=True, exist_ok=True)
        pixels = picture_of(numbers, i).astype(np.uint16) * 100
        write_tiff(tmp_path / "d/images" / f"{i}.tif", pixels, None)
        write_png(tmp_path / "d/masks" / f"{i}.png", (numbers > 0).astype("u1"))
    spec = load_model(
        go_on(tmp_path / "d", tmp_path / "m.safetensors", tmp_path / "start.safetensors")
    ).input
    assert (spec.dtype, spec.scale) == ("uint16", 1.0)
    assert min(spec.mean) > 1000


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"width": 4}, "width 4: model start has 2; leave it out"),
        ({"depth": 3}, "depth 3: model start has 1"),
        ({"normalisation": "batch"}, "normalisation batch: model start has none"),
        ({"start_from": "nowhere.safetensors"}, "nowhere.safetensors: there is no such file"),
    ],
)
def test_another_network_than_the_models_is_refused(
    spots: Path, tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    save_tiny(tmp_path / "start.safetensors", TINY)
    with pytest.raises(InputError, match=complaint):
        go_on(spots, tmp_path / "m.safetensors", tmp_path / "start.safetensors", **options)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolation"])
@pytest.mark.parametrize("normalisation", ["none", "batch"])
def test_folding_changes_no_answer(padding: Any, upsampling: Any, normalisation: Any) -> None:
    arguments = UNetArguments(
        width=3, depth=2, padding=padding, upsampling=upsampling, normalisation=normalisation,
        dropout=0.4,
    )  # fmt: skip
    model = make_model(arguments)
    assert isinstance(model.network, UNet)
    folded = fold_batch_normalisation(model.network)
    assert (folded.arguments.normalisation, folded.arguments.dropout) == ("none", 0.0)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    pixels = torch.from_numpy(make_image(96, 96).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        ours, theirs = folded((pixels - 127) / 40), model.network((pixels - 127) / 40)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
