"""Files that belong together, such as images and masks, or masks and their truths."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilepipe.engine.options import image_stem
from tilepipe.errors import InputError
from tilepipe.storage import local_file
from tilepipe.text import some

MASK_ENDING = "_mask"
"""What `tilepipe run` adds to the name of an image."""

_MOST_NAMED = 5

Kinds = tuple[str, str]
"""What the two files of a pair are, for messages and as columns of a table: image and mask."""


@dataclass(frozen=True, slots=True)
class FilePair:
    """Two files that belong together."""

    first: Path
    second: Path
    line: int = 0
    """The line of the table that names them; 0 for files of folders."""
    others: Mapping[str, str] | None = None
    """The other columns of that line."""


def stem(path: str | Path) -> str:
    """A file's name without its suffix, however long that is (``.ome.tif``)."""
    name = Path(path).name
    found = image_stem(name)
    return found if found != name else Path(name).stem


def pair_folders(
    first: Path, second: Path, kinds: Kinds, suffixes: Sequence[str] = ()
) -> list[FilePair]:
    """The files of two folders, paired by their names without suffix.

    ``a`` pairs with ``a`` or else with ``a_mask``, in either folder.

    Parameters
    ----------
    first, second : Path
        The folders.
    kinds : tuple of str
        What the files of each are.
    suffixes : sequence of str, optional
        Suffixes of the files that count; of several files of one name, the one whose suffix comes
        first [all files count, and no two may have the same name].

    Raises
    ------
    InputError
        A file has no partner, or two files have the same one.
    """
    named, others = (_by_stem(folder, suffixes) for folder in (first, second))
    pairs = []
    for name, path in sorted(named.items()):
        bare = name.removesuffix(MASK_ENDING)
        known = [key for key in (name, bare, bare + MASK_ENDING) if key in others]
        if known:
            pairs.append(FilePair(path, others[known[0]]))
    lacking = [
        f"no {kind} in {folder} for {some(alone, _MOST_NAMED)}"
        for kind, folder, alone in (
            (kinds[1], second, _without(named, [pair.first for pair in pairs])),
            (kinds[0], first, _without(others, [pair.second for pair in pairs])),
        )
        if alone
    ]
    way_out = f"a CSV file with the columns {kinds[0]} and {kinds[1]}"
    if lacking:
        raise InputError(
            f"there is {' and '.join(lacking)}; files pair by their names without suffix, or use "
            f"{way_out}"
        )
    partners: dict[Path, Path] = {}
    for pair in pairs:
        other = partners.setdefault(pair.second, pair.first)
        if other != pair.first:
            raise InputError(
                f"{other.name} and {pair.first.name} both pair with {pair.second}; keep one of "
                f"them, or use {way_out}"
            )
    return pairs


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for suffix in suffixes:
        for path in files:
            if path.name.lower().endswith(suffix):
                found.setdefault(stem(path), path)
    for path in () if suffixes else files:
        other = found.setdefault(stem(path), path)
        if other != path:
            raise InputError(
                f"{folder}: {other.name} and {path.name} have the same name without suffix; keep "
                "one of them"
            )
    return found


def _without(named: Mapping[str, Path], paired: Sequence[Path]) -> list[str]:
    return sorted(path.name for path in named.values() if path not in set(paired))


def pair_table(path: Path, kinds: Kinds, optional: Sequence[str] = ()) -> list[FilePair]:
    """The pairs of a CSV file, whose columns are named after the kinds of files.

    Parameters
    ----------
    path : Path
        The table; paths in it are relative to it.
    kinds : tuple of str
        The two columns that hold paths.
    optional : sequence of str
        Other columns that the table may have.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column or a path, or names a file that does not exist.
    """
    columns, rows = _read_table(path)
    lacking = [kind for kind in kinds if kind not in columns]
    if lacking:
        more = f" ({' and '.join(optional)} are optional)" if optional else ""
        raise InputError(
            f"{path} has no column{'s' * (len(lacking) > 1)} {' and '.join(lacking)}; name the "
            f"columns {' and '.join(kinds)} in its first line{more}"
        )
    pairs = []
    for line, row in rows:
        cells = {key: (row.get(key) or "").strip() for key in (*kinds, *optional)}
        files = []
        for kind in kinds:
            if not cells[kind]:
                raise InputError(f"{path}, line {line}: the {kind} is missing; add its path")
            files.append(path.parent / cells[kind])
            if not files[-1].exists():
                raise InputError(f"{path}, line {line}: {files[-1]} does not exist; correct it")
        pairs.append(FilePair(files[0], files[1], line, cells))
    if not pairs:
        raise InputError(f"{path} names no pairs; write one per line below the column names")
    return pairs


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns of a CSV file, and its rows with the lines on which they end."""
    try:
        with local_file(path, "a CSV file").open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist and cannot be read; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); write it in UTF-8") from error
