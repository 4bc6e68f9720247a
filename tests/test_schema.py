"""Documents that tilepipe wrote and somebody changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tilepipe.engine.events import BlockReport
from tilepipe.errors import InputError
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.schema import load_json
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
