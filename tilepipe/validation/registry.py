"""The checkers of formats by the suffixes of paths; the modules are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from tilepipe.errors import InputError
from tilepipe.storage import readable
from tilepipe.text import some
from tilepipe.validation.readers import openings
from tilepipe.validation.result import Checked, Validation

Checker = Callable[..., Checked]
"""Takes the path of a file or folder that exists; raises InputError if it is not of its format."""

CHECKERS: dict[str, str] = {
    ".zarr": "tilepipe.validation.ome_zarr:check",
    ".ome.tif": "tilepipe.validation.ome_tiff:check",
    ".ome.tiff": "tilepipe.validation.ome_tiff:check",
    ".tif": "tilepipe.validation.cog:check",
    ".tiff": "tilepipe.validation.cog:check",
    ".geojson": "tilepipe.validation.objects:check",
    ".geojson.gz": "tilepipe.validation.objects:check",
    ".gpkg": "tilepipe.validation.objects:check",
    ".fgb": "tilepipe.validation.objects:check",
    ".parquet": "tilepipe.validation.objects:check",
}
"""The checker of each suffix, ``MODULE:FUNCTION``. Of those that fit, the longest counts."""


def register_checker(suffix: str, checker: str) -> None:
    """Add the checker of a suffix, ``MODULE:FUNCTION``; its readers are rows of the table."""
    CHECKERS[suffix.lower()] = checker


def validate(path: str) -> Validation:
    """Hold a result against its specification; see `tilepipe.validate`."""
    where = readable(path)
    if not where.exists():
        raise InputError(f"{path} does not exist; check the path")
    # A product beside a mask, or labels in an image's OME-Zarr, are folders of any name.
    unnamed = where.is_dir() and not suffixes_of(where.name)
    checker = checker_of(f"{where.name}.zarr" if unnamed else where.name)
    checked = checker(where)
    return Validation(
        str(path), checked.format, checked.problems, openings(checked, where.name), checked.facts,
        checked.checked_by,
    )  # fmt: skip


def suffixes_of(name: str) -> list[str]:
    """The known suffixes of a name."""
    return [s for s in CHECKERS if name.lower().endswith(s) and name.lower() != s]


def checker_of(name: str) -> Checker:
    """The checker of a file by its name; InputError if there is none for its suffix."""
    fitting = suffixes_of(name)
    if not fitting:
        raise InputError(
            f"{name} has a suffix of which no specification is known; there are: "
            f"{some(sorted(CHECKERS), len(CHECKERS))}"
        )
    module, _, function = CHECKERS[max(fitting, key=len)].partition(":")
    return cast("Checker", getattr(import_module(module), function))
