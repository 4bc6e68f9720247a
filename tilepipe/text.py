r"""Text of unknown origin as a person may see it: names of files and classes, metadata, errors.

Such text can hold characters that do not print but act: escapes that drive a terminal, overrides
that show a name backwards, bytes of a file name that are no text. They are shown as Python's
escapes (``\x1b``, ``\u202e``); letters of every script stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 1000
"""Characters of one name, fact or error; of a longer one, beginning and end are shown."""

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
    """The text with its control characters escaped; tabs and ends of lines stay."""
    return _UNPRINTABLE.sub(_escaped, text)


def one_line(text: str) -> str:
    """The text with all its control characters escaped, ends of lines among them."""
    return _UNPRINTABLE_IN_A_LINE.sub(_escaped, text)


def sentence(text: str) -> str:
    """The text in one line, with a space where there was an end of a line, or a tab."""
    return one_line(re.sub(r"[\t\n\r]+", " ", text))


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are: ``a, b, c and 4 more``."""
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def count(number: int, noun: str) -> str:
    """A number of things: ``1 block``, ``2 blocks``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """A time for a person: ``0.4 s``, ``42 s``, ``7 min``, ``3 h 20 min``."""
    if seconds < 99:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 99:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def gigabytes(number: float) -> str:
    """An amount of memory for a person: ``1.86 GB``."""
    return f"{number / 1e9:.2f} GB" if number < 1e10 else f"{number / 1e9:.1f} GB"


def first_line(error: BaseException) -> str:
    """The first line of an error, without a full stop, for use within a sentence; else its name."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, or the beginning and the end of a long one."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} ... {text[-longest // 2 :]}"


def aligned(rows: list[tuple[str, str]], width: int = 9) -> str:
    """Labels and what they label, a line for each."""
    return "\n".join(f"{label:<{width}} {shortened(one_line(text))}" for label, text in rows)


def drawable(text: str) -> str:
    """The text for a matplotlib figure: one line, and no dollar begins a formula."""
    text = one_line(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # such labels are left out of legends


def table_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table that a person opens (CSV), its texts in one line each."""
    return {name: one_line(v) if isinstance(v, str) else v for name, v in values.items()}


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # how Python carries a byte that is no text
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
