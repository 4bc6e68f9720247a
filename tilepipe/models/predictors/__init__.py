"""The kinds of networks that models may hold, found by name.

`tilepipe.models.predictors.base` has the idea. Another package adds a kind as an entry point, under
the name that model files give as ``network.name``::

    [project.entry-points."tilepipe.predictors"]
    mynet = "mypackage.mynet:MyNetPredictor"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from tilepipe.errors import InputError
from tilepipe.plugins import loaded

if TYPE_CHECKING:
    from tilepipe.models.predictors.base import Arguments, Predictor

ENTRY_POINTS = "tilepipe.predictors"

_BUILT_IN = {
    name: EntryPoint(name, f"tilepipe.models.predictors.{value}", ENTRY_POINTS)
    for name, value in {"unet": "unet:UNetPredictor", "onnx": "onnx:OnnxPredictor"}.items()
}


_registered: dict[str, type[Predictor]] = {}


def register_predictor(kind: type[Predictor]) -> None:
    """Make a kind of network known in this process.

    Worker processes know it only where its package declares an entry point in the group
    ``tilepipe.predictors``.
    """
    _registered[kind.arguments_type.kind] = kind


def kind_names() -> tuple[str, ...]:
    """Names of all kinds: built in, registered, and those of other packages."""
    others = entry_points(group=ENTRY_POINTS).names
    return tuple(dict.fromkeys((*_BUILT_IN, *_registered, *sorted(others))))


def kind_named(name: str) -> type[Predictor] | None:
    """The kind of a name; None for an unknown one.

    Raises
    ------
    InputError
        Where the package that declares it cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    # Listing what other packages declare takes a while, so tilepipe's own kinds come first.
    others = () if name in _BUILT_IN else entry_points(group=ENTRY_POINTS, name=name)
    entry = _BUILT_IN.get(name) or next(iter(others), None)
    if entry is None:
        return None
    kind: type[Predictor] = loaded(entry)
    return kind


def kind_of(arguments: Arguments) -> type[Predictor]:
    """The kind that arguments are for.

    Raises
    ------
    InputError
        Where no kind of that name is known.
    """
    kind = kind_named(arguments.kind)
    if kind is None:
        raise InputError(f"network {arguments.kind}: is not registered (register_predictor)")
    return kind
