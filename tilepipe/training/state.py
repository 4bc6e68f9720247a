"""What a training keeps beside its model: enough to resume after it was killed."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tilepipe._torch import torch
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.storage import complete_or_absent, write_whole
from tilepipe.storage.lock import LockedError, holding_lock
from tilepipe.training.options import TrainOptions
from tilepipe.training.pairs import TrainingPair

# Options that do not change what is learnt, and so may differ when a training is resumed.
_FREE = {"overwrite", "about", "output", "data", "masks", "validation"}


class TrainingState:
    """The folder ``NAME.training`` beside the model file."""

    def __init__(self, model: Path) -> None:
        self.folder = model.with_name(model.stem + ".training")
        self.options_file = self.folder / "options.json"
        self.checkpoint_file = self.folder / "checkpoint.pt"
        self.log_file = self.folder / "log.csv"
        self.tiles_file = self.folder / "tiles.png"
        self.curves_file = self.folder / "curves.png"
        self.sheet_file = self.folder / "validation.png"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing this training.

        Raises
        ------
        InputError
            Another process is writing it.
        """
        new = not self.folder.exists()
        self.folder.mkdir(exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(holding_lock(self.folder / "lock"))
            except LockedError:
                raise InputError(
                    f"{self.folder}: another training is writing here; wait for it, or use "
                    "another -o"
                ) from None
            try:
                yield
            finally:
                if new and not self.options_file.exists():  # it was refused before it began
                    shutil.rmtree(self.folder, ignore_errors=True)

    def begin(
        self,
        options: TrainOptions,
        training: Sequence[TrainingPair],
        validation: Sequence[TrainingPair],
    ) -> dict[str, Any] | None:
        """Record the options and images of a new training, or return the checkpoint of an old one.

        Raises
        ------
        InputError
            A training of that name was started with other options or images.
        """
        self.folder.mkdir(exist_ok=True)
        record = {
            "options": asdict(options),
            "pairs": _recorded(training),
            "judged": _recorded(validation),
        }
        now = json.loads(json.dumps(record))
        if options.overwrite:
            self.clear()
        if self.options_file.exists() and self.checkpoint_file.exists():
            try:
                then = json.loads(self.options_file.read_text())
                changed = [
                    f"{key} was {value!r}, now {now['options'].get(key)!r}"
                    for key, value in then["options"].items()
                    if key not in _FREE and now["options"].get(key) != value
                ]
                if then["pairs"] != now["pairs"]:
                    changed.append("the images differ")
                if then.get("judged", now["judged"]) != now["judged"]:
                    changed.append("the validation images differ")
            except (ValueError, KeyError, TypeError, AttributeError):
                changed = ["its record cannot be read"]
            if changed:
                raise InputError(
                    f"{self.folder}: was started with other settings: {'; '.join(changed)}; use "
                    "the same settings to resume it, --overwrite to restart, or another -o"
                )
        else:
            write_whole(self.options_file, json.dumps(now, indent=1).encode())
        return self._checkpoint()

    def clear(self) -> None:
        """Remove the record, the checkpoint and the log."""
        for file in (self.options_file, self.checkpoint_file, self.log_file):
            file.unlink(missing_ok=True)

    def _checkpoint(self) -> dict[str, Any] | None:
        if not self.checkpoint_file.exists():
            return None
        try:
            # Tensors and plain values only: a checkpoint cannot run code.
            state: dict[str, Any] = torch.load(
                self.checkpoint_file, map_location="cpu", weights_only=True
            )
        except Exception as error:
            raise InputError(
                f"{self.checkpoint_file}: cannot be read; use --overwrite to restart"
            ) from error
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the one before it stays until the new one is complete."""
        try:
            with complete_or_absent(self.checkpoint_file) as part:
                torch.save(state, part)
        # If the disk is full, torch raises a RuntimeError.
        except (OSError, RuntimeError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise EnvironmentFailure(
                f"{self.checkpoint_file}: cannot be written: {why or 'is the disk full?'}; the "
                "same command resumes from the previous checkpoint"
            ) from error

    def write_log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the whole log, so that a resumed training does not repeat lines."""
        rows = list(rows)
        if not rows:
            return
        with complete_or_absent(self.log_file) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _recorded(pairs: Sequence[TrainingPair]) -> list[list[Any]]:
    return [[Path(p.image).name, p.source, list(p.rows)] for p in pairs]
