"""The state of a run on disk: the folder `.tilepipe/` inside the zarr mask."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.ledger import decode, encode
from tilepipe.errors import InputError
from tilepipe.products.store import metadata_documents
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath, make_folder, remove, write_whole
from tilepipe.storage.hashing import hash_bytes
from tilepipe.storage.lock import LockedError, holding_lock

FOLDER = ".tilepipe"
EMPTY_GROUPS: dict[int, tuple[str, dict[str, Any]]] = {
    2: (".zgroup", {"zarr_format": 2}),
    3: ("zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}}),
}
"""The document of a group without attributes, and its name, by zarr format."""


def read_document(path: StoragePath) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none, or it cannot be parsed."""
    try:
        document = load_json(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


class AlteredPlanError(InputError):
    """The plan of a mask is not the one that was frozen with it."""


@dataclass(frozen=True, slots=True)
class Seals:
    """Hashes of the plan and the metadata that a run wrote, kept in a separate file."""

    plans: tuple[str, ...]
    """The hash of each frozen plan. A resumed run adds one, because it updates the paths."""
    documents: dict[str, str]
    """The hash of each file of metadata, by its path in the mask's folder."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The files beside the arrays of one zarr mask."""

    store: StoragePath
    """The zarr mask."""

    @property
    def folder(self) -> StoragePath:
        """The folder that holds the files, inside the mask so that both move together."""
        return self.store / FOLDER

    @property
    def plan_file(self) -> StoragePath:
        """The frozen plan. Without it, no run has begun."""
        return self.folder / "plan.json"

    @property
    def ledger_file(self) -> StoragePath:
        """The ledger: a file, or on an object store a folder of batches."""
        return self.folder / "ledger"

    @property
    def run_file(self) -> StoragePath:
        """The file with the id of the run that may write."""
        return self.folder / "run.json"

    @property
    def network_file(self) -> StoragePath:
        """The quantised network that computes the run, if the plan has one."""
        return self.folder / "network.zip"

    @property
    def seals_file(self) -> StoragePath:
        """Hashes of the plans that were frozen here, and of the mask's metadata."""
        return self.folder / "seals"

    def read_plan(self) -> Plan | None:
        """The frozen plan, or None if no run has begun.

        Raises InputError when it cannot be read, or is not as it was written.
        """
        try:
            text = self.plan_file.read_bytes().decode("utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            plan = Plan.from_json(text)
        except ValueError as error:
            raise InputError(
                f"{self.plan_file}: this version of tilepipe cannot read it ({error}); use "
                "--overwrite to start over"
            ) from error
        sealed = self.seals().plans
        if sealed and hash_bytes(text.encode()) not in sealed:
            raise AlteredPlanError(
                f"{self.plan_file}: was changed or damaged since the run wrote it, so its mask "
                "cannot be trusted; put the file back as it was, or use --overwrite to start over"
            )
        return plan

    def seals(self) -> Seals:
        """The hashes of plan and metadata; none if an older version wrote the mask."""
        try:
            record = decode(self.seals_file.read_bytes()) or {}
            return Seals(tuple(record["plans"]), dict(record["documents"]))
        except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
            return Seals((), {})

    def freeze(self, plan: Plan) -> None:
        """Write the plan atomically, and its hash."""
        # A group, so that zarr readers that list the mask's members can open the folder.
        for zarr_format, (name, group) in EMPTY_GROUPS.items():
            if zarr_format == plan.mask.zarr_format:
                write_whole(self.folder / name, json.dumps(group))
            else:  # of an earlier run that was overwritten
                (self.folder / name).unlink(missing_ok=True)
        text, seals = plan.to_json(), self.seals()
        documents = seals.documents
        if not documents:
            contents = metadata_documents(plan.mask, plan.extras)
            documents = {name: hash_bytes(content) for name, content in contents.items()}
        plans = sorted({*seals.plans, hash_bytes(text.encode())})
        # Before the plan: after an interruption in between, the previous plan is still sealed.
        write_whole(self.seals_file, encode({"plans": plans, "documents": documents}).decode())
        write_whole(self.plan_file, text)

    def discard(self) -> None:
        """Remove the mask, the plan first, so that an interruption leaves no run to resume."""
        self.forget()
        if isinstance(self.store, Path) and self.store.is_symlink():
            for entry in self.store.iterdir():  # the link is the user's
                remove(entry)
        else:
            remove(self.store)

    def forget(self) -> None:
        """Remove plan, ledger, network and hashes, the plan first."""
        self.plan_file.unlink(missing_ok=True)
        remove(self.ledger_file)
        self.network_file.unlink(missing_ok=True)
        self.seals_file.unlink(missing_ok=True)

    def begin(self, *, allow_mixed: bool = False) -> str:
        """Start a new run of this output and return its id; tasks of earlier runs then end."""
        run_id, host = uuid.uuid4().hex, socket.gethostname()
        owner = {"id": run_id, "pid": os.getpid(), "host": host, "allow_mixed": allow_mixed}
        write_whole(self.run_file, json.dumps(owner))
        return run_id

    def end(self) -> None:
        """End the current run; tasks that are still in flight end without writing."""
        self.run_file.unlink(missing_ok=True)

    def current_run(self) -> str | None:
        """The id of the run that may write, or None."""
        found = read_document(self.run_file).get("id")
        return None if found is None else str(found)

    def allows_mixed(self) -> bool:
        """Whether the current run accepts workers with other results in the last digits."""
        return bool(read_document(self.run_file).get("allow_mixed"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the output for this process; the lock of a dead process is released.

        Raises InputError when another run holds the lock.
        """
        make_folder(self.folder)
        try:
            with holding_lock(self.folder / "lock"):
                yield
        except LockedError:
            owner, who = read_document(self.run_file), ""
            if {"pid", "host"} <= owner.keys():
                who = f" (process {owner['pid']} on {owner['host']})"
            raise InputError(
                f"{self.store}: another run is writing it{who}; wait for it, or choose another -o"
            ) from None
