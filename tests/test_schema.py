"""Documents that tilepipe wrote and somebody changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from tilepipe.engine.events import BlockReport
from tilepipe.errors import InputError
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.schema import decode, load_json
from tilepipe.text import LONGEST

SPEC = MaskSpec(10, 20, "labels", (MaskClass("a", "#000000"), MaskClass("b", "#ffffff")))


def test_what_was_written_is_read() -> None:
    assert MaskSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC
    receipt = BlockReport(1, (2, 3), 5, 0, 0.1, 0.2, 0.3, "worker", 100)
    assert BlockReport.from_record(json.loads(json.dumps(receipt.to_record()))) == receipt


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("height", "10"), ("height", 10.5), ("height", True), ("width", None), ("width", 0),
        ("kind", ["labels"]), ("classes", 3), ("classes", [["a", "#000000"]]), ("name", 5),
        ("classes", [{"name": 1, "colour": "#000000"}]), ("pixel_size", [1, 1]), ("crs", {}),
        ("pixel_size", {"y": "1", "x": 1, "unit": "micrometer"}), ("transform", [1, 2]),
        ("origin", [float("nan"), 0]), ("origin", {}), ("background", "a"), ("background", 2),
    ],
)  # fmt: skip
def test_a_mask_that_is_described_otherwise(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        MaskSpec.from_json({**SPEC.to_json(), key: value})


@pytest.mark.parametrize("record", [{"kind": "block"}, {"number": [1]}, {"counts": 3}])
def test_a_receipt_of_another_form(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        BlockReport.from_record(record)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", b"\xff", "9" * 5000])
def test_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_json(text)


def test_errors_are_a_line_of_plain_text() -> None:
    said = str(InputError("tensor \x1b[31mred\nand \ud800 more"))
    assert said.isprintable()
    assert said == r"tensor \x1b[31mred and \ud800 more"
    assert len(str(InputError("x" * 10**6))) < LONGEST + 10


@dataclass(frozen=True)
class Part:
    """A part of a document."""

    size: Annotated[float, Meta(gt=0)]
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Whole:
    """A document."""

    parts: tuple[Part, ...]
    count: int | None = None
    names: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "parts is missing"),
        ([], "the document must be an object, not []"),
        ({"parts": 3}, "parts must be a list, not 3"),
        ({"parts": [{"size": 0}]}, "parts[0].size must be above 0, not 0"),
        ({"parts": [{"size": 1}, {}]}, "parts[1].size is missing"),
        ({"parts": [{"size": float("inf")}]}, "parts[0].size must be a finite number, not inf"),
        ({"parts": [{"size": float("nan")}]}, "parts[0].size must be above 0, not nan"),
        ({"parts": [{"size": 10**400}]}, "parts[0].size must be a finite number, not 1000"),
        ({"parts": [{"size": 1, "kind": "c"}]}, "parts[0].kind must be one of a, b, not 'c'"),
        ({"parts": [{"size": 1, "knid": "a"}]}, "parts[0].knid is not a known key; did you mean"),
        ({"parts": [], "count": True}, "count must be a whole number, not True"),
        ({"parts": [], "count": 1.0}, "count must be a whole number, not 1.0"),
        ({"parts": [], "\ud800": 1}, r"\ud800 is not a known key; there are parts, count, names"),
        ({"parts": [], 3: 1}, "3 is not a known key"),
        ({"parts": [{"size": 1, "\ud800": 1}]}, "the document cannot be read"),
    ],
)
def test_what_is_wrong_with_a_document_is_one_sentence(document: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        decode(Whole, document)
    assert str(caught.value).startswith(said)


def test_a_number_keeps_the_form_in_which_it_was_written() -> None:
    whole = decode(Whole, {"parts": [{"size": 1}, {"size": 1.0}]})
    assert json.dumps(asdict(whole)["parts"]) == (
        '[{"size": 1, "kind": "a"}, {"size": 1.0, "kind": "a"}]'
    )


@pytest.mark.parametrize(
    "control", [3, [1], {"points": [3]}, {"points": [{"row": 1}]}, {"rpcs": {"LINE_OFF": 1}}]
)
def test_ground_control_of_another_form(control: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        MaskSpec.from_json({**SPEC.to_json(), "control": control})
