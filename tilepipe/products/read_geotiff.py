"""Masks read from GeoTIFF, cloud-optimised or not, ours or others' of the same form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.images.probe import TIFF_SIGNATURES, Probe
from tilepipe.images.raster import GdalFile, open_source
from tilepipe.images.source import Description, Source
from tilepipe.products.base import ForViewersError, Kind, MaskSpec
from tilepipe.products.mask_file import MaskFile
from tilepipe.products.vrt import SPEC_TAG
from tilepipe.schema import load_json
from tilepipe.text import first_line


def open_geotiff_mask(path: Path) -> MaskFile:
    """Open a mask in GeoTIFF: one band of uint8 labels, or bands of uint8 or float32.

    Raises
    ------
    InputError
        When there is none at ``path``, or none that is understood.
    """
    with Probe(str(path), series=0, labels=True) as probe:
        if not probe.head.startswith(TIFF_SIGNATURES):
            raise InputError(f"{path} is not a TIFF; give a mask.")
        source = open_source(probe)
        try:
            tag = probe.once(GdalFile).tags.get(SPEC_TAG)
            spec = None if tag is None else MaskSpec.from_json(load_json(tag))
            return _mask(path, _with_all_bands(source), spec)
        except ForViewersError as error:
            source.close()
            raise ForViewersError(f"{path}: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            source.close()
            raise InputError(
                f"{path} is not a mask that is understood ({first_line(error)});"
                " give one of labels, one band of uint8."
            ) from error


def _mask(path: Path, source: Source, spec: MaskSpec | None) -> MaskFile:
    described = source.description
    if spec is not None and (spec.planes, spec.dtype) != (described.bands, described.dtype):
        # GDAL's tools copy the description along with whatever they made of the pixels.
        spec = None
    grid = described.grid
    if spec is not None and (spec.height, spec.width) == grid.shape:
        grid = replace(grid, pixel_size=spec.pixel_size, origin=spec.origin)
    return MaskFile(path, open_geotiff_mask, source, _kind(described), spec, grid)


def _with_all_bands(source: Source) -> Source:
    """The bands of a source, and what GDAL takes for alpha: it may be the last of four planes."""
    described = source.description
    if described.alpha is None:
        return source
    return source.select(range(described.bands + 1))


def _kind(described: Description) -> Kind:
    if described.dtype == "float32":
        return "values"
    if described.dtype == "uint8":
        return "labels" if described.bands == 1 else "planes"
    raise ValueError(f"its pixels are {described.dtype}")
