r"""Text for people: numbers and lists in words, and text of unknown origin made safe to show.

File names, metadata and errors can contain characters that act instead of printing: escapes that
drive a terminal, overrides that reverse a name, bytes that are not text. They are shown as Python's
escapes (``\x1b``, ``\u202e``). Letters of every script stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 1000
"""Characters of a name, fact or error; the middle of a longer one is left out."""

_HIDDEN = (
    "\x7f-\x9f"  # DEL, and the C1 controls
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidi, invisible
    "\ufffe\uffff"  # not characters; XML cannot hold them, nor most of the others
    "\U000e0000-\U000e007f"  # tags: a whole invisible alphabet
    "\ud800-\udfff"  # bytes of a path that are no UTF-8, as Python holds them
)
_UNPRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f{_HIDDEN}]")
_UNPRINTABLE_IN_A_LINE = re.compile(f"[\x00-\x1f{_HIDDEN}]")


def printable(text: str) -> str:
    """The text with control characters escaped, except tabs and line ends."""
    return _UNPRINTABLE.sub(_escaped, text)


def one_line(text: str) -> str:
    """The text with all control characters escaped, including line ends."""
    return _UNPRINTABLE_IN_A_LINE.sub(_escaped, text)


def sentence(text: str) -> str:
    """The text in one line, with spaces in place of line ends and tabs."""
    return one_line(re.sub(r"[\t\n\r]+", " ", text))


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names, and the number of others: ``a, b, c and 4 more``."""
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def count(number: int, noun: str) -> str:
    """A number and a noun: ``1 block``, ``2 blocks``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """A duration in words: ``0.4 s``, ``42 s``, ``7 min``, ``3 h 20 min``."""
    if seconds < 99:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 99:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def gigabytes(number: float) -> str:
    """An amount of memory in words: ``1.86 GB``."""
    return f"{number / 1e9:.2f} GB" if number < 1e10 else f"{number / 1e9:.1f} GB"


def first_line(error: BaseException) -> str:
    """The first line of an error without its full stop, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, or the beginning and the end of a long one."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} ... {text[-longest // 2 :]}"


def aligned(rows: list[tuple[str, str]], width: int = 9) -> str:
    """Labelled texts in aligned columns, one line each."""
    return "\n".join(f"{label:<{width}} {shortened(one_line(text))}" for label, text in rows)


def drawable(text: str) -> str:
    """The text for a matplotlib figure: in one line, without dollars that begin a formula."""
    text = one_line(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # legends leave out labels with a "_"


def table_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a CSV table, with each text in one line."""
    return {name: one_line(v) if isinstance(v, str) else v for name, v in values.items()}


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # Python's form of a byte that is not text
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
