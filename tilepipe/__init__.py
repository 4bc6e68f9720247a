"""tilepipe: exact, resumable U-Net inference over images too large for memory.

Whatever the command line does, one function here does::

    import tilepipe

    summary = tilepipe.run("slide.svs", model="nuclei-he", outputs=["nuclei.ome.zarr"])
    tilepipe.verify("nuclei.ome.zarr")
    mask = tilepipe.open_mask("nuclei.ome.zarr").as_dask()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilepipe.api import (
        convert,
        evaluate,
        find_objects,
        plan,
        quantise,
        run,
        run_batch,
        train,
        validate,
    )
    from tilepipe.diagnosis import doctor
    from tilepipe.engine.run.verify import verify
    from tilepipe.images import open_image
    from tilepipe.models.file import load_model, save_model
    from tilepipe.objects.formats.opened import open_objects
    from tilepipe.products.formats import open_mask

_HOME = {
    "run": "tilepipe.api",
    "run_batch": "tilepipe.api",
    "plan": "tilepipe.api",
    "train": "tilepipe.api",
    "quantise": "tilepipe.api",
    "validate": "tilepipe.api",
    "verify": "tilepipe.engine.run.verify",
    "evaluate": "tilepipe.api",
    "find_objects": "tilepipe.api",
    "open_image": "tilepipe.images",
    "convert": "tilepipe.api",
    "doctor": "tilepipe.diagnosis",
    "open_mask": "tilepipe.products.formats",
    "open_objects": "tilepipe.objects.formats.opened",
    "load_model": "tilepipe.models.file",
    "save_model": "tilepipe.models.file",
}
"""Where each function lives; imported at first use, as `tilepipe --help` needs none of them."""

__all__ = [
    "convert",
    "doctor",
    "evaluate",
    "find_objects",
    "load_model",
    "open_image",
    "open_mask",
    "open_objects",
    "plan",
    "quantise",
    "run",
    "run_batch",
    "save_model",
    "train",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
