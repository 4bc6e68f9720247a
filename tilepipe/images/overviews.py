"""The small picture that stands for a slide in the folder beside it: refused.

It is worse than unreadable: it is a TIFF or a JPEG, and opens, but holds only an overview.
"""

from __future__ import annotations

from tilepipe.errors import InputError
from tilepipe.images.other_formats import CONVERT
from tilepipe.images.probe import JPEG_SIGNATURE, Probe
from tilepipe.images.source import Source
from tilepipe.storage import is_url


def recognises(probe: Probe) -> bool:
    """Tell whether a file is the overview of a slide."""
    return _slide(probe) is not None


def open_source(probe: Probe) -> Source:
    """Refuse it, naming the slide."""
    kind, folder = _slide(probe) or ("", "")
    raise InputError(
        f"{probe.path} is the overview of {kind} slide, whose pixels lie in the folder {folder!r} "
        f"beside it and which tilepipe does not read; {CONVERT}"
    )


def _slide(probe: Probe) -> tuple[str, str] | None:
    """Return the kind of slide that a TIFF or JPEG is the overview of, and its folder."""
    where = probe.place
    stem = where.name[: len(where.name) - len(where.suffix)]
    beside = not is_url(probe.path)  # on an object store, to look for a folder is a request
    if probe.head.startswith(JPEG_SIGNATURE):
        index = where.parent / stem / "Slidedat.ini"
        return (
            ("a MIRAX", stem) if probe.suffix == ".mrxs" or (beside and index.is_file()) else None
        )
    pixels = where.parent / f"_{stem}_"
    if probe.suffix == ".vsi" or (beside and (pixels / "stack1").is_dir()):
        return "an Olympus VSI", pixels.name
    return None
