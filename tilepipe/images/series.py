"""The choice among the images in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tilepipe.errors import InputError
from tilepipe.images.base import Series, show_series

COMPANION = re.compile(
    r"\b(label|macro|thumbnail|overview|map|preview|probability)\b", re.IGNORECASE
)
"""In the names that scanners give to pictures of the whole glass and of its label."""

PEER_SHARE = 0.25
"""An image of this share of the pixels of another may as well be the one that is meant."""

MOST_NAMED = 20
"""Images that a message lists."""


def choose(path: str, listed: Sequence[Series], wanted: int | str | None) -> Series:
    """Choose the wanted image, or else the main one: the largest that is not a companion.

    Parameters
    ----------
    path
        Of the file, for messages.
    listed
        All images that it holds.
    wanted
        A number, or a name: in full, and if none is spelt so, whatever its case.

    Raises
    ------
    InputError
        There is no such image, or there are several of that name.
    """
    if wanted is None:
        return max(listed, key=lambda series: (not is_companion(series), series.pixels))
    if isinstance(wanted, int):
        found = [series for series in listed if series.number == wanted]
    else:
        found = [series for series in listed if series.name == wanted] or [
            series for series in listed if series.name.casefold() == wanted.casefold()
        ]
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} images named" if found else "no image"
    raise InputError(f"{path} has {many} {wanted!r}; choose by number: {show_choices(listed)}")


def is_companion(series: Series) -> bool:
    """Tell whether a name is that of a label, a macro or the like."""
    return COMPANION.search(series.name.replace("_", " ")) is not None


def passed_over(listed: Sequence[Series], number: int) -> str | None:
    """A note on images that may be the one that was meant, where nobody chose; or None."""
    taken = next(series for series in listed if series.number == number)
    others = [
        series
        for series in listed
        if series.number != number
        and (
            series.pixels > taken.pixels
            or (series.pixels >= PEER_SHARE * taken.pixels and not is_companion(series))
        )
    ]
    if not others:
        return None
    larger = any(series.pixels > taken.pixels for series in others)
    what = "a larger image than this one" if larger else "other images of about this size"
    return (
        f"the file holds {what}, and only {show_series(taken)} is read; "
        f"--series takes another: {show_choices(others)}"
    )


def show_choices(listed: Sequence[Series]) -> str:
    """Images for a message, by number."""
    shown = "; ".join(show_series(series) for series in listed[:MOST_NAMED])
    more = len(listed) - MOST_NAMED
    return f"{shown}; and {more} more" if more > 0 else shown
