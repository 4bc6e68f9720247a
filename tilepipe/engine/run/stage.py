"""A stage: one resumable step of a run over its products.

A run is a list of stages. The first computes the blocks; each later one makes something of what is
there by then: coarser levels, exports, a proof. One loop runs them (`run_stages`), and the ledger
remembers each task that is done, so that a run that was stopped resumes at the task it was in. What
a stage has made is stale, and made again, as soon as anything it is made of has changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
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
from tilepipe.products.store import ZarrMask, open_zarr_mask
from tilepipe.storage import StoragePath

if TYPE_CHECKING:
    from tilepipe.engine.cluster.workers import Workers
    from tilepipe.models.file import Model

ENTRY_POINTS = "tilepipe.stages"
"""Entry points of other packages, each a `Stage` class, under the stage's name."""


@dataclass
class OpenRun:
    """A run that is under way: what it reads and writes, how far it is, and who computes it."""

    options: RunOptions
    plan: Plan
    outputs: Outputs
    image: Image
    """As its file has it; `planned_image` is what the model sees."""
    model: Model
    mask: ZarrMask
    """The store that blocks are written to, on the model's grid."""
    progress: Progress
    callbacks: RunCallbacks = field(default_factory=RunCallbacks)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    ledger: Ledger = field(init=False)
    """Open from the moment at which the run may write."""
    run_id: str = field(init=False)
    """Tasks carry it, and end without writing where it is not the current run's."""
    workers: Workers = field(init=False)
    verification: Verification | None = None
    """Of this run, or of an earlier one whose blocks are all still in place."""

    @property
    def planned_image(self) -> Image:
        """The image as the run reads it, on the model's grid at the plan's level."""
        return at_model_scale(self.image, self.plan.image)

    @property
    def result(self) -> ZarrMask:
        """The mask that exports are made of: resampled to the image's grid where asked for."""
        target = self.outputs.resampled_mask
        return self.mask if target is None else open_zarr_mask(target)

    def pool(self, **settings: Any) -> TaskPool:
        """A pool that feeds tasks to the run's workers."""
        minutes = self.options.timeout
        timeout = None if minutes is None else 60 * minutes
        return TaskPool(self.workers, self.options.retries, timeout, **settings)

    def compute(
        self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]
    ) -> Iterator[Outcome]:
        """Call ``function(store, run_id, *item)`` on the workers, for each of the items.

        Raises
        ------
        Exception
            What a task raised every time that it was tried.
        """
        store = str(self.outputs.store)
        tasks = (Task(function, (store, self.run_id, *item), item) for item in items)
        for outcome in self.pool().run(tasks):
            if outcome.error is not None:
                raise outcome.error
            yield outcome


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a stage: a pyramid level, an export."""

    key: int | str
    """By which the ledger remembers it; of a file, its name from the store on."""
    title: str
    """For the person who watches."""
    record: Mapping[str, Any] | None
    """What the ledger's record says besides what the step returns: its kind, and its key. None
    where nothing is remembered, and the step is done each time."""
    announces: bool = False
    """Whether the ledger is told before it begins, so that a file is known to be the run's."""
    is_there: Callable[[], bool] = lambda: True
    """Whether what it made, if it is fresh, is still in place."""


class Stage(ABC):
    """One resumable step of a run.

    A stage of another package gives `steps` that `step` makes, and is asked for by its name
    (``RunOptions.stages``); it runs after the exports, and before the proof.
    """

    name: ClassVar[str]
    clock: ClassVar[str]
    """The part of the summary's times that it counts in."""

    @abstractmethod
    def steps(self, run: OpenRun) -> Iterable[Step]:
        """All its steps, done or not, in the order in which they are to be done."""

    @abstractmethod
    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Do one step, whole or not at all.

        Returns
        -------
        mapping
            What the ledger remembers of it: ``bytes`` and ``hash`` of a file, for example, by which
            `tilepipe verify --scrub` and a resumed run tell whether it is still as written.
        """

    def step(self, key: str, title: str) -> Step:
        """A step that the ledger remembers by a key of its own."""
        name = f"{self.name}/{key}"
        return Step(name, title, {"kind": "stage", "name": name})

    def file_step(self, run: OpenRun, path: StoragePath) -> Step:
        """A step that writes one file; ``execute`` returns its ``bytes`` and its ``hash``.

        A file of that name is overwritten only where a run has begun it, and `tilepipe verify
        --scrub` and a resumed run notice when it is not as it was written.
        """
        name = run.outputs.name_of(path)
        return Step(
            name,
            f"writing {path.name}",
            {"kind": "export", "name": name},
            announces=True,
            is_there=partial(run.progress.is_made, name, path),
        )


def run_stages(run: OpenRun, stages: Iterable[Stage]) -> None:
    """Do the steps that are not done, or that are stale, and record each in the ledger."""
    for stage in stages:
        with run.stopwatch.part(stage.clock):
            for step in stage.steps(run):
                if run.progress.is_fresh(step.key) and step.is_there():
                    continue
                if step.announces:
                    run.ledger.append({"kind": "exporting", "name": step.key})
                run.callbacks.stage(step.title)
                made = stage.execute(run, step)
                if step.record is not None:
                    run.ledger.append({**step.record, **made})
                    seal = str(made.get("hash", made.get("chunks", "")))
                    is_file = step.record["kind"] == "export"
                    run.progress.note(step.key, made.get("bytes"), seal, is_file=is_file)


_registered: dict[str, type[Stage]] = {}


def register_stage(stage: type[Stage]) -> None:
    """Make a stage known by its name in this process."""
    _registered[stage.name] = stage


def stage_named(name: str) -> Stage:
    """A stage that a package adds.

    Raises
    ------
    InputError
        Where none has that name.
    """
    if name in _registered:
        return _registered[name]()
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in points:
        stage: Stage = points[name].load()()
        return stage
    known = ", ".join(sorted({*_registered, *points})) or "none"
    raise InputError(f"stage {name}: no installed package has it; there are: {known}")
