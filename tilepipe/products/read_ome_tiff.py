"""Masks read from OME-TIFF, ours or others' of the same form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.images.probe import Probe
from tilepipe.images.tiff import BROKEN_STRUCTURE, TiffStructure, open_source
from tilepipe.products.base import ForViewersError, Kind
from tilepipe.products.mask_file import MaskFile
from tilepipe.products.ome_xml import read_spec
from tilepipe.text import first_line


def open_ome_tiff_mask(path: Path) -> MaskFile:
    """Open a mask in OME-TIFF: (Y, X) of uint8, or (C, Y, X) of uint8 or float32.

    Raises
    ------
    InputError
        When there is none at ``path``, or none that is understood.
    """
    with Probe(str(path), series=0, labels=True) as probe:
        source = open_source(probe)
        try:
            file = probe.once(TiffStructure).file
            kind = _kind(file.series[0])
            spec = read_spec(file.ome_metadata) if file.ome_metadata else None
            grid = source.description.grid
            if spec is not None:
                height, width = grid.shape
                grid = replace(spec.grid, height=height, width=width)
            return MaskFile(path, open_ome_tiff_mask, source, kind, spec, grid)
        except ForViewersError as error:
            source.close()
            raise ForViewersError(f"{path}: {error}") from error
        except BROKEN_STRUCTURE as error:
            source.close()
            raise InputError(
                f"{path} is not a mask that is understood ({first_line(error)});"
                " give one of labels, (Y, X) of uint8."
            ) from error


def _kind(series: Any) -> Kind:
    if series.axes == "YX" and series.dtype == np.uint8:
        return "labels"
    if series.axes in ("CYX", "IYX", "QYX") and series.dtype == np.uint8:
        return "planes"
    if series.axes in ("YX", "CYX", "IYX", "QYX") and series.dtype == np.float32:
        return "values"
    raise ValueError(f"its axes are {series.axes} and its pixels {series.dtype}")
