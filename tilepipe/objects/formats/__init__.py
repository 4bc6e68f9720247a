"""Objects in the formats of other programs: a file for each format, found by its suffix."""

from tilepipe.objects.formats.checking import check_objects_file
from tilepipe.objects.formats.registry import (
    FORMATS,
    ObjectFormat,
    objects_format,
    require_writable_format,
    write_objects,
)

__all__ = [
    "FORMATS",
    "ObjectFormat",
    "check_objects_file",
    "objects_format",
    "require_writable_format",
    "write_objects",
]
