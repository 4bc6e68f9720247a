"""Which bands of a file are read, in which order: by number, by name, or as a model names its own.

Bands are numbered from 1 as the file has them, an alpha band among them. An alpha band that is
named becomes data, and no longer says where data is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tilepipe.errors import InputError
from tilepipe.images.reading import Reading
from tilepipe.images.source import Description, Source

RGB = ("red", "green", "blue")

OF_EACH_BAND: dict[str, Any] = {"nodata": None, "scaling": (1.0, 0.0)}
"""Fields of a `Description` that have an entry for each band, or are empty; and the entry that says
nothing, as of an alpha band."""

MOST_SHOWN = 12
"""Most bands that are listed."""

LONGEST_NAME = 40

_SHORT = {"r": "red", "g": "green", "b": "blue"}


def select_bands(source: Source, reading: Reading) -> tuple[Source, Reading]:
    """Select the bands that a reading names, by number or name.

    Returns
    -------
    source : Source
        Of these bands; ``source`` itself where they are all that it has.
    reading : Reading
        With its bands as numbers; None where they are all.

    Raises
    ------
    InputError
        For a number or a name that it does not have.
    """
    if reading.bands is None:
        return source, reading
    described = source.description
    names = file_bands(described)
    numbers = tuple(_number(band, names, described.path) for band in reading.bands)
    places = [number - 1 for number in numbers]
    if places == data_bands(described):
        return source, replace(reading, bands=None)
    return source.select(places), replace(reading, bands=numbers)


def file_bands(described: Description) -> tuple[str, ...]:
    """Return the names of all bands of a file, alpha among them; empty where unknown."""
    names = list(named(described.band_names, described.bands))
    if described.alpha is not None:
        names.insert(described.alpha, _plain(described.alpha_name))
    return tuple(names)


def data_bands(described: Description) -> list[int]:
    """Return the indices (from 0) of the bands that are data: all but alpha."""
    count = described.bands + (described.alpha is not None)
    return [place for place in range(count) if place != described.alpha]


def narrowed(described: Description, places: Sequence[int], *, apart: bool = False) -> Description:
    """Describe a source that reads only some of its bands.

    Parameters
    ----------
    places
        Of the bands in the file, from 0, in the order in which they are read.
    apart
        Whether each band is decoded by itself; otherwise all are, and those not read are dropped.
    """
    names, data = file_bands(described), data_bands(described)
    of_bands: dict[str, Any] = {}
    for name, of_alpha in OF_EACH_BAND.items():
        values = dict(zip(data, getattr(described, name), strict=False))  # or none at all
        found = tuple(values.get(place, of_alpha) for place in places)
        of_bands[name] = () if all(value == of_alpha for value in found) else found
    return replace(
        described,
        **of_bands,
        bands=len(places),
        band_names=tuple(names[place] for place in places),
        # What it says of the file is of no use any more.
        alpha=None,
        decoded_bands=len(set(places)) if apart else described.decoded_bands or len(names),
        masked=described.masked and described.alpha not in places,
    )


def named(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return printable names of ``count`` bands; all empty where the file names another number."""
    if len(names) != count:
        return ("",) * count
    return tuple(_plain(name) for name in names)


def places_by_name(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Find the ``wanted`` bands by name (indices from 0); None unless each name occurs once."""
    have, want = [_key(name) for name in names], [_key(name) for name in wanted]
    if not want or not all(have) or not all(want) or any(have.count(key) != 1 for key in want):
        return None
    return tuple(have.index(key) for key in want)


def misplaced(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether a band has a name that is wanted in another place."""
    want = [_key(name) for name in wanted]
    return any(
        name and _key(name) in want and want.index(_key(name)) != place
        for place, name in enumerate(names)
    )


def show_bands(names: Sequence[str], numbers: Sequence[int] | None = None) -> str:
    """Show bands: ``1 red, 2 green, 3 blue, 4``."""
    numbers = numbers or range(1, len(names) + 1)
    shown = [f"{number} {name}".strip() for number, name in zip(numbers, names, strict=True)]
    more = len(shown) - MOST_SHOWN
    return ", ".join(shown[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _number(band: int | str, names: Sequence[str], path: str) -> int:
    if isinstance(band, int) and 1 <= band <= len(names):
        return band
    # Channels are also called 405 or 647.
    found = [n for n, name in enumerate(names, 1) if _key(name) == _key(str(band))]
    if len(found) == 1:
        return found[0]
    there = f"its bands are {show_bands(names)}"
    if found:
        raise InputError(
            f"{path}: has {len(found)} bands named {band}; choose one by number ({there})"
        )
    raise InputError(f"{path}: has no band {band}; {there}")


def _key(name: str) -> str:
    key = name.strip().casefold()
    return _SHORT.get(key, key)


def _plain(name: str) -> str:
    # A file's text must not reach the terminal as control characters.
    text = "".join(c if c.isprintable() else " " for c in name).strip()
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 3] + "..."
