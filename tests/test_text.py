"""Text of unknown origin: what acts is escaped, what prints is left alone."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.text import aligned, drawable, one_line, printable, sentence, shortened

ACTING = [
    "\x00", "\x07", "\x08", "\r", "\x1b[2J", "\x7f", "\x9b31m", "\u061c", "\u200e", "\u202e",
    "\u2028", "\u2066", "\ufeff", "\U000e0041", "\udcff", "\ud800", "\uffff",
]  # fmt: skip


@pytest.mark.parametrize("text", ACTING)
def test_what_acts_on_a_terminal_is_escaped(text: str) -> None:
    for clean in (printable, one_line):
        shown = clean(f"a{text}b")
        assert shown.startswith("a\\")
        assert shown.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "Präparat 漢字 мозг",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "µm², –",
        "👩\u200d🔬",
    ],
)
def test_letters_of_every_script_stay_as_they_are(text: str) -> None:
    assert one_line(text) == text


def test_a_byte_of_a_name_that_is_no_text_is_shown_as_that_byte() -> None:
    assert one_line("pr\udce4parat") == r"pr\xe4parat"


def test_only_lines_of_our_own_are_ended() -> None:
    assert printable("a\nb\tc") == "a\nb\tc"
    assert one_line("a\nb\tc") == r"a\nb\tc"
    assert sentence("  a\n\tb") == "  a b"
    assert aligned([("kind", "two\nlines"), ("", "x")], 6) == "kind   two\\nlines\n       x"


def test_a_long_text_is_shown_by_its_ends() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("a" * 999 + "b", 10) == "aaaaa ... aaaab"
    assert len(aligned([("name", "n" * 10**6)])) < 1100


@given(st.text(st.characters(codec=None)))
def test_xml_can_hold_a_line(text: str) -> None:
    element = ElementTree.Element("name")
    element.text = one_line(text)
    read = ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8"))
    assert (read.text or "") == one_line(text)


def test_no_name_becomes_a_formula_in_a_figure() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0, 0, drawable("a$\\frac{$b\x1b"))
    figure.canvas.draw()
