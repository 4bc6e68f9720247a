"""Where a run keeps what it must not forget: `.tilepipe/` inside the zarr mask."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilepipe.documents import load_json
from tilepipe.engine.plan import Plan
from tilepipe.errors import InputError
from tilepipe.places import Place, make_folder, remove, write_whole
from tilepipe.places.holding import HeldError, holding

__all__ = ["FOLDER", "RunState", "write_whole"]

FOLDER = ".tilepipe"
EMPTY_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


@dataclass(frozen=True, slots=True)
class RunState:
    """The files beside the arrays of one zarr mask."""

    store: Place
    """The zarr mask."""

    @property
    def folder(self) -> Place:
        """What the run keeps; part of the mask, so that both move together."""
        return self.store / FOLDER

    @property
    def plan_file(self) -> Place:
        """The frozen plan. Where it is missing, no run has begun."""
        return self.folder / "plan.json"

    @property
    def ledger_file(self) -> Place:
        """What is done: a file, or on an object store a folder of batches."""
        return self.folder / "ledger"

    @property
    def run_file(self) -> Place:
        """Which run may write."""
        return self.folder / "run.json"

    def read_plan(self) -> Plan | None:
        """The frozen plan, or None where no run has begun.

        Raises
        ------
        InputError
            Where it cannot be understood.
        """
        try:
            text = self.plan_file.read_bytes().decode("utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return Plan.from_json(text)
        except ValueError as error:
            raise InputError(
                f"{self.plan_file}: is no plan of this version of tilepipe ({error}); "
                "use --overwrite to start anew"
            ) from error

    def freeze(self, plan: Plan) -> None:
        """Write the plan, whole or not at all."""
        # A group of its own, so that zarr readers that list the mask's members know what it is.
        write_whole(self.folder / "zarr.json", json.dumps(EMPTY_GROUP))
        write_whole(self.plan_file, plan.to_json())

    def discard(self) -> None:
        """Remove the mask. The plan goes first: stopped half-way, nothing is left to resume."""
        self.forget()
        remove(self.store)

    def forget(self) -> None:
        """Remove what says that anything is done, the plan first."""
        self.plan_file.unlink(missing_ok=True)
        remove(self.ledger_file)

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
            with holding(self.folder / "lock"):
                yield
        except HeldError:
            try:
                owner = load_json(self.run_file.read_text())
                who = f" (process {owner['pid']} on {owner['host']})"
            except (OSError, ValueError, KeyError, TypeError):
                who = ""
            raise InputError(
                f"{self.store}: another run is writing it{who}; wait for it, or choose another -o"
            ) from None
