"""Which mask is compared with which truth."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.storage import local, local_file
from tilepipe.text import some

SUFFIXES = (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff", ".png")
"""Of label maps in a folder. Of files with one stem the first counts: a run's mask is a
``.ome.zarr`` with, beside it, what was exported from it, and a picture in ``.png``."""

RUN_ENDING = "_mask"
"""What `tilepipe run` adds to the name of an image."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """A mask and its truth."""

    name: str
    """What the pair is called in results: the stem that both have in common."""
    mask: Path
    truth: Path


def find_pairs(mask: str | Path, truth: str | Path | None = None) -> list[Pair]:
    """The pairs that two files, two folders, or a CSV file stand for.

    Parameters
    ----------
    mask, truth : path
        Two files (an OME-Zarr counts as one); or two folders, whose files pair by their stems; or
        a CSV file with the columns ``mask`` and ``truth`` and no second path.

    Raises
    ------
    InputError
        Something is missing, or has no partner.
    """
    mask = local(mask)
    if truth is None:
        if mask.suffix.lower() != ".csv":
            raise InputError(f"{mask} is compared with which truth? Give its path after the mask's")
        return _from_csv(mask)
    truth = local(truth)
    for path in (mask, truth):
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path")
    if _is_folder(mask) != _is_folder(truth):
        folder, file = (mask, truth) if _is_folder(mask) else (truth, mask)
        raise InputError(f"{folder} is a folder, and {file} is not; give two files or two folders")
    return _from_folders(mask, truth) if _is_folder(mask) else [Pair(stem(mask), mask, truth)]


def stem(path: Path) -> str:
    """A file's name without its suffix, as long as that may be (``.ome.tif``)."""
    name = path.name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return path.stem


def _from_folders(masks: Path, truths: Path) -> list[Pair]:
    by_stem, true_by_stem = _label_maps(masks), _label_maps(truths)
    pairs = []
    for name, mask in sorted(by_stem.items()):
        image = name.removesuffix(RUN_ENDING)
        # `a_mask.png` is the truth of `a_mask.ome.zarr` as well as of `a.ome.zarr`.
        known = [key for key in (name, image, image + RUN_ENDING) if key in true_by_stem]
        if known:
            pairs.append(Pair(image, mask, true_by_stem[known[0]]))
    paired = {path for pair in pairs for path in (pair.mask, pair.truth)}
    alone = [path.name for path in by_stem.values() if path not in paired]
    truths_alone = [path.name for path in true_by_stem.values() if path not in paired]
    lacking = []
    if alone:
        lacking.append(f"no truth in {truths} for {some(sorted(alone), _MOST_NAMED)}")
    if truths_alone:
        lacking.append(f"no mask in {masks} for {some(sorted(truths_alone), _MOST_NAMED)}")
    if lacking:
        raise InputError(
            f"there is {' and '.join(lacking)}; files pair by their names without suffix, "
            "or by a CSV file with the columns mask and truth"
        )
    if not pairs:
        raise InputError(f"{masks} holds no masks; they end with {', '.join(SUFFIXES)}")
    _require_one_mask_each(pairs)
    return pairs


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns of a CSV file, and its rows with the lines on which they end.

    Raises
    ------
    InputError
        It is not there, or no CSV file in UTF-8.
    """
    try:
        with local_file(path, "a CSV file").open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist and cannot be read; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); write it in UTF-8") from error


def _from_csv(table: Path) -> list[Pair]:
    columns, rows = read_table(table)
    if not {"mask", "truth"} <= set(columns):
        raise InputError(f"{table} has no columns mask and truth; name them in its first line")
    pairs: list[Pair] = []
    for line, row in rows:
        paths = []
        for column in ("mask", "truth"):
            if not row[column]:
                raise InputError(f"{table}, line {line}: there is no {column}; write its path")
            paths.append(table.parent / row[column])
            if not paths[-1].exists():
                raise InputError(f"{table}, line {line}: {paths[-1]} does not exist; correct it")
        name = stem(paths[0]).removesuffix(RUN_ENDING)
        if any(pair.name == name for pair in pairs):
            # Masks of one name in different folders.
            name = f"{name}-{line}"
        pairs.append(Pair(name, *paths))
    if not pairs:
        raise InputError(f"{table} names no pairs; write one a line below the names of the columns")
    return pairs


def _label_maps(folder: Path) -> dict[str, Path]:
    """The label maps of a folder, by stem."""
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in sorted(folder.iterdir()):
            if path.name.lower().endswith(suffix) and not path.name.startswith("."):
                found.setdefault(stem(path), path)
    return found


def _require_one_mask_each(pairs: list[Pair]) -> None:
    masks: dict[Path, Path] = {}
    for pair in pairs:
        other = masks.setdefault(pair.truth, pair.mask)
        if other != pair.mask:
            raise InputError(
                f"{other.name} and {pair.mask.name} both pair with {pair.truth}; "
                "keep one of them, or give a CSV file with the columns mask and truth"
            )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() != ".zarr"
