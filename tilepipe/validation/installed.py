"""Checkers of other packages, which are used where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tilepipe.text import first_line


def installed(module: str) -> Any:
    """A module; None where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None


def named(package: str) -> str:
    """A package with its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def verdict(package: str, call: Callable[[], Any]) -> tuple[str, ...]:
    """The problem that a checker raises, if it does: whatever it raises is its verdict."""
    try:
        call()
    except Exception as error:
        return (f"{package}: {first_line(error)}",)
    return ()
