"""What the stages do that make objects of a mask, and files of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tilepipe.engine.events import BlockReport
from tilepipe.engine.hardware import cores
from tilepipe.engine.run.placing import image_place
from tilepipe.engine.run.stage import OpenRun
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.engine.work.objects import object_task
from tilepipe.objects.areas import Area, PixelArea, answered_area
from tilepipe.objects.build import build_objects
from tilepipe.objects.formats.registry import write_objects
from tilepipe.objects.job import ObjectsJob, side_for, start
from tilepipe.objects.mappers import in_processes, processes_for
from tilepipe.objects.measures import has_probabilities
from tilepipe.objects.numbering import Compute
from tilepipe.objects.rules import part_table
from tilepipe.objects.summary import ObjectsSummary, summarise_objects
from tilepipe.objects.table import ObjectsInfo, open_table
from tilepipe.products.base import MaskSpec
from tilepipe.products.instances import open_instances
from tilepipe.storage import StoragePath, remove, staged_locally
from tilepipe.storage.hashing import hash_of
from tilepipe.text import count


def make_objects(run: OpenRun, target: StoragePath) -> str:
    """Make the objects of a run within its store; returns the hash of all their files."""
    plan, mask = run.plan, run.mask
    assert plan.objects is not None, "otherwise there is no step"
    names = [named.name for named in mask.spec.classes]
    processes = processes_for(run.memory, cores()) if run.in_process else 1
    job = ObjectsJob(
        str(run.outputs.store), _seal(run), *mask.shape, plan.objects,
        part_table(plan.objects, mask.kind, names, mask.spec.background), str(target),
        side=side_for(run.memory, max(run.slots, processes)),
        probabilities=has_probabilities(mask),
    )  # fmt: skip
    work = start(run.outputs.state.folder / "objects", job)
    with _computing(run, min(processes, len(work.windows()) // 4)) as compute:
        build_objects(
            work, mask.spec, objects_info(run), compute, run.callbacks.stage, source="../"
        )
    content = hash_of(target)
    remove(work.path)
    return content


@contextmanager
def _computing(run: OpenRun, processes: int) -> Iterator[Compute]:
    """Yield what computes tasks: processes of this machine, or the run's own workers."""
    if processes > 1:
        with in_processes(processes) as compute:
            yield compute
        return

    def by_workers(function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        for outcome in run.compute(object_task, ((function, *item) for item in items)):
            yield outcome.value

    yield by_workers


def write_export(run: OpenRun, path: StoragePath) -> str:
    """Write a file of the objects of a run; returns its hash."""
    table = open_table(run.outputs.objects / "table")
    with staged_locally(path) as local:
        write_objects(table, local, open_instances(run.outputs.objects))
        return hash_of(local)


def objects_info(run: OpenRun) -> ObjectsInfo:
    """What the table of a run's objects says of itself."""
    plan, model = run.plan, run.model
    assert plan.objects is not None, "asked for runs that make objects"
    missing = len(run.progress.incomplete)
    return ObjectsInfo(
        plan.mask, (), 0, image_place(run.planned_image, plan), plan.objects.to_json(),
        {"name": model.name, "fingerprint": model.fingerprint, "about": model.about},
        partial=f"{count(missing, 'block')} could not be read whole" if missing else "",
    )  # fmt: skip


def summary_of(run: OpenRun) -> ObjectsSummary | None:
    """The objects of a run in numbers; None if it makes none."""
    if run.plan.objects is None:
        return None
    table = open_table(run.outputs.objects / "table")
    return summarise_objects(table, _answered(run, run.plan.mask))


def _answered(run: OpenRun, spec: MaskSpec) -> Area:
    """How much of the mask has an answer; read only where pixels differ in area."""
    area = PixelArea(spec)
    if area.differs:
        return answered_area(run.mask, spec)
    return Area(run.progress.answered, run.progress.answered * area.usual)


def _seal(run: OpenRun) -> str:
    """A fingerprint of the mask's pixels: of the latest report of each block."""
    latest: dict[int, bytes] = {}
    for record in read_ledger(run.outputs.state.ledger_file):
        if record.get("kind") == "block":
            report = BlockReport.from_record(record)
            text = f"{report.number} {report.chunks} {report.counts} {report.answered}"
            latest[report.number] = hashlib.blake2b(text.encode(), digest_size=8).digest()
    digest = hashlib.blake2b(digest_size=16)
    for number in sorted(latest):
        digest.update(latest[number])
    return digest.hexdigest()
