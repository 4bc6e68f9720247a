"""Numbering the objects of a mask: the passes in their order, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from tilepipe.grid import Window
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects import passes
from tilepipe.objects.index import ObjectIndex
from tilepipe.objects.job import Workspace, open_workspace
from tilepipe.storage import as_path

Compute = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]]
"""Calls ``function(*item)`` for each of the items, anywhere and in any order; gives the results."""

OnStep = Callable[[str], None]
"""Is told what begins."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over all windows."""

    name: str
    title: str
    task: Callable[[Workspace, Window], None]
    """What is done with each window."""
    begin: Callable[[Workspace], None] | None = None
    """What is done before."""
    end: Callable[[Workspace], None] | None = None
    """What is done after."""
    needed: Callable[[Workspace], bool] = lambda _work: True
    done_with: tuple[str, ...] = ()
    """Arrays that no later pass reads."""


def _rule(test: Callable[[ObjectRule], bool]) -> Callable[[Workspace], bool]:
    return lambda work: test(work.job.rule)


def _fills(work: Workspace) -> bool:
    return work.job.rule.fill_holes and not work.fills_small_holes


_grows = _rule(lambda rule: rule.method == "seeded")
_merges = _rule(lambda rule: rule.specks == "merge" and rule.min_area > 0)

PASSES = (
    Pass("holes", "finding holes", passes.holes, end=passes.judge_holes, needed=_fills),
    Pass("fill", "filling holes", passes.fill, needed=_fills),
    Pass(
        "pieces", "finding objects", passes.pieces,
        begin=passes.prepare_pieces, end=passes.join_pieces,
    ),
    Pass("number", "numbering objects", passes.number, done_with=("pieces",)),
    Pass("grow", "growing objects", passes.grow, begin=passes.prepare_growth, needed=_grows),
    Pass(
        "borders", "joining specks", passes.borders,
        begin=passes.find_specks, needed=_merges,
    ),
    Pass(
        "finish", "numbering objects", passes.finish,
        begin=passes.settle_specks, needed=passes.is_provisional,
        done_with=("seeds", "grown", "filled"),
    ),
)  # fmt: skip


def number_objects(work: Workspace, compute: Compute, on_step: OnStep) -> ObjectIndex:
    """Number all objects of a mask, or go on where an earlier call was stopped.

    The numbers are in the target of the job when it returns, at level 0. Returns what is known of
    each object. Where an error or a kill stops it, a later call with an equal job ends with the
    same bytes.
    """
    for each in PASSES:
        if not each.needed(work):
            continue
        step(work, f"{each.name}.begin", each.begin)
        tasks = ((str(work.path), each.name, window) for window in work.windows())
        step(work, each.name, all_of(compute, run_task, tasks), partial(on_step, each.title))
        step(work, f"{each.name}.end", each.end)
        for name in each.done_with:
            work.remove_array(name)
    return ObjectIndex(work.path / "index" / "final")


def step(
    work: Workspace,
    name: str,
    do: Callable[[Workspace], Any] | None,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Do something once, and say before that it begins."""
    if do is not None and not work.is_done(name):
        announce()
        do(work)
        work.set_done(name)


def all_of(
    compute: Compute, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]
) -> Callable[[Workspace], None]:
    """What computes all of some tasks, for `step`."""

    def do(_work: Workspace) -> None:
        for _ in compute(function, items):
            pass

    return do


def run_task(path: str, name: str, window: Window) -> None:
    """Do one window of one pass; the work of a task, wherever it runs."""
    each = next(one for one in PASSES if one.name == name)
    each.task(workspace_at(path), window)


def workspace_at(path: str) -> Workspace:
    """The workspace in a folder, opened once in each process."""
    return _workspace(path, (as_path(path) / "job.json").read_bytes())


@lru_cache(maxsize=4)
def _workspace(path: str, _content: bytes) -> Workspace:
    return open_workspace(as_path(path))
