"""The images in a TIFF file, and what its maker says of each: name, kind and pixel size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tifffile

from tilepipe.errors import InputError
from tilepipe.images import pixel_sizes
from tilepipe.images.base import PixelSize, Series
from tilepipe.images.tiff_colours import has_alpha, palette_of
from tilepipe.images.tiff_vendors import is_trestle, ventana_description

VENDORS = {
    "bif": "Ventana BIF",
    "ndpi": "NDPI",
    "philips": "Philips TIFF",
    "qpi": "QPTIFF",
    "scn": "Leica SCN",
    "svs": "SVS",
}
"""Kinds of series as tifffile calls them, and as others do."""

PLAIN = frozenset({"generic", "uniform", "shaped"})
"""Kinds of series that no maker defined."""

PIXEL_SIZE_OF_ALL = frozenset({"ndpi", "ome", "scn", *PLAIN})
"""Kinds that say the pixel size of each series; others say that of the scan alone."""


BANDS = "CS"
"""Axes of channels and of samples, as tifffile calls them."""

LABEL_BANDS = f"{BANDS}IQ"
"""The same of labels, whose planes are written along unnamed axes as well."""


def series_of(file: tifffile.TiffFile) -> list[Series]:
    """All images in a file, largest resolution of each, without masks; by tifffile's numbers."""
    found = []
    for number, series in enumerate(file.series):
        keyframe = series.keyframe
        if keyframe.is_mask or not {"Y", "X"} <= set(series.axes):
            continue
        dtype = None if series.dtype is None else np.dtype(series.dtype)
        found.append(
            Series(
                number=number,
                name=" ".join(series.name.split()),
                height=keyframe.imagelength,
                width=keyframe.imagewidth,
                bands=bands_of(series),
                dtype="uint8" if dtype == np.bool_ else str(dtype or "unknown"),
                pixel_size=pixel_size_of(file, number)[0],
            )
        )
    return found


def bands_of(series: tifffile.TiffPageSeries, *, labels: bool = False) -> int:
    """Bands of pixel data: channels and colours, without alpha; see `Probe.labels`."""
    keyframe = series.keyframe
    if not labels and palette_of(keyframe) is not None:
        return 3
    axes = LABEL_BANDS if labels else BANDS
    sizes = zip(series.axes, series.shape, strict=True)
    samples = math.prod(int(size) for axis, size in sizes if axis in axes)
    return samples - (samples > 1 and has_alpha(keyframe))


def kind_of(file: tifffile.TiffFile) -> str:
    """What a file is: ``SVS``, ``OME-TIFF``, ``TIFF`` ..."""
    kind = file.series[0].kind
    if kind in VENDORS:
        return VENDORS[kind]
    if is_trestle(file):
        return "Trestle TIFF"
    for flag, name in (("is_ome", "OME-TIFF"), ("is_svs", "SVS"), ("is_imagej", "ImageJ TIFF")):
        if getattr(file, flag):
            return name
    return "TIFF" if kind in PLAIN else f"TIFF ({kind})"


def check_axes(path: str, series: tifffile.TiffPageSeries, *, labels: bool = False) -> None:
    """Refuse what is not one plane of rows and columns, or no numbers.

    Raises
    ------
    InputError
        Naming the axis or the type that cannot be read.
    """
    keyframe = series.keyframe
    sizes = {axis: size for axis, size in zip(series.axes, series.shape, strict=True) if size > 1}
    for axis, size in sizes.items():
        if axis not in "YX" + (LABEL_BANDS if labels else BANDS):
            raise InputError(
                f"{path} has {size} planes along axis {axis}, and tilepipe reads one: save the "
                "plane you want as a file of its own, or name the axis C if these are channels"
            )
    if "C" in sizes and "S" in sizes:
        raise InputError(
            f"{path} has {sizes['C']} channels of {sizes['S']} colours each: save the channel you "
            "want as a file of its own"
        )
    if keyframe.imagedepth > 1 or "YX" not in series.axes:
        raise InputError(f"{path} is not a plane of rows and columns (axes {series.axes})")
    if keyframe.dtype is None or keyframe.dtype.kind not in "buif":
        raise InputError(
            f"{path} holds samples that tilepipe does not read ({keyframe.dtype or 'unknown'}): "
            "save it with integer or floating-point ones"
        )


def pixel_size_of(file: tifffile.TiffFile, number: int) -> tuple[PixelSize | None, str | None]:
    """The pixel size of a series, and why it is in doubt where the file contradicts itself."""
    series = file.series[number]
    keyframe, kind = series.keyframe, series.kind
    if number and kind not in PIXEL_SIZE_OF_ALL:
        return None, None
    resolution = _resolution(keyframe, "YResolution"), _resolution(keyframe, "XResolution")
    unit = keyframe.tags.get("ResolutionUnit")
    largest = math.inf if file.is_ndpi else pixel_sizes.LARGEST_PLAIN_UM
    tags = pixel_sizes.from_resolution(resolution, int(unit.value) if unit else 2, largest)
    stated = [("its resolution tag", tags)]
    if kind == "svs":
        stated.insert(0, ("its MPP", pixel_sizes.from_svs(keyframe.description)))
    elif kind == "scn":
        scn = pixel_sizes.from_scn(file.scn_metadata or "", number)
        # Leica rounds its resolution tag to whole pixels per centimetre.
        stated = [("its SCN metadata", scn)] if scn else stated
    elif kind == "philips":
        stated = [("its Philips metadata", pixel_sizes.from_philips(file.philips_metadata or ""))]
    elif is_trestle(file):
        # Micrometres per pixel, where TIFF has pixels per unit.
        stated = [("its resolution tag", resolution if math.isfinite(sum(resolution)) else None)]
    elif kind == "bif":
        stated.insert(0, ("its ScanRes", pixel_sizes.from_ventana(ventana_description(file))))
    elif file.is_ome:
        # tifffile leaves out images without pixels, so they are found again by what they are.
        xml = pixel_sizes.ome_images(file.ome_metadata or "")
        place = _ome_place(xml, file, number)
        stated.insert(0, ("its OME-XML", None if place is None else xml[place].pixel_size()))
    elif file.is_imagej:
        stated.insert(
            0, ("its ImageJ metadata", pixel_sizes.from_imagej(file.imagej_metadata, resolution))
        )
    return pixel_sizes.reconcile(stated)


def _ome_place(
    images: list[pixel_sizes.OmeImage], file: tifffile.TiffFile, number: int
) -> int | None:
    """Which image of the OME-XML a series is."""
    if len(images) == len(file.series):
        return number
    place = -1
    for series in file.series[: number + 1]:
        size = series.keyframe.imagelength, series.keyframe.imagewidth
        later = range(place + 1, len(images))
        found = next((i for i in later if images[i].size == size), None)
        if found is None:
            return None
        place = found
    return place


def _resolution(keyframe: Any, name: str) -> float:
    """Pixels per unit, or NaN."""
    tag = keyframe.tags.get(name)
    if tag is None:
        return math.nan
    numerator, denominator = tag.value
    return numerator / denominator if denominator else math.nan
