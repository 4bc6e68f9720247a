"""What the bands of a TIFF file are called."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from tilepipe.images.bands import RGB

COLOURS = frozenset({2, 6})
"""Values of PhotometricInterpretation: RGB, and YCbCr, which is decoded to RGB."""


def band_names(file: Any, series: Any, count: int) -> tuple[str, ...]:
    """Names of the ``count`` bands of a `tifffile` series, empty where unknown.

    Colours are red, green and blue; channels are called what OME-XML calls them.
    """
    keyframe = series.keyframe
    if int(keyframe.photometric) in COLOURS and keyframe.samplesperpixel >= 3:
        return (*RGB, *[""] * (count - 3))
    if not file.is_ome:
        return ()
    number = next(i for i, other in enumerate(file.series) if other is series)
    channels = _ome_channels(file.ome_metadata, number)
    return channels if len(channels) == count else ()


def _ome_channels(xml: str, number: int) -> tuple[str, ...]:
    """Names of the channels of an image, one for each sample of them."""
    try:
        images = ElementTree.fromstring(xml).findall("{*}Image")
        channels = images[number].findall("{*}Pixels/{*}Channel")
        return tuple(
            name
            for channel in channels
            for name in [channel.get("Name", "")] * int(channel.get("SamplesPerPixel", 1))
        )
    except (ElementTree.ParseError, IndexError, ValueError):
        return ()
