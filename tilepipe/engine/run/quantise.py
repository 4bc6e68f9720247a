"""`quantise`: a model file with an int8 network in it, calibrated and measured on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilepipe.engine.hardware import cores
from tilepipe.engine.inputs import open_input
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.label_change import LabelChange
from tilepipe.engine.plan.plan import at_model_scale
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.facts import image_facts
from tilepipe.engine.planning.int8 import unquantisable
from tilepipe.engine.planning.quantising import (
    CALIBRATING,
    MEASURING,
    int8_settings,
    labels_of,
    network_inputs,
    reference_settings,
)
from tilepipe.engine.planning.tiles import TrialTiles, read_tiles
from tilepipe.engine.planning.timing import Sample
from tilepipe.errors import InputError
from tilepipe.models.file import exact_dtype, load_model, save_model
from tilepipe.models.float32 import require_float32
from tilepipe.models.int8_network import Int8Network
from tilepipe.models.onednn import reduced_float32
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.quantised import with_network
from tilepipe.models.quantise import PACKAGES, quantised, require_packages
from tilepipe.models.runtimes import version
from tilepipe.models.safetensors_file import weights_hash
from tilepipe.models.specs import Model
from tilepipe.storage import as_path, require_writable
from tilepipe.text import count

Progress = Callable[[str], None]

MOST_TILES = 96
"""To calibrate on; each takes as much memory as the network's input."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What `quantise` made."""

    path: Path
    """The model file."""
    model: Model
    """The model that it holds, with the int8 network."""
    change: LabelChange
    """How far the labels of the int8 network are from fp32's, on other tiles of the images."""
    warnings: tuple[str, ...] = ()


def quantise(
    model: str | Path,
    images: Sequence[str | Path],
    output: str | Path,
    *,
    overwrite: bool,
    progress: Progress,
    options: dict[str, Any],
) -> Quantised:
    """See `tilepipe.quantise`."""
    require_packages("quantise")
    given = load_model(model)
    if reason := unquantisable(given):
        raise InputError(f"quantise: {reason}")
    require_float32(Precision.FP32, "torch", reduced_float32(), "quantising")
    target = _target(output, overwrite=overwrite)
    if not images:
        raise InputError("quantise: give images like those that the model is for")
    found = [_tiles(given, str(image), len(images), str(model), options) for image in images]
    calibrating = _alike([tile for tiles in found for tile in tiles.calibrating])
    measuring = [tile for tiles in found for tile in tiles.measuring]
    progress(f"quantising on {len(calibrating)} tiles")
    inputs = network_inputs(given, calibrating)
    content = quantised(given.predictor.graph(), inputs, saturates=True)
    progress(f"measuring on {len(measuring)} tiles")
    change = _change(given, content, measuring)
    network = Int8Network(
        weights=weights_hash(given.predictor.tensors), images=len(images), tiles=len(calibrating),
        label_change=change.share, dice=change.dice, measured=change.tiles,
        versions={package: version(package) for package in PACKAGES}, content=content,
    )  # fmt: skip
    made = replace(given, int8=network)
    save_model(target, made, dtype=exact_dtype(given))
    warnings = [w for pair in zip(images, found, strict=True) for w in _warnings(*pair)]
    return Quantised(target, made, change, tuple(warnings))


def _warnings(image: str | Path, tiles: TrialTiles) -> Iterator[str]:
    """What a user has to know of an image that was quantised on."""
    if tiles.unreadable:
        yield (
            f"{count(len(tiles.unreadable), 'place')} of an image passed over: "
            f"{tiles.unreadable[0]}"
        )
    if tiles.plain:
        yield f"{image}: all that was seen of it is background, which is little to calibrate on"
    if tiles.is_shared:
        yield (
            f"{image}: only one tile of it could be used, so its labels are compared where the "
            "network was calibrated; give larger images, or more of them"
        )


def _target(output: str | Path, *, overwrite: bool) -> Path:
    target = Path(output)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the name of a model file ends in .safetensors")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: is there already; use --overwrite to replace it")
    require_writable(as_path(str(target)))
    return target


def _tiles(
    model: Model, path: str, images: int, reference: str, options: dict[str, Any]
) -> TrialTiles:
    """Tiles of an image to calibrate and to measure on."""
    asked = RunOptions.parse({**options, "image": path, "model": reference})
    image = open_input(asked, model)
    try:
        facts = image_facts(image, choose_scale(image, model, asked))
        # As many of each image as make about `CALIBRATING` and `MEASURING`, or three of each.
        wanted = max(3, (CALIBRATING + MEASURING) // images)
        tiles = read_tiles(at_model_scale(image, facts), facts.level, model, None, wanted)
    finally:
        image.close()
    if not tiles.measuring:
        raise InputError(f"{path}: no tile of it can be read; leave it out")
    return tiles


def _alike(tiles: list[Sample]) -> list[Sample]:
    """The middle of each, as much as the smallest has; evenly chosen, where they are too many."""
    most = min(len(tiles), MOST_TILES)
    tiles = [tiles[i * len(tiles) // most] for i in range(most)]
    side = min(tile.pixels.shape[0] for tile in tiles)
    return [_middle(tile, side) for tile in tiles]


def _middle(tile: Sample, side: int) -> Sample:
    top = (tile.pixels.shape[0] - side) // 2
    part = (slice(top, top + side), slice(top, top + side))
    valid = None if tile.valid is None else tile.valid[part]
    return Sample(tile.pixels[part], valid, tile.keep)


def _change(model: Model, content: bytes, tiles: list[Sample]) -> LabelChange:
    threads = cores()
    truth = labels_of(model, tiles, reference_settings(model, threads))
    found = labels_of(with_network(model, content), tiles, int8_settings(threads))
    return LabelChange.between(found, truth, model.output.background)
