"""A mask as pyramidal OME-TIFF, for QuPath, OMERO and Bio-Formats."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import tifffile

from tilepipe.grid import CHUNK
from tilepipe.products.base import MaskSpec
from tilepipe.products.content import Content, content_of
from tilepipe.products.files import deflated_tiles, needs_bigtiff
from tilepipe.products.ome_xml import ome_xml, pixel_size_um
from tilepipe.products.store import ZarrMask
from tilepipe.storage import complete_or_absent


def write_ome_tiff(mask: ZarrMask | Content, path: Path) -> None:
    """Write a mask, or other content of one, with its pyramid as OME-TIFF.

    It follows the OME model 2016-06, with levels as SubIFDs, and has deflated tiles of 512 pixels
    and axes (Y, X) for labels, otherwise (C, Y, X). It is streamed tile by tile, so memory does not
    depend on the mask's size. Equal masks give equal bytes: neither dates nor random identifiers
    are written. An existing file is replaced once the new one is complete. Raises OSError if it
    cannot be written, because the disk is full for example.
    """
    content = mask if isinstance(mask, Content) else content_of(mask)
    form, levels = content.form, content.levels
    with (
        complete_or_absent(path) as part,
        tifffile.TiffWriter(part, bigtiff=needs_bigtiff(form), ome=False) as writer,
    ):
        for level, size in enumerate(levels):
            first = level == 0
            planes = range(len(form.planes))
            writer.write(
                chain.from_iterable(deflated_tiles(content, level, [n]) for n in planes),
                shape=form.shape(size),
                dtype=form.dtype,
                tile=(CHUNK, CHUNK),
                compression="zlib",
                photometric="minisblack",
                planarconfig=None,
                subifds=len(levels) - 1 if first else None,
                subfiletype=0 if first else 1,
                description=ome_xml(form).encode() if first else None,
                software="tilepipe",
                metadata=None,
                **_resolution(form.spec, level),
            )


def _resolution(spec: MaskSpec, level: int) -> dict[str, object]:
    size = pixel_size_um(spec)
    if size is None:
        return {}
    um_per_cm, factor = 1e4, 2**level
    return {
        "resolution": (um_per_cm / (size[1] * factor), um_per_cm / (size[0] * factor)),
        "resolutionunit": "CENTIMETER",
    }
