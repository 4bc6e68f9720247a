"""Addresses on object stores as GDAL has them (``/vsis3/BUCKET/KEY``), and what it must be told.

GDAL takes credentials from the same variables of the environment as obstore does. What it calls
otherwise (the endpoint), or does not do by itself (trying again), is set here for the process.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from rasterio.env import set_gdal_config

from tilepipe.storage import ObjectPath, StoragePath, as_path, is_url, utf8_path
from tilepipe.storage.objects import endpoint, patience

_ROOTS = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_FIRST_DELAY = 0.5
"""Seconds before a request is tried again; GDAL doubles it each time."""


def gdal_path(path: str) -> str:
    """What GDAL opens a path or address by.

    Raises
    ------
    InputError
        For a name that is not in UTF-8: GDAL takes no other.
    """
    if not is_url(path):
        return str(utf8_path(Path(path)))
    where = as_path(path)
    assert isinstance(where, ObjectPath), "an address is of an object"
    _tell_gdal()
    return f"{_ROOTS[where.scheme]}{where.bucket}/{where.key}"


def place_of(name: str) -> StoragePath:
    """The place of a file that GDAL names."""
    for scheme, root in _ROOTS.items():
        if name.startswith(root):
            return as_path(f"{scheme}://{name.removeprefix(root)}")
    return Path(name)


def require_reachable(path: str) -> None:
    """Raise what obstore has to say where an address cannot be read: GDAL does not tell why.

    Raises
    ------
    StoreError
        The object store is not there, or refuses.
    """
    if is_url(path):
        where = as_path(path)
        assert isinstance(where, ObjectPath), "an address is of an object"
        where.size()


def _tell_gdal() -> None:
    address = endpoint()
    if address:
        scheme, _, host = address.partition("://")
        set_gdal_config("AWS_S3_ENDPOINT", host.rstrip("/"))
        set_gdal_config("AWS_HTTPS", "NO" if scheme == "http" else "YES")
        set_gdal_config("AWS_VIRTUAL_HOSTING", "FALSE")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        set_gdal_config("AWS_REGION", region)
    seconds = patience()
    set_gdal_config("GDAL_HTTP_CONNECTTIMEOUT", str(math.ceil(min(10.0, seconds))))
    set_gdal_config("GDAL_HTTP_RETRY_DELAY", str(_FIRST_DELAY))
    set_gdal_config("GDAL_HTTP_MAX_RETRY", str(int(math.log2(seconds / _FIRST_DELAY + 1))))
