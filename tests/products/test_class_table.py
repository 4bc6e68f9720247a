"""Tables of classes: every form says the same, and what is wrong is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilepipe.errors import InputError
from tilepipe.models.file import DEFAULT_MODEL, load_model
from tilepipe.products.base import MaskClass
from tilepipe.products.class_table import ClassTable, default_colour, read_class_table

TABLE = ClassTable((MaskClass("background", "#000000"), MaskClass("nucleus", "#00a0ff")), 0)
NUCLEUS = {"name": "nucleus", "colour": "#00a0ff"}


@pytest.mark.parametrize(
    "text",
    ["0=background,1=nucleus:#00a0ff", "background,nucleus=#00a0ff", "1 = nucleus, 0=background"],
)
def test_a_text_of_any_form_is_the_same_table(text: str) -> None:
    assert read_class_table(text) == TABLE


@pytest.mark.parametrize(
    "lines",
    [
        "value,name,colour\n0,background,\n1,nucleus,#00a0ff\n",
        "\ufeffLabel, Class, Color\n1,nucleus,#00a0ff\n0,background,#000000\n",
        "value,name\n0,background\n1,nucleus\n\n",
    ],
)
def test_a_csv_file_of_any_form_is_the_same_table(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(lines, encoding="utf-8")
    assert read_class_table(path) == read_class_table(str(path)) == TABLE


@pytest.mark.parametrize(
    "document",
    [
        {"0": "background", "1": NUCLEUS},
        ["background", NUCLEUS],
        [{"value": 1, **NUCLEUS}, {"value": 0, "name": "background"}],
        {"classes": ["background", NUCLEUS], "background": 0},
    ],
)
def test_a_json_file_of_any_form_is_the_same_table(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(document))
    assert read_class_table(path) == TABLE


def test_labels_that_are_left_out_are_called_by_their_number() -> None:
    table = read_class_table("0=glass,3=tumour")
    assert [c.name for c in table.classes] == ["glass", "1", "2", "tumour"]
    assert table.background is None
    assert [c.colour for c in table.classes] == [default_colour(n) for n in range(4)]


def test_the_classes_of_a_model_are_a_table() -> None:
    output = load_model(DEFAULT_MODEL).output
    table = ClassTable.of(output)
    assert [c.name for c in table.classes] == [c.name for c in output.classes]
    assert table.background == output.background


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not understood"),
        ("0=a,0=b", "label 0 is both 'a' and 'b'"),
        ("0=a,1=a", "two classes are called 'a'"),
        ("0=a,255=b", "255 stands for no answer"),
        ("0=a,-1=b", "has the label -1"),
        ("0=a,300=b", "has the label 300"),
        ("0=a:#12", "the colour of class 'a' is '#12'"),
        ("0=a=b", "is not understood"),
        ("0=,1=b", "is not understood"),
        (",".join(f"c{n}" for n in range(300)), "has the label 255"),
        ("nowhere.csv", "there is no such file"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_class_table(text)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "", "must name the columns"),
        ("a.csv", "colour,name\n#000000,a\n", "must name the columns"),
        ("a.csv", "value,name\n", "there are no classes"),
        ("a.csv", "value,name\nx,a\n", "must be a whole number"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", "3", "must be an object"),
        ("a.json", '{"0": 7}', "must be a text"),
        ("a.json", '{"classes": ["a"], "background": "a"}', "background must be a label"),
        ("a.json", '{"classes": ["a"], "background": 4}', "which is not in the table"),
        ("a.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says):
        read_class_table(tmp_path / name)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_class_table(tmp_path / "a.csv")
