"""Looking at a finished mask without the network: whether it is still what the run wrote.

`verify` does this first. Windows computed anew then prove the pixels that they hold; this proves
that all others are still what was computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.damage import Damage
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.state.integrity import damaged_documents, stray_chunks
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.outputs import record_path
from tilepipe.engine.state.progress import Progress
from tilepipe.errors import InputError
from tilepipe.products.store import open_zarr_mask
from tilepipe.schema import load_json
from tilepipe.storage import ObjectPath, StoragePath, as_path, is_url, size_of, write_whole
from tilepipe.storage.hashing import hash_of
from tilepipe.text import some

SCRUB = "--scrub reads them"


@dataclass(slots=True)
class Examination:
    """What was looked at, and what is wrong with it; sentences for a person."""

    covered: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def examine(mask: StoragePath, plan: Plan, *, scrub: bool) -> Examination:
    """Hold a finished mask against its plan and its ledger (or its run record).

    Parameters
    ----------
    mask
        An output of a run, in any format.
    plan
        That of the run.
    scrub
        Read everything, and compare hashes; damage is recorded, so that a run mends it. Otherwise
        metadata is read, and of all else the sizes are compared.
    """
    if mask.is_dir() and RunState(mask).plan_file.exists():
        return _of_store(RunState(mask), plan, scrub=scrub)
    found = Examination()
    if mask.is_dir():
        spec = plan.like_image or plan.mask
        _documents(found, damaged_documents(mask, spec, plan.extras, {}))
    _of_record(found, mask, scrub=scrub)
    return found


def _of_store(state: RunState, plan: Plan, *, scrub: bool) -> Examination:
    found, seals, store = Examination(), state.seals(), state.store
    if not seals.plans:
        found.covered.append("plan: an older tilepipe wrote it, and kept no hash of it")
    wrong = damaged_documents(store, plan.mask, plan.extras, seals.documents)
    _documents(found, wrong)
    strays = list(stray_chunks(store, plan))
    if strays:
        found.damage.append(f"chunks that no block of the run has written: {some(strays)}")
    try:
        mask = open_zarr_mask(store)
    except InputError as error:
        found.damage.append(str(error))
        return found
    progress = Progress.as_found(state.ledger_file, mask, plan.tiling, read=scrub)
    _chunks(found, progress, plan, scrub=scrub, remote=isinstance(store, ObjectPath))
    _exports(found, progress, store, scrub=scrub)
    found.damage += [f"not as it was written: {damage}" for damage in progress.damage]
    if scrub and progress.damage:
        _record(found, state, progress.damage)
    return found


def _documents(found: Examination, wrong: dict[str, bytes]) -> None:
    if wrong:
        found.damage.append(f"metadata that is not what the plan says: {some(list(wrong))}")
    else:
        found.covered.append("metadata: all of it is what the plan says")


def _chunks(
    found: Examination, progress: Progress, plan: Plan, *, scrub: bool, remote: bool
) -> None:
    what = f"chunks (blocks: {plan.blocks}; pyramid levels: {len(progress.levels)})"
    if progress.unsealed:
        found.covered.append(
            f"{what}: an older tilepipe kept no hashes for {progress.unsealed} of the blocks; of "
            "their chunks only "
            + ("sizes and built-in checksums were compared" if scrub else "the sizes were compared")
        )
    elif scrub and not progress.damage:
        found.covered.append(f"{what}: all read, and each is what was written")
    elif not scrub:
        looked = "not looked at one by one" if remote else "each has the size it was written with"
        found.covered.append(f"{what}: {looked}; their bytes were not read ({SCRUB})")


def _exports(found: Examination, progress: Progress, store: StoragePath, *, scrub: bool) -> None:
    sound, gone = [], []
    for name in sorted(progress.exports):
        path = as_path(name) if is_url(name) else store.parent / name
        if not path.exists():
            gone.append(name)
            continue
        if not progress.is_made(name, path):
            progress.damage.append(Damage("name", name))
        elif scrub:
            progress.drop_altered(name, path)
        if name in progress.exports and Damage("name", name) not in progress.damage:
            sound.append(name)
    if sound and scrub:
        found.covered.append(f"exports: {some(sound)} read, as written")
    elif sound:
        found.covered.append(f"exports: {some(sound)} of the size as written; not read ({SCRUB})")
    if gone:
        found.covered.append(f"exports: {some(gone)} not there any more; a run writes it again")


def _record(found: Examination, state: RunState, damage: Sequence[Damage]) -> None:
    """Note damage in the ledger, so that a run makes again what is damaged."""
    try:
        with state.locked(), Ledger(state.ledger_file) as ledger:
            for one in damage:
                ledger.append(one.to_record())
    except OSError as error:
        found.damage.append(f"the damage cannot be recorded for a run to mend ({error.strerror})")


def _of_record(found: Examination, mask: StoragePath, *, scrub: bool) -> None:
    """Hold an output that has no ledger against the run record beside it."""
    path = record_path(mask)
    try:
        record: dict[str, Any] = load_json(path.read_text())
        names = [str(output).rpartition("/")[2] for output in record["outputs"]]
        number = names.index(mask.name)
        size = record["sizes"][number]
        sealed = record["hashes"][number] if "hashes" in record else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        size = sealed = None
    if size not in (None, size_of(mask)):
        found.damage.append(f"{mask.name} has {size_of(mask)} bytes, and was written with {size}")
    elif sealed is None:
        found.covered.append(f"{mask.name}: its run record keeps no hash of it")
    elif not scrub:
        found.covered.append(f"{mask.name}: of the size as written; not read whole ({SCRUB})")
    elif hash_of(mask) == sealed:
        found.covered.append(f"{mask.name}: read whole, as written")
    else:
        found.damage.append(f"{mask.name} is not as it was written")
        _record_beside(found, mask, path, record, names)


def _record_beside(
    found: Examination,
    mask: StoragePath,
    path: StoragePath,
    record: dict[str, Any],
    names: list[str],
) -> None:
    """Note that an output is damaged where a run looks: the ledger of its mask, or its record."""
    for store in (mask.with_name(name) for name in names if name.endswith(".zarr")):
        if RunState(store).plan_file.exists():
            _record(found, RunState(store), [Damage("name", mask.name)])
            return
    known = record.get("damaged", [])
    others = [name for name in known if name != mask.name] if isinstance(known, list) else []
    record["damaged"] = [*others, mask.name]
    try:
        write_whole(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        found.damage.append(f"the damage cannot be recorded for a run to mend ({error.strerror})")
