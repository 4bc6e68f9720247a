"""What other packages add to tilepipe, by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tilepipe.errors import InputError
from tilepipe.text import first_line


def plugin_names(group: str) -> list[str]:
    """The names that installed packages declare in a group of entry points."""
    return sorted(entry_points(group=group).names)


def plugin(group: str, name: str) -> Any | None:
    """What a package declares under a name, imported; None if no package declares it.

    Raises
    ------
    InputError
        If the package cannot be imported.
    """
    for point in entry_points(group=group, name=name):
        return loaded(point)
    return None


def loaded(point: EntryPoint) -> Any:
    """What an entry point stands for; InputError if it cannot be imported."""
    try:
        return point.load()
    except Exception as error:  # whatever the module of another package raises
        package = point.dist.name if point.dist else point.value
        raise InputError(
            f"plug-in {point.name} ({point.group}): cannot import {point.value} "
            f"({first_line(error)}); upgrade or uninstall {package}"
        ) from error


def made(group: str, name: str, kind: Any, *arguments: str) -> Any:
    """An object of a class that a package declares; InputError if it cannot be made."""
    try:
        return kind(*arguments)
    except Exception as error:  # whatever the class of another package raises
        raise InputError(
            f"plug-in {name} ({group}): {type(error).__name__}: {first_line(error)}"
        ) from error
