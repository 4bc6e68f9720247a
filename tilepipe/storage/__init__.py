"""Where files lie: on a disk, or on an object store (``s3://BUCKET/KEY``).

A `StoragePath` is a `pathlib.Path`, or an `ObjectPath`, which answers to the same verbs. What each
does in its own way (writing whole, removing, locking, temporary copies) has a function here, so
that nobody above asks which of them a place is.
"""

from tilepipe.storage.address import as_path, is_url, redacted, without_secrets
from tilepipe.storage.errors import InputRefused, StoreError, StoreRefusedError
from tilepipe.storage.inputs import (
    local,
    local_file,
    readable,
    require_ordinary,
    utf8_path,
    written_here,
)
from tilepipe.storage.objects import ObjectPath, StoragePath
from tilepipe.storage.ops import (
    make_folder,
    name_from,
    path_from,
    refuse_links,
    remove,
    remove_partials,
    require_room_for_name,
    require_writable,
    size_of,
    staged_locally,
    within,
    zarr_around,
)
from tilepipe.storage.whole import complete_or_absent, write_whole

__all__ = [
    "InputRefused",
    "ObjectPath",
    "StoragePath",
    "StoreError",
    "StoreRefusedError",
    "as_path",
    "complete_or_absent",
    "is_url",
    "local",
    "local_file",
    "make_folder",
    "name_from",
    "path_from",
    "readable",
    "redacted",
    "refuse_links",
    "remove",
    "remove_partials",
    "require_ordinary",
    "require_room_for_name",
    "require_writable",
    "size_of",
    "staged_locally",
    "utf8_path",
    "within",
    "without_secrets",
    "write_whole",
    "written_here",
    "zarr_around",
]
