"""The companion (``.companion.ome``) of an OME-TIFF set: XML that names the files with pixels."""

from __future__ import annotations

from tilepipe.images import tiff
from tilepipe.images.ome_sets import first_file
from tilepipe.images.probe import Probe
from tilepipe.images.source import Source


def recognises(probe: Probe) -> bool:
    """Tell whether a file is OME-XML."""
    return b"<OME" in probe.head


def open_source(probe: Probe) -> Source:
    """Open the set by the first of its files with pixels.

    Raises
    ------
    InputError
        The companion names none, or none is there, or that is not a TIFF that can be read.
    """
    with Probe(first_file(probe.path), probe.series) as first:
        return tiff.open_source(first)
