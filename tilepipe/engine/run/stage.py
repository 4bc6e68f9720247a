"""A stage: one resumable part of a run over its products.

After its blocks, a run consists of stages: coarser levels, exports, verification. One loop runs
them (`run_stages`), and the ledger records each step that is done, so that a stopped run resumes
where it was. The result of a step is stale, and made again, once anything it depends on changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tilepipe.engine.cluster.pool import Outcome, Task, TaskPool
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan, at_model_scale
from tilepipe.engine.report.stopwatch import Stopwatch
from tilepipe.engine.report.verification import Verification
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.outputs import Outputs
from tilepipe.engine.state.progress import Progress
from tilepipe.errors import InputError
from tilepipe.images import Image
from tilepipe.plugins import made, plugin, plugin_names
from tilepipe.products.store import ZarrMask, open_zarr_mask
from tilepipe.storage import StoragePath, size_of

if TYPE_CHECKING:
    from tilepipe.engine.cluster.workers import Workers
    from tilepipe.models.file import Model

ENTRY_POINTS = "tilepipe.stages"
"""The group of entry points by which other packages add `Stage` classes."""


@dataclass
class OpenRun:
    """A run in progress: what it reads and writes, what is done, and the workers."""

    options: RunOptions
    plan: Plan
    outputs: Outputs
    image: Image
    """The image on the grid of its file; `planned_image` is what the model sees."""
    model: Model
    mask: ZarrMask
    """The mask that blocks are written to, on the model's grid."""
    progress: Progress
    callbacks: RunCallbacks = field(default_factory=RunCallbacks)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    ledger: Ledger = field(init=False)
    """The ledger, open as soon as the run may write."""
    run_id: str = field(init=False)
    """The id of this run. Tasks of any other run end without writing."""
    workers: Workers = field(init=False)
    memory: int = 0
    """The memory limit in bytes: of this machine, or of each worker elsewhere."""
    slots: int = 1
    """How many tasks run at once within that."""
    in_process: bool = False
    """Whether the worker is this process, so that a stage without the network may use others."""
    verification: Verification | None = None
    """The verification of this run, or of an earlier one with the same blocks."""

    @property
    def planned_image(self) -> Image:
        """The image as the run reads it, on the model's grid at the plan's level."""
        return at_model_scale(self.image, self.plan.image)

    @property
    def result(self) -> ZarrMask:
        """The mask that exports are made from: on the image's grid with `--like-image`."""
        target = self.outputs.resampled_mask
        return self.mask if target is None else open_zarr_mask(target)

    def compute(
        self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]
    ) -> Iterator[Outcome]:
        """Call ``function(store, run_id, *item)`` on the workers, for each of the items.

        Raises
        ------
        Exception
            The error of a task that failed every time it was tried.
        """
        store = str(self.outputs.store)
        tasks = (Task(function, (store, self.run_id, *item), item) for item in items)
        pool = TaskPool(self.workers, self.options.retries, self.options.timeout_seconds)
        for outcome in pool.run(tasks):
            if outcome.error is not None:
                raise outcome.error
            yield outcome


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a stage, such as a pyramid level or an export."""

    key: int | str
    """The key in the ledger; for a file, its name relative to the store."""
    title: str
    """The text shown while the step runs."""
    record: Mapping[str, Any] | None
    """The kind and key for the ledger's record, to which the values of `Stage.execute` are added.
    None if nothing is recorded, so that the step is done each time."""
    path: StoragePath | None = None
    """The file that the step writes, if any."""


class Stage(ABC):
    """One resumable part of a run.

    A stage of another package makes its `steps` with `step` or `file_step`, and is added to a run
    by its name (``RunOptions.stages``). It runs after the exports and before the verification.
    """

    name: ClassVar[str]
    clock: ClassVar[str]
    """The part of the summary's times that it counts towards."""

    @abstractmethod
    def steps(self, run: OpenRun) -> Iterable[Step]:
        """All steps of the stage, done or not, in order."""

    @abstractmethod
    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Do one step completely, or leave no trace.

        Returns
        -------
        mapping
            Values for the ledger, such as the ``bytes`` and ``hash`` of a file, with which
            `tilepipe verify --scrub` and a resumed run check that it is still as written.
        """

    def step(self, key: str, title: str) -> Step:
        """A step with a key of the stage's own."""
        name = f"{self.name}/{key}"
        return Step(name, title, {"kind": "stage", "name": name})

    def file_step(self, run: OpenRun, path: StoragePath) -> Step:
        """A step that writes one file; `execute` must return its ``bytes`` and its ``hash``.

        An existing file is overwritten only if a run began it.
        """
        name = run.outputs.name_of(path)
        return Step(name, f"writing {path.name}", {"kind": "export", "name": name}, path)


class FileStage(Stage):
    """A stage whose steps each write one file, or one folder."""

    @abstractmethod
    def paths(self, run: OpenRun) -> Iterable[StoragePath]:
        """All that the stage writes, done or not, in order."""

    @abstractmethod
    def write(self, run: OpenRun, path: StoragePath) -> str:
        """Write one of them completely, or leave no trace; returns the hash of its content."""

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """A step for each."""
        return (self.file_step(run, path) for path in self.paths(run))

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write one."""
        assert step.path is not None, "as each step of this stage has one"
        content = self.write(run, step.path)
        return {"bytes": size_of(step.path), "hash": content}


def run_stages(run: OpenRun, stages: Iterable[Stage]) -> None:
    """Do the steps that are missing or stale, and record each in the ledger."""
    for stage in stages:
        with run.stopwatch.part(stage.clock):
            for step in stage.steps(run):
                if is_done(run, step):
                    continue
                if step.path is not None:
                    _announce(run, step.path, str(step.key))
                run.callbacks.stage(step.title)
                found = stage.execute(run, step) or {}
                if step.record is not None:
                    run.ledger.append({**step.record, **found})
                    seal = str(found.get("hash", found.get("chunks", "")))
                    is_file = step.path is not None
                    run.progress.note(step.key, found.get("bytes"), seal, is_file=is_file)


def is_done(run: OpenRun, step: Step) -> bool:
    """Whether the result of a step is fresh, and still in place."""
    if step.path is not None:
        return run.progress.is_made(str(step.key), step.path)
    return run.progress.is_fresh(step.key)


def _announce(run: OpenRun, path: StoragePath, name: str) -> None:
    """Record that a file is begun, so that even a partial one is known to be the run's."""
    if path.exists() and name not in run.progress.ours:
        raise InputError(f"{path}: exists already; remove it, or choose another -o")
    run.ledger.append({"kind": "exporting", "name": name})
    run.progress.ours.add(name)


_registered: dict[str, type[Stage]] = {}


def register_stage(stage: type[Stage]) -> None:
    """Make a stage available by its name in this process."""
    _registered[stage.name] = stage


def stage_named(name: str) -> Stage:
    """The stage that another package added under a name; InputError if there is none."""
    kind = _registered.get(name) or plugin(ENTRY_POINTS, name)
    if kind is None:
        known = ", ".join(sorted({*_registered, *plugin_names(ENTRY_POINTS)})) or "none"
        raise InputError(f"stage {name}: no installed package has it; there are: {known}")
    stage: Stage = made(ENTRY_POINTS, name, kind)
    return stage
