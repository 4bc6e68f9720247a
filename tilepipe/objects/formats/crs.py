"""A CRS in the form that a format of objects has it in."""

from __future__ import annotations

from typing import Any

from tilepipe.errors import InputError
from tilepipe.text import first_line


def projjson(wkt: str) -> dict[str, Any]:
    """A CRS as PROJJSON; InputError where PROJ does not understand it."""
    from pyproj import CRS
    from pyproj.exceptions import ProjError

    try:
        document: dict[str, Any] = CRS.from_wkt(wkt).to_json_dict()
    except ProjError as error:
        raise InputError(
            f"the CRS of the mask cannot be written as PROJJSON ({first_line(error)}); set another "
            "with gdal_edit, or write .gpkg"
        ) from error
    return document
