"""Which mask is compared with which truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.pairs import MASK_ENDING, pair_folders, pair_table, stem
from tilepipe.storage import local

SUFFIXES = (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff", ".png")
"""Suffixes of label maps in a folder. Of files with one name the first counts: the outputs of a run
are a mask, ``.ome.zarr``, and its exports beside it, one of which is a picture, ``.png``."""

_KINDS = ("mask", "truth")


@dataclass(frozen=True, slots=True)
class MaskPair:
    """A mask and its truth."""

    name: str
    """The name of the pair in results: that of the mask, without its suffix and ``_mask``."""
    mask: Path
    truth: Path


def find_pairs(mask: str | Path, truth: str | Path | None = None) -> list[MaskPair]:
    """The pairs that two files, two folders, or a CSV file stand for.

    Parameters
    ----------
    mask, truth : path
        Two files (an OME-Zarr counts as one); two folders, whose files pair by their names; or a
        CSV file with the columns ``mask`` and ``truth``, and no second path.

    Raises
    ------
    InputError
        A file is missing, or has no partner.
    """
    mask = local(mask)
    if truth is None:
        if mask.suffix.lower() != ".csv":
            raise InputError(f"{mask} has no truth to compare with; give its path after the mask's")
        return _from_table(mask)
    truth = local(truth)
    for path in (mask, truth):
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path")
    if _is_folder(mask) != _is_folder(truth):
        folder, file = (mask, truth) if _is_folder(mask) else (truth, mask)
        raise InputError(f"{folder} is a folder and {file} is not; give two files or two folders")
    if not _is_folder(mask):
        return [MaskPair(stem(mask), mask, truth)]
    pairs = pair_folders(mask, truth, _KINDS, SUFFIXES)
    if not pairs:
        raise InputError(f"{mask} holds no masks; their names end in {', '.join(SUFFIXES)}")
    return [MaskPair(_name(pair.first), pair.first, pair.second) for pair in pairs]


def _from_table(table: Path) -> list[MaskPair]:
    pairs: list[MaskPair] = []
    for found in pair_table(table, _KINDS):
        name = _name(found.first)
        if any(pair.name == name for pair in pairs):
            # Masks of one name in different folders.
            name = f"{name}-{found.line}"
        pairs.append(MaskPair(name, found.first, found.second))
    return pairs


def _name(mask: Path) -> str:
    return stem(mask).removesuffix(MASK_ENDING)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() != ".zarr"
