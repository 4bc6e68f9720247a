"""Lines for a person: broken at words where they go to a terminal, whole where they do not."""

from __future__ import annotations

import shutil
import sys
from textwrap import wrap

import click

WIDEST = 80
"""Columns of a line, where the terminal has more."""


def say(text: str, *, err: bool = False, indent: int = 10) -> None:
    """Print text; on a terminal, lines break at words.

    Parameters
    ----------
    text
        Lines.
    err
        Whether they go to standard error.
    indent
        Columns by which the rest of a line that is broken is indented: the width of its label.
    """
    if (sys.stderr if err else sys.stdout).isatty():
        text = broken(text, indent)
    click.echo(text, err=err)


def broken(text: str, indent: int = 10) -> str:
    """Text whose lines fit the terminal, broken at words; a path stays whole."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    return "\n".join(_broken(line, indent, width) for line in text.split("\n"))


def _broken(line: str, indent: int, width: int) -> str:
    if len(line) <= width:
        return line
    # The label and the spaces after it stay as they are.
    label, rest = line[:indent], line[indent:]
    pieces = wrap(
        rest, max(20, width - indent), break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return label + f"\n{' ' * indent}".join(pieces)
