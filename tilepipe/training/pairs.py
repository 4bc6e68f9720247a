"""Which image is trained on with which mask, and which pairs are held back for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from tilepipe.engine.options import image_stem
from tilepipe.errors import InputError
from tilepipe.pairs import FilePair, pair_folders, pair_table, stem
from tilepipe.storage import local

MASK_FOLDERS = ("masks", "labels")
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test",
}  # fmt: skip

_KINDS = ("image", "mask")


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """An image and its mask, and the split and group that they belong to."""

    image: str
    mask: str
    name: str
    """The image's name without its suffix."""
    source: int = 0
    """The number of the data, in the order given, that the pair comes from."""
    group: str = ""
    """What must not be split: a patient, a field of view."""
    split: str = ""
    """train, validation or test; empty if the data name no split."""
    rows: tuple[float, float] = (0.0, 1.0)
    """The part of the image's rows that is used, as shares of its height."""


def find_pairs(data: Sequence[str], masks: Sequence[str] = ()) -> list[TrainingPair]:
    """All pairs of all data, in a fixed order.

    Parameters
    ----------
    data, masks : sequence of str
        Images and the mask of each; or, without masks, folders and CSV files of pairs.

    Raises
    ------
    InputError
        There are no pairs, or an image or a mask has no partner.
    """
    if masks:
        return [
            TrainingPair(image, mask, image_stem(image), source=number)
            for number, (image, mask) in enumerate(zip(data, masks, strict=True))
        ]
    found: list[TrainingPair] = []
    for number, entry in enumerate(data):
        path = local(entry)
        if path.suffix.lower() == ".csv":
            new = _from_table(path)
        elif path.is_dir():
            new = _from_folder(path)
        elif path.exists():
            raise InputError(
                f"{path}: is neither a folder nor a CSV file; give its mask with --mask"
            )
        else:
            raise InputError(f"{path}: there is no such folder or CSV file")
        found += [replace(pair, source=number) for pair in new]
    return found


def split_pairs(
    pairs: Sequence[TrainingPair], validation: str | float, exclude: str, seed: int
) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Pairs to train on, and pairs for validation; groups stay whole.

    Parameters
    ----------
    validation
        A share, patterns of names, or another folder or CSV file (`TrainOptions.validation`). If
        the data name a split themselves, it takes precedence over a share.
    exclude
        Patterns of names to leave out.

    Raises
    ------
    InputError
        Nothing is left to train on, or a pattern matches nothing.
    """
    if exclude:
        _require_matches(pairs, exclude, "exclude")
        pairs = [p for p in pairs if not _matches(p, exclude)]
    pairs = [p for p in pairs if p.split != "test"]
    if isinstance(validation, str):
        try:
            share = float(validation)
        except ValueError:
            return _split_by_name(pairs, validation)
        # Images may be called 01, 02 ...
        if validation != "0" and any(_matches(p, validation) for p in pairs):
            return _split_by_name(pairs, validation)
        validation = share
    if not 0 <= validation < 1:
        raise InputError(f"validation {validation:g}: must be a share from 0 to 1")
    held_back = [p for p in pairs if p.split == "validation"]
    if held_back or not validation:
        training = [p for p in pairs if p.split != "validation"]
        return _required(training), held_back if validation else []
    return _split_by_share(pairs, validation, seed)


def _split_by_share(
    pairs: Sequence[TrainingPair], share: float, seed: int
) -> tuple[list[TrainingPair], list[TrainingPair]]:
    groups = sorted({_group(p) for p in pairs})
    if len(groups) == 1 and len(pairs) == 1:
        # A single image: its last rows are for validation.
        cut = 1 - share
        return [replace(pairs[0], rows=(0.0, cut))], [replace(pairs[0], rows=(cut, 1.0))]
    if len(groups) == 1:
        raise InputError(
            f"all images are of the group {groups[0]}, which is not split; use --validation to "
            "name other images, or 0 for none"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    wanted, chosen = max(1, round(share * len(pairs))), set[str]()
    for index in order:
        if sum(_group(p) in chosen for p in pairs) >= wanted or len(chosen) == len(groups) - 1:
            break
        chosen.add(groups[index])
    return (
        _required([p for p in pairs if _group(p) not in chosen]),
        [p for p in pairs if _group(p) in chosen],
    )


def _split_by_name(
    pairs: Sequence[TrainingPair], validation: str
) -> tuple[list[TrainingPair], list[TrainingPair]]:
    path = Path(validation)
    if path.is_dir() or path.suffix.lower() == ".csv":
        others = [p for p in find_pairs([validation]) if p.split != "test"]
        chosen = [p for p in others if p.split == "validation"] or others
        return _required(list(pairs)), chosen
    _require_matches(pairs, validation, "validation")
    return (
        _required([p for p in pairs if not _matches(p, validation)]),
        [p for p in pairs if _matches(p, validation)],
    )


def _required(pairs: list[TrainingPair]) -> list[TrainingPair]:
    if not pairs:
        raise InputError("no image is left to train on; hold fewer back")
    return pairs


def _group(pair: TrainingPair) -> str:
    return pair.group or f"{pair.source}/{pair.name}"


def _matches(pair: TrainingPair, patterns: str) -> bool:
    return any(
        fnmatch(pair.name, p.strip()) or fnmatch(pair.group, p.strip()) for p in patterns.split(",")
    )


def _require_matches(pairs: Sequence[TrainingPair], patterns: str, option: str) -> None:
    for pattern in patterns.split(","):
        if not any(_matches(p, pattern) for p in pairs):
            other = ", and there is no such folder" if option == "validation" else ""
            raise InputError(f"{option} {pattern.strip()}: matches no image's name or group{other}")


def _from_folder(folder: Path) -> list[TrainingPair]:
    parts = [(folder, "")]
    parts += [(folder / name, split) for name, split in SPLITS.items() if (folder / name).is_dir()]
    found = [pair for part, split in parts for pair in _from_images_and_masks(part, split)]
    if not found:
        raise InputError(
            f"{folder}: must hold the folders images and masks (or labels), with files in them"
        )
    return found


def _from_images_and_masks(folder: Path, split: str) -> list[TrainingPair]:
    images = folder / "images"
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        return []
    return [_training_pair(pair, split=split) for pair in pair_folders(images, masks, _KINDS)]


def _from_table(path: Path) -> list[TrainingPair]:
    found = []
    for pair in pair_table(path, _KINDS, optional=("split", "group")):
        split = pair.others["split"].lower()
        if split and split not in SPLITS:
            raise InputError(
                f"{path}, line {pair.line}: the split {split} is not train, validation or test"
            )
        found.append(_training_pair(pair, group=pair.others["group"], split=SPLITS.get(split, "")))
    return found


def _training_pair(pair: FilePair, *, group: str = "", split: str = "") -> TrainingPair:
    return TrainingPair(
        str(pair.first), str(pair.second), stem(pair.first), group=group, split=split
    )
