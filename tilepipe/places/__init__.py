"""Where files lie: on a disk, or on an object store (``s3://BUCKET/KEY``).

A `Place` is a `pathlib.Path`, or an `ObjectPath`, which answers to the same verbs. What the two do
each in their own way (writing whole, removing, locking, temporary copies) has a function here, so
that nobody above asks which of them a place is.
"""

from tilepipe.places.address import is_url, place, redacted, without_secrets
from tilepipe.places.errors import InputRefused, StoreError, StoreRefusedError
from tilepipe.places.inputs import (
    local,
    local_file,
    readable,
    require_ordinary,
    utf8_path,
    written_here,
)
from tilepipe.places.objects import ObjectPath, Place
from tilepipe.places.verbs import (
    made_here,
    make_folder,
    name_from,
    refuse_links,
    remove,
    remove_partials,
    require_room_for_name,
    require_writable,
    size_of,
    within,
    write_whole,
)

__all__ = [
    "InputRefused",
    "ObjectPath",
    "Place",
    "StoreError",
    "StoreRefusedError",
    "is_url",
    "local",
    "local_file",
    "made_here",
    "make_folder",
    "name_from",
    "place",
    "readable",
    "redacted",
    "refuse_links",
    "remove",
    "remove_partials",
    "require_ordinary",
    "require_room_for_name",
    "require_writable",
    "size_of",
    "utf8_path",
    "within",
    "without_secrets",
    "write_whole",
    "written_here",
]
