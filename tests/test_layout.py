"""What holds for the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

import tilepipe

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


def test_folders_of_tests_are_those_of_the_package() -> None:
    """`tests/images/` tests `tilepipe/images/`; a few folders are about the whole."""
    whole = {"cluster", "faults", "faults/site", "fuzz", "readers", "readers/scripts", "workflows"}
    folders = {str(path.parent.relative_to(TESTS)) for path in TESTS.rglob("*/*.py")}
    package = Path(tilepipe.__file__).parent
    assert [name for name in folders - whole if not (package / name).is_dir()] == []
