"""Checking, without the network, that a finished mask is still what the run wrote.

`verify` does this first: the windows that it computes again prove their own pixels, and this proves
that all others are still as they were computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.damage import Damage
from tilepipe.engine.state.folder import RunState, read_document
from tilepipe.engine.state.integrity import damaged_documents, stray_chunks
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.state.run_record import record_path, recorded_names
from tilepipe.errors import InputError
from tilepipe.products.store import open_zarr_mask
from tilepipe.storage import ObjectPath, StoragePath, path_from, size_of, write_whole
from tilepipe.storage.hashing import hash_of
from tilepipe.text import some

SCRUB = "--scrub reads them"


@dataclass(slots=True)
class Examination:
    """What was checked, and what is wrong: a sentence for each."""

    covered: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def examine(mask: StoragePath, plan: Plan, *, scrub: bool) -> Examination:
    """Compare a finished mask, in any format, with its plan and its ledger or run record.

    With ``scrub``, everything is read, hashes are compared, and damage is recorded for a run to
    repair. Otherwise only metadata is read, and sizes are compared.
    """
    found = Examination()
    if mask.is_dir() and RunState(mask).plan_file.exists():
        _examine_store(found, RunState(mask), plan, scrub=scrub)
        return found
    if mask.is_dir():
        spec = plan.like_image or plan.mask
        _add_documents(found, damaged_documents(mask, spec, plan.extras, {}))
    _examine_export(found, mask, scrub=scrub)
    return found


def _examine_store(found: Examination, state: RunState, plan: Plan, *, scrub: bool) -> None:
    seals, store = state.seals(), state.store
    if not seals.plans:
        found.covered.append("plan: written by an older tilepipe, without a hash")
    _add_documents(found, damaged_documents(store, plan.mask, plan.extras, seals.documents))
    strays = list(stray_chunks(store, plan))
    if strays:
        found.damage.append(f"chunks that no block of the run wrote: {some(strays)}")
    try:
        mask = open_zarr_mask(store)
    except InputError as error:
        found.damage.append(str(error))
        return
    progress = Progress.as_found(state.ledger_file, mask, plan.tiling, read=scrub)
    _add_chunks(found, progress, plan, scrub=scrub, remote=isinstance(store, ObjectPath))
    _add_exports(found, progress, store, scrub=scrub)
    found.damage += [f"not as it was written: {damage}" for damage in progress.damage]
    if scrub and progress.damage:
        _record(found, state, progress.damage)


def _add_documents(found: Examination, wrong: dict[str, bytes]) -> None:
    if wrong:
        found.damage.append(f"metadata that does not match the plan: {some(wrong)}")
    else:
        found.covered.append("metadata: all of it matches the plan")


def _add_chunks(
    found: Examination, progress: Progress, plan: Plan, *, scrub: bool, remote: bool
) -> None:
    what = f"chunks (blocks: {plan.blocks}; pyramid levels: {len(progress.levels)})"
    if progress.unsealed:
        compared = "sizes and built-in checksums were" if scrub else "the sizes were"
        found.covered.append(
            f"{what}: an older tilepipe kept no hashes for {progress.unsealed} of the blocks; only "
            f"{compared} compared for their chunks"
        )
    elif scrub and not progress.damage:
        found.covered.append(f"{what}: all read, and each is what was written")
    elif not scrub:
        checked = "not checked one by one" if remote else "each has the size it was written with"
        found.covered.append(f"{what}: {checked}; their bytes were not read ({SCRUB})")


def _add_exports(
    found: Examination, progress: Progress, store: StoragePath, *, scrub: bool
) -> None:
    sound, gone = [], []
    for name in sorted(progress.exports):
        path = path_from(name, store.parent)
        if not path.exists():
            gone.append(name)
            continue
        if not progress.is_made(name, path):
            progress.damage.append(Damage("name", name))
        elif scrub:
            progress.drop_altered(name, path)
        if name in progress.exports and Damage("name", name) not in progress.damage:
            sound.append(name)
    if sound:
        checked = "read, as written" if scrub else f"of the size as written; not read ({SCRUB})"
        found.covered.append(f"exports: {some(sound)} {checked}")
    if gone:
        found.covered.append(f"exports: {some(gone)} missing; a run writes them again")


def _examine_export(found: Examination, mask: StoragePath, *, scrub: bool) -> None:
    """Compare an output that has no ledger with the run record beside it."""
    path = record_path(mask)
    record = read_document(path)
    names = recorded_names(record)
    try:
        number = names.index(mask.name)
        size = record["sizes"][number]
        sealed = record["hashes"][number] if "hashes" in record else None
    except (ValueError, KeyError, TypeError, IndexError):
        size = sealed = None
    if size not in (None, size_of(mask)):
        found.damage.append(f"{mask.name} has {size_of(mask)} bytes, and was written with {size}")
    elif sealed is None:
        found.covered.append(f"{mask.name}: its run record has no hash of it")
    elif not scrub:
        found.covered.append(f"{mask.name}: of the size as written; not read ({SCRUB})")
    elif hash_of(mask) == sealed:
        found.covered.append(f"{mask.name}: read whole, as written")
    else:
        found.damage.append(f"{mask.name} is not as it was written")
        _record_export(found, mask, path, record, names)


def _record_export(
    found: Examination,
    mask: StoragePath,
    path: StoragePath,
    record: dict[str, Any],
    names: list[str],
) -> None:
    """Record a damaged output where a run looks: in the ledger of its mask, or in its record."""
    for store in (mask.with_name(name) for name in names if name.endswith(".zarr")):
        if RunState(store).plan_file.exists():
            _record(found, RunState(store), [Damage("name", mask.name)])
            return
    known = record.get("damaged", [])
    others = [name for name in known if name != mask.name] if isinstance(known, list) else []
    record["damaged"] = [*others, mask.name]
    with _unwritable_reported(found):
        write_whole(path, json.dumps(record, indent=1) + "\n")


def _record(found: Examination, state: RunState, damage: Sequence[Damage]) -> None:
    """Record damage in the ledger, so that a run repairs it."""
    with _unwritable_reported(found), state.locked(), Ledger(state.ledger_file) as ledger:
        for one in damage:
            ledger.append(one.to_record())


@contextmanager
def _unwritable_reported(found: Examination) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found.damage.append(f"the damage cannot be recorded for repair ({error.strerror})")
