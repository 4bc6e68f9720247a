"""What holds for the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_test_imports_from_another() -> None:
    """What several tests need lies in a `making.py` or `conftest.py`."""
    # In the text, not the syntax tree: scripts that tests start are strings.
    borrowing = re.compile(r"^\s*(?:from|import) tests(?:\.\w+)*\.test_\w+", re.MULTILINE)
    found = {
        str(path.relative_to(TESTS)): borrowing.findall(path.read_text())
        for path in TESTS.rglob("*.py")
    }
    assert {name: lines for name, lines in found.items() if lines} == {}
