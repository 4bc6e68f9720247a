"""What the tests of object stores share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilepipe.engine.state.folder import FOLDER
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


OUTPUTS = ("m.ome.zarr", "m.ome.tif", "m.tif", "m.png")


def answers(found: dict[str, bytes]) -> dict[str, bytes]:
    """The bytes of mask, pyramid and exports, without ledger and run record."""
    return {
        name: content
        for name, content in found.items()
        if f"/{FOLDER}/" not in name and not name.endswith(".run.json")
    }


def on_disk(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def named(folder: object, names: Sequence[str] = OUTPUTS) -> list[str]:
    return [f"{folder}/{name}" for name in names]
