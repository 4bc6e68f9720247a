r"""Text of unknown origin as a person may see it: names of files and classes, metadata, errors.

Such text can hold characters that do not print but act: escapes that drive a terminal, overrides
that show a name backwards, bytes of a file name that are no text. They are shown as Python's
escapes (``\x1b``, ``\u202e``); letters of every script stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
