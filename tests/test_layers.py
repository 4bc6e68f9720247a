"""Imports point downwards only: those in functions and those for types included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilepipe

PACKAGE = Path(tilepipe.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("__init__",),
    ("api",),
    ("testing", "diagnosis"),
    ("training",),
    ("evaluation", "validation"),
    ("pairs",),
    ("engine",),
    ("objects",),
    ("regions",),
    ("products",),
    ("models",),
    ("images",),
    ("options", "notebook"),
    ("schema", "drawing"),
    ("storage",),
    ("grid", "_torch", "_openvino", "quantities", "plugins"),
    ("errors",),
    ("text",),
)
"""From the roof down. What stands beside each other does not import each other."""

ENGINE_LAYERS: tuple[tuple[str, ...], ...] = (
    ("run",),
    ("report",),
    ("planning",),
    ("cluster", "work"),
    ("state",),
    ("events",),
    ("inputs",),
    ("plan",),
    ("resources", "hardware"),
    ("options",),
)
"""The same, of the rooms inside `engine/`."""

FLOOR = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def _module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {_module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> Iterator[str]:
    """The modules of tilepipe that a module imports, wherever in its text it does so."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "tilepipe")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tilepipe":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else str(node.module)


def room(module: str) -> str:
    """The folder or file of the package in which a module lies."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


ENGINE_FLOOR = {name: number for number, layer in enumerate(ENGINE_LAYERS) for name in layer}


def engine_room(module: str) -> str | None:
    """The folder or file of the engine in which a module lies; None outside it."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["tilepipe", "engine"] and len(parts) > 2 else None


ENGINE = [module for module in MODULES if engine_room(module)]


def test_every_folder_has_its_floor() -> None:
    assert {room(module) for module in MODULES} == set(FLOOR)
    assert {engine_room(module) for module in ENGINE} == set(ENGINE_FLOOR)


@pytest.mark.parametrize("module", ENGINE)
def test_no_import_inside_the_engine_points_upwards(module: str) -> None:
    here = str(engine_room(module))
    others = [(other, engine_room(other)) for other in imports_of(module)]
    assert not [
        other
        for other, there in others
        if there not in (None, here) and ENGINE_FLOOR[str(there)] <= ENGINE_FLOOR[here]
    ]


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_upwards(module: str) -> None:
    here = room(module)
    wrong = [
        other
        for other in imports_of(module)
        if room(other) != here and FLOOR[room(other)] <= FLOOR[here]
    ]
    assert not wrong


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions and for types count too: what they hide is a circle all the same."""
    open_, done = set[str](), set[str]()

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in done:
            return
        assert module not in open_, " -> ".join((*way, module))
        open_.add(module)
        for other in imports_of(module):
            if other in MODULES and other != module:
                visit(other, (*way, module))
        open_.remove(module)
        done.add(module)

    for module in MODULES:
        visit(module, ())
