"""Where a run keeps what it must not forget: `.tilepipe/` inside the zarr mask."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.ledger import decode, encode
from tilepipe.errors import InputError
from tilepipe.products.store import metadata_documents
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath, make_folder, remove, write_whole
from tilepipe.storage.hashing import hash_bytes
from tilepipe.storage.lock import LockedError, holding_lock

FOLDER = ".tilepipe"
EMPTY_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


class AlteredPlanError(InputError):
    """The plan of a mask is not the one that was frozen with it."""


@dataclass(frozen=True, slots=True)
class Seals:
    """Hashes of what a run wrote beside chunks and exports, kept in a file of their own."""

    plans: tuple[str, ...]
    """Of each plan that was frozen: a resumed run writes it again, with the paths of today."""
    documents: dict[str, str]
    """Of each ``zarr.json``, by its path from the mask's folder on."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The files beside the arrays of one zarr mask."""

    store: StoragePath
    """The zarr mask."""

    @property
    def folder(self) -> StoragePath:
        """What the run keeps; part of the mask, so that both move together."""
        return self.store / FOLDER

    @property
    def plan_file(self) -> StoragePath:
        """The frozen plan. Where it is missing, no run has begun."""
        return self.folder / "plan.json"

    @property
    def ledger_file(self) -> StoragePath:
        """What is done: a file, or on an object store a folder of batches."""
        return self.folder / "ledger"

    @property
    def run_file(self) -> StoragePath:
        """Which run may write."""
        return self.folder / "run.json"

    @property
    def seals_file(self) -> StoragePath:
        """Hashes of the plans that were frozen here, and of the mask's ``zarr.json`` files."""
        return self.folder / "seals"

    def read_plan(self) -> Plan | None:
        """The frozen plan, or None where no run has begun.

        Raises
        ------
        InputError
            Where it cannot be understood, or is not as it was written.
        """
        try:
            text = self.plan_file.read_bytes().decode("utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            plan = Plan.from_json(text)
        except ValueError as error:
            raise InputError(
                f"{self.plan_file}: is no plan of this version of tilepipe ({error}); "
                "use --overwrite to start anew"
            ) from error
        sealed = self.seals().plans
        if sealed and hash_bytes(text.encode()) not in sealed:
            raise AlteredPlanError(
                f"{self.plan_file}: was changed or damaged since the run wrote it, so its mask "
                "cannot be trusted; put the file back as it was, or use --overwrite to start anew"
            )
        return plan

    def seals(self) -> Seals:
        """The hashes of what the run wrote beside chunks; none where an older version wrote it."""
        try:
            record = decode(self.seals_file.read_bytes()) or {}
            return Seals(tuple(record["plans"]), dict(record["documents"]))
        except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
            return Seals((), {})

    def freeze(self, plan: Plan) -> None:
        """Write the plan, whole or not at all."""
        # A group of its own, so that zarr readers that list the mask's members know what it is.
        write_whole(self.folder / "zarr.json", json.dumps(EMPTY_GROUP))
        text, seals = plan.to_json(), self.seals()
        # Before the plan itself: stopped in between, the plan before it is still a sealed one.
        record = {
            "plans": sorted({*seals.plans, hash_bytes(text.encode())}),
            "documents": seals.documents
            or {
                name: hash_bytes(content)
                for name, content in metadata_documents(plan.mask, plan.extras).items()
            },
        }
        write_whole(self.seals_file, encode(record).decode())
        write_whole(self.plan_file, text)

    def discard(self) -> None:
        """Remove the mask. The plan goes first: stopped half-way, nothing is left to resume."""
        self.forget()
        if isinstance(self.store, Path) and self.store.is_symlink():
            for entry in self.store.iterdir():  # the link is the user's
                remove(entry)
        else:
            remove(self.store)

    def forget(self) -> None:
        """Remove what says that anything is done, the plan first."""
        self.plan_file.unlink(missing_ok=True)
        remove(self.ledger_file)
        self.seals_file.unlink(missing_ok=True)

    def begin(self, *, allow_mixed: bool = False) -> str:
        """Declare a new run of this output and return its id; tasks of earlier runs end by it."""
        run_id = uuid.uuid4().hex
        owner = {
            "id": run_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "allow_mixed": allow_mixed,
        }
        write_whole(self.run_file, json.dumps(owner))
        return run_id

    def end(self) -> None:
        """Declare that no run may write; tasks that are still about end without writing."""
        self.run_file.unlink(missing_ok=True)

    def current_run(self) -> str | None:
        """The id of the run that may write, or None when there is none."""
        try:
            return str(load_json(self.run_file.read_text())["id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def allows_mixed(self) -> bool:
        """Whether the current run lets workers of other kinds take part."""
        try:
            return bool(load_json(self.run_file.read_text())["allow_mixed"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the output for this process alone; the lock of a dead process is free.

        Raises
        ------
        InputError
            When another run holds it.
        """
        make_folder(self.folder)
        try:
            with holding_lock(self.folder / "lock"):
                yield
        except LockedError:
            try:
                owner = load_json(self.run_file.read_text())
                who = f" (process {owner['pid']} on {owner['host']})"
            except (OSError, ValueError, KeyError, TypeError):
                who = ""
            raise InputError(
                f"{self.store}: another run is writing it{who}; wait for it, or choose another -o"
            ) from None
