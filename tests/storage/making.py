"""What the tests of object stores share."""

from __future__ import annotations

from tilepipe.storage import ObjectPath, as_path


def objects(address: str) -> dict[str, bytes]:
    """All objects below an address, by what follows it."""
    folder = as_path(address)
    assert isinstance(folder, ObjectPath)
    return {str(o).removeprefix(address + "/"): o.read_bytes() for o in folder.objects()}


def at(address: str) -> ObjectPath:
    found = as_path(address)
    assert isinstance(found, ObjectPath)
    return found
