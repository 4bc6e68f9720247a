"""Files that belong together: images and masks, or masks and truths. Folders or CSV name them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tilepipe.engine.options import image_stem
from tilepipe.errors import InputError
from tilepipe.storage import local_file
from tilepipe.text import some

MASK_ENDING = "_mask"
"""What `tilepipe run` adds to the name of an image."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class FilePair:
    """Two files that belong together."""

    first: Path
    second: Path
    line: int = 0
    """The line of the table that names them; 0 for files of folders."""
    others: Mapping[str, str] = field(default_factory=dict)
    """The optional columns of that line."""


def stem(path: Path) -> str:
    """A file's name without its suffix, however long that is (``.ome.tif``)."""
    found = image_stem(path.name)
    return found if found != path.name else path.stem


def pair_folders(
    first: Path, second: Path, kinds: tuple[str, str], suffixes: Sequence[str] = ()
) -> list[FilePair]:
    """The files of two folders, paired by their names without suffix and ``_mask``.

    Parameters
    ----------
    kinds : tuple of str
        What the files of each folder are, for messages.
    suffixes : sequence of str
        Suffixes of the files that count; of files with one name, that with the first suffix counts
        [all files count, and no two may have one name].

    Raises
    ------
    InputError
        A file has no partner, or two files have the same one.
    """
    table = f"a CSV file with the columns {kinds[0]} and {kinds[1]}"
    named, others = _by_stem(first, suffixes), _by_stem(second, suffixes)
    pairs: dict[Path, Path] = {}
    for name, path in sorted(named.items()):
        bare = name.removesuffix(MASK_ENDING)
        known = [others[key] for key in (name, bare, bare + MASK_ENDING) if key in others]
        other = pairs.setdefault(known[0], path) if known else path
        if other != path:
            raise InputError(
                f"{other.name} and {path.name} both pair with {known[0]}; keep one of them, or use "
                f"{table}"
            )
    alone = [path.name for path in named.values() if path not in pairs.values()]
    others_alone = [path.name for path in others.values() if path not in pairs]
    lacking = [
        f"no {kind} in {folder} for {some(sorted(names), _MOST_NAMED)}"
        for kind, folder, names in ((kinds[1], second, alone), (kinds[0], first, others_alone))
        if names
    ]
    if lacking:
        raise InputError(
            f"there is {' and '.join(lacking)}; files pair by their names without suffix, or use "
            f"{table}"
        )
    return [FilePair(path, other) for other, path in pairs.items()]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for suffix in suffixes or ("",):
        for path in (path for path in files if path.name.lower().endswith(suffix)):
            other = found.setdefault(stem(path), path)
            if other != path and not suffixes:
                raise InputError(
                    f"{folder}: {other.name} and {path.name} have the same name without suffix; "
                    "keep one of them"
                )
    return found


def pair_table(path: Path, kinds: tuple[str, str], optional: Sequence[str] = ()) -> list[FilePair]:
    """The pairs of a CSV file, whose columns are ``kinds``; paths in it are relative to it.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column or a path, or names a file that does not exist.
    """
    try:
        with local_file(path, "a CSV file").open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or ()), [(reader.line_num, r) for r in reader]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist and cannot be read; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); write it in UTF-8") from error
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
        for kind in kinds:
            if not cells[kind]:
                raise InputError(f"{path}, line {line}: the {kind} is missing; add its path")
        files = [path.parent / cells[kind] for kind in kinds]
        for missing in (one for one in files if not one.exists()):
            raise InputError(f"{path}, line {line}: {missing} does not exist; correct it")
        pairs.append(FilePair(files[0], files[1], line, cells))
    if not pairs:
        raise InputError(f"{path} names no pairs; write one per line below the column names")
    return pairs
