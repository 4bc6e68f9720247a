"""The kinds of networks that models may hold, found by name or by the suffix of their files.

`tilepipe.models.predictors.base` has the idea. A kind from outside tilepipe is a subclass of
`Predictor` that its package lists in the entry point group ``tilepipe.predictors``, under the name
that model files give as ``network.name``::

    [project.entry-points."tilepipe.predictors"]
    mynet = "mypackage.mynet:MyNetPredictor"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilepipe.models.predictors.base import Arguments, Predictor

GROUP = "tilepipe.predictors"
SAFETENSORS = ".safetensors"

BUILT_IN = {
    name: EntryPoint(name, f"tilepipe.models.predictors.{value}", GROUP)
    for name, value in {"unet": "unet:UNetPredictor", "onnx": "onnx:OnnxPredictor"}.items()
}


def kind_names() -> tuple[str, ...]:
    """Names of all kinds, those of tilepipe first."""
    return tuple(dict.fromkeys((*BUILT_IN, *entry_points(group=GROUP).names)))


def kind_named(name: str) -> type[Predictor] | None:
    """The kind of a name; None for an unknown one."""
    # Listing what others have installed takes a while, so tilepipe's own kinds come first.
    entry = BUILT_IN.get(name) or next(iter(entry_points(group=GROUP, name=name)), None)
    return None if entry is None else entry.load()


def kind_of(arguments: Arguments) -> type[Predictor]:
    """The kind that arguments are for.

    Raises
    ------
    LookupError
        Where no kind of that name is installed.
    """
    kind = kind_named(arguments.kind)
    if kind is None:
        raise LookupError(f"no predictor is registered as {arguments.kind!r} in {GROUP}")
    return kind


def kind_of_files(suffix: str) -> type[Predictor] | None:
    """The kind that reads files of a suffix by itself; None: they hold weights as safetensors."""
    if suffix == SAFETENSORS:
        return None
    kinds = (kind_named(name) for name in kind_names())
    return next((kind for kind in kinds if kind and kind.own_suffix == suffix), None)
