"""The numbers of objects, pixel by pixel, as TIFF: OME-TIFF, and cloud-optimised GeoTIFF."""

from __future__ import annotations

from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.objects.table import ObjectTable
from tilepipe.products.instances import InstanceContent, InstanceLayer


def write_label_ome_tiff(table: ObjectTable, path: Path, labels: InstanceLayer | None) -> None:
    """Write the numbers with their pyramid as OME-TIFF (`tilepipe.products.ome_tiff`)."""
    from tilepipe.products.ome_tiff import write_ome_tiff

    write_ome_tiff(_content(table, path, labels), path)


def write_label_geotiff(table: ObjectTable, path: Path, labels: InstanceLayer | None) -> None:
    """Write the numbers as COG, whose nodata value is 0 (`tilepipe.products.geotiff`)."""
    from tilepipe.products.geotiff import write_cog

    write_cog(_content(table, path, labels), path)


def _content(table: ObjectTable, path: Path, labels: InstanceLayer | None) -> InstanceContent:
    if labels is None:
        raise InputError(
            f"{path}: holds the numbers of objects pixel by pixel, which are not beside "
            f"{table.path}; find the objects again, with this output"
        )
    return InstanceContent(labels)
