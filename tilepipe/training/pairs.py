"""Finding images and their masks: folders, CSV files, or files named one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from tilepipe.engine.options import image_stem
from tilepipe.errors import InputError
from tilepipe.evaluation.pairs import read_table
from tilepipe.storage import local
from tilepipe.text import some

MASK_FOLDERS = ("masks", "labels")
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask, and what is known of where they belong."""

    image: str
    mask: str
    name: str
    """The image's name without suffixes."""
    source: int = 0
    """Which of the data it comes from."""
    group: str = ""
    """What must not be split: a patient, a field of view."""
    split: str = ""
    """train, validation, test, or empty where the data do not say."""
    rows: tuple[float, float] = (0.0, 1.0)
    """The part of the image's rows that is used, as shares of its height."""


def find_pairs(data: Sequence[str], masks: Sequence[str] = ()) -> list[Pair]:
    """All pairs of all data, in a fixed order.

    Raises
    ------
    InputError
        Where there are none, or an image has no mask, or a mask no image: by name.
    """
    if masks:
        return [
            Pair(image, mask, image_stem(image), source=number)
            for number, (image, mask) in enumerate(zip(data, masks, strict=True))
        ]
    found: list[Pair] = []
    for number, entry in enumerate(data):
        path = local(entry)
        if path.suffix.lower() == ".csv":
            new = _from_csv(path)
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
    pairs: Sequence[Pair], validation: str | float, exclude: str, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and pairs to judge by; groups stay whole.

    Parameters
    ----------
    validation
        A share, patterns of names, or another folder or CSV; see `TrainOptions.validation`. A
        split that the data name themselves goes before a share.

    Raises
    ------
    InputError
        Where nothing is left to train on, or a pattern matches nothing.
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
    if validation and any(p.split == "validation" for p in pairs):
        training = [p for p in pairs if p.split != "validation"]
        judged = [p for p in pairs if p.split == "validation"]
        return _required(training), judged
    if not validation:
        return _required([p for p in pairs if p.split != "validation"]), []
    groups = sorted({_group(p) for p in pairs})
    if len(groups) == 1 and len(pairs) == 1:
        # One image: its last rows are judged, the others trained on.
        cut = 1 - validation
        return [replace(pairs[0], rows=(0.0, cut))], [replace(pairs[0], rows=(cut, 1.0))]
    if len(groups) == 1:
        raise InputError(
            f"all images are of the group {groups[0]}, which is not split: name others to judge by "
            "with --validation, or 0 for none"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    wanted, chosen = max(1, round(validation * len(pairs))), set[str]()
    for index in order:
        if sum(_group(p) in chosen for p in pairs) >= wanted or len(chosen) == len(groups) - 1:
            break
        chosen.add(groups[index])
    return (
        _required([p for p in pairs if _group(p) not in chosen]),
        [p for p in pairs if _group(p) in chosen],
    )


def _split_by_name(pairs: Sequence[Pair], validation: str) -> tuple[list[Pair], list[Pair]]:
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


def _required(pairs: list[Pair]) -> list[Pair]:
    if not pairs:
        raise InputError("no image is left to train on; hold fewer back")
    return pairs


def _group(pair: Pair) -> str:
    return pair.group or f"{pair.source}/{pair.name}"


def _matches(pair: Pair, patterns: str) -> bool:
    return any(
        fnmatch(pair.name, p.strip()) or fnmatch(pair.group, p.strip()) for p in patterns.split(",")
    )


def _require_matches(pairs: Sequence[Pair], patterns: str, option: str) -> None:
    for pattern in patterns.split(","):
        if not any(_matches(p, pattern) for p in pairs):
            what = " and there is no such folder" if option == "validation" else ""
            raise InputError(
                f"{option} {pattern.strip()}: no image's name or group is like that{what}"
            )


def _from_folder(folder: Path) -> list[Pair]:
    parts = [(folder, "")]
    parts += [(folder / name, split) for name, split in SPLITS.items() if (folder / name).is_dir()]
    found = [pair for part, split in parts for pair in _from_images_and_masks(part, split)]
    if not found:
        raise InputError(
            f"{folder}: must hold the folders images and masks (or labels), with files in them"
        )
    return found


def _from_images_and_masks(folder: Path, split: str) -> list[Pair]:
    images = folder / "images"
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        return []
    named = _by_stem(images)
    truths = {stem.removesuffix("_mask"): path for stem, path in _by_stem(masks).items()}
    without = sorted(named.keys() - truths.keys())
    if without:
        raise InputError(
            f"{images}: {some(without)} {'has' if len(without) == 1 else 'have'} no mask of the "
            f"same name in {masks}; add it, or take the image away"
        )
    alone = sorted(truths.keys() - named.keys())
    if alone:
        raise InputError(
            f"{masks}: {some(alone)} {'belongs' if len(alone) == 1 else 'belong'} to no image of "
            f"that name in {images}; add the image, or take the mask away"
        )
    return [Pair(str(named[stem]), str(truths[stem]), stem, split=split) for stem in sorted(named)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        stem = image_stem(path.name)
        if stem in found:
            raise InputError(f"{folder}: {found[stem].name} and {path.name} have the same stem")
        found[stem] = path
    return found


def _from_csv(path: Path) -> list[Pair]:
    columns, rows = read_table(path)
    if not rows:
        raise InputError(f"{path}: names no pairs; its columns must be image and mask")
    lacking = {"image", "mask"} - set(columns)
    if lacking:
        raise InputError(
            f"{path}: has no column {' and '.join(sorted(lacking))}; its first line must name the "
            "columns image and mask (and may name split and group)"
        )
    found = []
    for number, row in rows:
        split = (row.get("split") or "").strip().lower()
        if split and split not in SPLITS:
            raise InputError(
                f"{path}, line {number}: split {split} is none of train, validation, test"
            )
        if not all((row[column] or "").strip() for column in ("image", "mask")):
            raise InputError(f"{path}, line {number}: must name an image and a mask")
        image, mask = (str(path.parent / row[column].strip()) for column in ("image", "mask"))
        for name in (image, mask):
            if not Path(name).exists():
                raise InputError(f"{path}, line {number}: {name} does not exist")
        found.append(
            Pair(
                image, mask, image_stem(image), group=(row.get("group") or "").strip(),
                split=SPLITS.get(split, ""),
            )
        )  # fmt: skip
    return found
