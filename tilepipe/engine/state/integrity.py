"""Checking a mask's metadata and its set of chunks against the plan, and repairing them.

The hash of the plan is kept in a separate file (`RunState.seals`), so the plan can be trusted. The
contents of chunks are checked against the ledger (`tilepipe.engine.state.progress`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.outputs import Outputs
from tilepipe.engine.state.progress import Progress
from tilepipe.grid import CHUNK
from tilepipe.products.base import MaskSpec
from tilepipe.products.product import product_named
from tilepipe.products.ranges import without_ranges
from tilepipe.products.sealed import chunks_there
from tilepipe.products.store import metadata_documents
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath, write_whole
from tilepipe.storage.hashing import hash_bytes
from tilepipe.text import some

OURS = ("ome", "tilepipe")
"""The attributes of a group that tilepipe writes; all others belong to the user."""

OURS_IN_04 = ("multiscales", "omero", "image-label")
"""Those besides in OME-Zarr 0.4, which has no ``ome``."""

DOCUMENTS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""The names of zarr's documents; other files of a mask's metadata hold coordinates."""


def drop_altered_exports(progress: Progress, outputs: Outputs) -> None:
    """Read every export, and mark those that are not as they were written as not made."""
    if (target := outputs.on_image_grid) is not None:
        progress.drop_altered(outputs.name_of(target), target)
        if progress.damage:  # other exports may have been made from it
            progress.outdate_exports()
    for name in progress.exports:
        progress.drop_altered(name, outputs.path_of(name))


def mend(state: RunState, plan: Plan) -> list[str]:
    """Repair metadata and remove stray chunks; returns a sentence for each kind of repair.

    The caller must hold the output's lock, and must not have read anything from the mask.
    """
    wrong = damaged_documents(state.store, plan.mask, plan.extras, state.seals().documents)
    strays = list(stray_chunks(state.store, plan))
    if wrong or strays:
        # Pyramid and exports may have been made from them.
        with Ledger(state.ledger_file) as ledger:
            ledger.append({"kind": "changed", "level": 1})
    for name, right in wrong.items():
        _write(state.store, name, right)
    for key in strays:
        (state.store / key).unlink(missing_ok=True)
    repairs = []
    if wrong:
        repairs.append(f"metadata that did not match the plan: {some(wrong)}; written again")
    if strays:
        repairs.append(f"chunks that no block of the run wrote: {some(strays)}; removed")
    return repairs


def is_in_order(state: RunState, plan: Plan) -> bool:
    """Whether there is nothing to `mend`."""
    documents = state.seals().documents
    if damaged_documents(state.store, plan.mask, plan.extras, documents):
        return False
    # Without a region every chunk belongs to a block, and is checked against the ledger.
    return plan.region is None or next(stray_chunks(state.store, plan), None) is None


def damaged_documents(
    store: StoragePath, spec: MaskSpec, extras: Sequence[str], sealed: dict[str, str]
) -> dict[str, bytes]:
    """Each file of a mask's metadata that is not as it was written, with its right content.

    ``spec`` and ``extras`` come from the plan. ``sealed`` has the hashes of the files as they were
    written, perhaps by another version of zarr; it may be empty.
    """
    damaged = {}
    for name, right in metadata_documents(spec, extras).items():
        content = _read(store / name)
        if content == right or sealed.get(name) == hash_bytes(content):
            continue
        # Viewers' ranges are added when the values are known.
        there, wanted = (without_ranges(_ours(name, each)) for each in (content, right))
        if _base(name) not in DOCUMENTS or there != wanted:
            damaged[name] = right
    return damaged


def stray_chunks(store: StoragePath, plan: Plan) -> Iterator[str]:
    """The chunks of level 0 outside the blocks that the run computes."""
    tiling, coverage = plan.tiling, plan.coverage
    inside_array = "" if plan.mask.zarr_format == 2 else "/c"
    for array in ("0", *(f"{product_named(key).name}/0" for key in plan.extras)):
        for key, row, column in chunks_there(store, f"{array}{inside_array}"):
            y, x = row * CHUNK, column * CHUNK
            inside = y < tiling.height and x < tiling.width
            number = y // tiling.block[0] * tiling.shape[1] + x // tiling.block[1]
            if not inside or number not in coverage:
                yield key


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = load_json(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _ours(name: str, content: bytes) -> dict[str, Any]:
    """A document without the attributes that the user added to a group."""
    document = _document(content)
    added = _added(name, document)
    if _base(name) == ".zattrs":
        return {key: value for key, value in document.items() if key not in added}
    if not added:
        return document
    kept = {k: v for k, v in document["attributes"].items() if k not in added}
    return {**document, "attributes": kept}


def _added(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a group that are not `OURS`."""
    attributes: Any = document.get("attributes")
    ours: tuple[str, ...] = OURS
    if _base(name) == ".zattrs":
        attributes, ours = document, (*OURS_IN_04, *OURS)
        if "_ARRAY_DIMENSIONS" in document:
            return {}  # of an array
    elif document.get("node_type") != "group":
        return {}
    if not isinstance(attributes, dict):
        return {}
    return {key: value for key, value in attributes.items() if key not in ours}


def _write(store: StoragePath, name: str, right: bytes) -> None:
    """Write the right content of a file, and keep the attributes that the user added."""
    content = right
    if added := _added(name, _document(_read(store / name))):
        document = _document(right)
        if _base(name) == ".zattrs":
            document = {**added, **document}
        else:
            document["attributes"] = {**added, **document["attributes"]}
        content = json.dumps(document, indent=2).encode()
    (store / name).parent.mkdir(parents=True, exist_ok=True)
    write_whole(store / name, content)


def _read(path: StoragePath) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
