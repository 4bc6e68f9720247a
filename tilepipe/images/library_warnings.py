"""Messages that libraries log about a file while it is opened: collected here, and shown as notes.

Remarks become notes of the image, which `tilepipe info` prints and the plan of a run warns of.
Those that are listed below say nothing that could make a mask wrong.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LOGGERS = ("tifffile", "rasterio._env", "rasterio._err")
"""Loggers of tifffile and, by way of rasterio, of GDAL."""

HARMLESS: tuple[tuple[str, str], ...] = (
    (
        r"BIF series tiles are not stitched",
        "files whose tiles overlap are refused (tiff_vendors.py); where none do, nothing is to be "
        "stitched",
    ),
    (
        r"OME series failed to read",
        "a missing file of a set is an error of ours, which names it (ome_sets.py)",
    ),
    (
        r"OME series is missing \d+ frames",
        "a plane that is missing is an error of ours (tiff.py)",
    ),
)
"""Messages (regular expressions) that are not shown, and why."""

MOST = 5
"""Most remarks on one file that are shown."""

LONGEST = 300
"""Characters of a remark that are shown."""

_ORIGIN = re.compile(r"^(<[^<>]*>\s*)+|^CPLE_\w+( in |:)")
"""Before a message: the object that complains (``<TiffPage 0 @8>``), or GDAL's kind of error."""

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


class _Ear(logging.Filter):
    """Keeps log messages while a `listening` is active; lets all others pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        heard = _heard.get()
        if heard is None:
            return True
        if record.levelno >= logging.WARNING:
            heard.append(_text(record.getMessage()))
        return False


def _text(message: str) -> str:
    """A message as one short line; it may hold whatever the file does."""
    line = " ".join(_ORIGIN.sub("", message).split())
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ..."


_ear = _Ear()
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_ear)


@contextmanager
def listening(heard: list[str] | None = None) -> Iterator[list[str]]:
    """Collect what libraries log in this thread while inside, a text each; it is not printed.

    It is added to ``heard``, or to a new list.
    """
    heard = [] if heard is None else heard
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


@contextmanager
def ignoring_harmless() -> Iterator[None]:
    """Without Python warnings that say nothing of use; of one thread at a time."""
    from rasterio.errors import NotGeoreferencedWarning  # slow to load: few images need it

    with warnings.catch_warnings():
        # An image without a place on Earth is as good as any: that it has none, `info` shows.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def remarks(library: str, heard: Iterable[str]) -> tuple[str, ...]:
    """Make notes of a library's messages, without harmless and repeated ones."""
    texts = list(dict.fromkeys(text for text in heard if not _harmless(text)))
    notes = tuple(f"{library} remarks: {text}" for text in texts[:MOST])
    more = len(texts) - MOST
    return (*notes, f"{library} remarks on {more} more things") if more > 0 else notes


def _harmless(text: str) -> bool:
    return any(re.search(pattern, text) for pattern, _ in HARMLESS)
