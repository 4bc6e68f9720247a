"""GeoTIFF held against what cloud-optimised GeoTIFF asks for, as rio-cogeo checks it."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from tilepipe.schema import load_json
from tilepipe.storage import StoragePath
from tilepipe.validation.installed import installed, named
from tilepipe.validation.result import Checked, Fact, content_of
from tilepipe.validation.tiff import LARGE, cut_off, open_tiff

SMALL = 512
"""A side in pixels up to which neither tiles nor overviews are asked for."""

HEADER = 300
"""Bytes within which the first directory must begin: GDAL's description of the layout is before."""

_SPEC_TAG = "TILEPIPE_MASK"
_GDAL_METADATA = 42112


def check(path: StoragePath) -> Checked:
    """Hold a file against the rules of cloud-optimised GeoTIFF (OGC 21-026).

    Tiles, internal overviews, directories before pixels, larger images first in the directories
    and last in the pixels.

    Raises
    ------
    InputError
        It is no TIFF.
    """
    by = ["tilepipe's own checks of tiles, overviews and their order"]
    with open_tiff(path) as file:
        problems = list(cut_off(file))
        whole = not problems
        problems += _layout(file)
        if path.with_name(path.name + ".ovr").exists():
            problems.append("its overviews lie in a file of their own, .ovr, not within it")
        facts = _facts(file, path) | {"whole": whole}
    cogeo = installed("rio_cogeo")
    if cogeo is not None:
        by.append(named("rio-cogeo"))
        _, errors, _ = cogeo.cog_validate(str(path), quiet=True)
        problems += [f"rio-cogeo: {text}" for text in errors]
    return Checked("GeoTIFF", tuple(problems), facts, tuple(by))


def _layout(file: tifffile.TiffFile) -> Iterator[str]:
    pages = [page for page in file.pages if not _is_mask(page)]
    main, overviews = pages[0], [page for page in pages[1:] if page.is_reduced]
    large = max(main.imagewidth, main.imagelength) > SMALL
    if large and not main.is_tiled:
        yield "it is larger than 512 pixels and not tiled"
    if large and not overviews:
        yield "it is larger than 512 pixels and has no overviews"
    if main.offset >= HEADER:
        yield f"its first directory begins at byte {main.offset}, not at the head of the file"
    for above, level in zip([main, *overviews], overviews, strict=False):
        if level.imagewidth > above.imagewidth or level.imagelength > above.imagelength:
            yield "its overviews are not in the order of their sizes, the largest first"
        if level.offset < above.offset:
            yield "the directory of an overview comes before that of a larger one"
        if _first_data(level) > _first_data(above) > 0:
            yield "the pixels of an overview come after those of a larger one"
        if max(level.imagewidth, level.imagelength) > SMALL and not level.is_tiled:
            yield f"the overview of {level.imagewidth} x {level.imagelength} pixels is not tiled"
    starts = [n for n in map(_first_data, [main, *overviews]) if n > 0]
    if starts and min(starts) < max(page.offset for page in pages):
        yield "pixels come before the last directory"


def _is_mask(page: Any) -> bool:
    return bool(page.subfiletype & 4)


def _first_data(page: Any) -> int:
    """Where the pixels of an image begin; 0 if no tile is stored."""
    return min((offset for offset in page.dataoffsets if offset), default=0)


def _facts(file: tifffile.TiffFile, path: StoragePath) -> dict[str, Fact]:
    page = file.pages.first
    tags = page.tags
    tiepoint = "ModelTiepointTag" in tags or "ModelTransformationTag" in tags
    facts: dict[str, Fact] = {
        "dtype": str(page.dtype),
        "bands": page.samplesperpixel,
        "tiled": bool(page.is_tiled),
        "palette": page.photometric == 3,
        "pyramid": "overviews" if any(p.is_reduced for p in file.pages[1:]) else "none",
        "large": max(page.imagewidth, page.imagelength) > LARGE,
        "placed": tiepoint and "GeoKeyDirectoryTag" in tags,
        "content": "image",
        "styled": isinstance(path, Path) and path.with_suffix(".qml").exists(),
        "legend": "none",
    }
    spec = _spec(page)
    if spec is not None:
        facts["content"] = content_of(spec)
        facts["top"] = max(1, len(spec.get("classes", ())) - 1)
    if facts["palette"]:
        facts["legend"] = "classes" if _has_colours(path) else "palette"
    return facts


def _spec(page: Any) -> dict[str, Any] | None:
    """The description that tilepipe wrote into the file, if it did."""
    tag = page.tags.get(_GDAL_METADATA)
    if tag is None:
        return None
    try:
        root = ElementTree.fromstring(tag.value)
        text = next(i.text for i in root.iter("Item") if i.get("name") == _SPEC_TAG)
        spec = load_json(unescape(text or ""))  # GDAL escapes it twice
    except (ElementTree.ParseError, StopIteration, ValueError):
        return None
    return spec if isinstance(spec, dict) else None


def _has_colours(path: StoragePath) -> bool:
    """Whether the side file lists the colours of the classes alone, for QGIS."""
    side = path.with_name(path.name + ".aux.xml")
    try:
        return ElementTree.fromstring(side.read_text()).find(".//ColorTable") is not None
    except (OSError, ElementTree.ParseError):
        return False
