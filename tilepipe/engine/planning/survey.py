"""What the workers of a run have: devices, threads, memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.hardware import (
    MACHINE_SHARE,
    cores,
    default_memory,
    granted,
    memory_group,
    most_memory,
)
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import describe_differences
from tilepipe.engine.resources import Resources
from tilepipe.engine.work.environment import (
    choose_device,
    environment,
    relevant_to,
    require_proof,
)
from tilepipe.engine.work.torch_facts import cuda_is_available
from tilepipe.errors import InputError
from tilepipe.models.float32 import require_float32
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model
from tilepipe.text import count, gigabytes


def survey(options: RunOptions, workers: Workers | None, resources: Resources) -> Resources:
    """The resources with the device, threads and memory that the workers have.

    Raises InputError if external workers differ and `--allow-mixed` is not given.
    """
    if workers is None or resources.local:
        device = choose_device(options.device)
        threads = options.threads or max(1, cores() // resources.workers)
        return replace(
            resources, device=device, threads=threads, memory=default_memory(),
            environment=environment(device, threads),
        )  # fmt: skip
    threads = options.threads or resources.threads or resources.slots
    reports = workers.ask(_survey_worker, options.device)
    together = Counter(report["group"] for report in reports)
    if options.threads is None:
        # No more than the cores of each, if several share those of one machine or container.
        shares = [report["cores"] // together[report["group"]] for report in reports]
        threads = max(1, min(threads, *shares))
    first = reports[0]
    ours = relevant_to(first["environment"], options.precision)
    for report in reports[1:]:
        theirs = relevant_to(report["environment"], options.precision)
        if theirs != ours and not options.allow_mixed:
            raise InputError(
                f"the workers differ ({describe_differences(ours, theirs)}), and "
                "so would their results in the last digits; use workers of one kind, or "
                "--allow-mixed, which promises equal labels up to ties only"
            )
    memory = min(
        min(report["memory"] // together[report["group"]], report["granted"]) for report in reports
    )
    here = first["environment"] | {"threads": threads}
    reduced = [r["environment"]["float32"] for r in reports if "float32" in r["environment"]]
    if reduced:  # by one of them, whichever it is
        here["float32"] = reduced[0]
    return replace(
        resources, device=first["device"], threads=threads, memory=memory, environment=here
    )


def _survey_worker(device: str, dask_worker: Any) -> dict[str, Any]:
    try:
        chosen = choose_device(device)
    except InputError as error:
        return {"error": str(error)}
    memory = default_memory()
    limit = dask_worker.memory_manager.memory_limit
    return {
        "device": chosen,
        "environment": environment(chosen, 0),
        "group": memory_group(),
        "cores": cores(),
        "memory": memory,
        "granted": int(MACHINE_SHARE * limit) if limit else memory,
    }


def require_precision(
    options: RunOptions, model: Model, resources: Resources, precision: Precision, runtime: str
) -> None:
    """Refuse a precision in whose place the workers would compute another, or the proof would.

    Raises
    ------
    InputError
        Before anything is written.
    """
    if resources.device == "cpu":
        require_float32(precision, runtime, resources.environment.get("float32"))
    if options.verify:
        require_proof(model, resources.device, precision)


def memory_limit(options: RunOptions, resources: Resources) -> int:
    """The memory limit of all local processes together, or of each external worker, in bytes."""
    return options.memory or resources.memory


def beyond_this_machine(threads: int, resources: Resources, bound: int) -> list[str]:
    """The warnings for a plan that needs more cores or memory than this machine grants."""
    if not resources.local:
        return []
    grant, found = granted(), []
    if bound > (most := most_memory(grant)):
        where = "control group (a container's, or a job's)" if most == grant.memory else "machine"
        found.append(
            f"the run may take {gigabytes(bound)}, but the {where} has {gigabytes(most)}: it may "
            "be killed; use a smaller --memory"
        )
    if resources.device == "cpu" and threads * resources.workers > (usable := cores(grant)):
        several = f"{resources.workers} workers with {threads} threads each"
        found.append(
            f"{several if resources.workers > 1 else f'{threads} threads'} share "
            f"{count(usable, 'core')} and slow each other down; leave --threads out, or use fewer "
            "--workers"
        )
    return found


def gpus(options: RunOptions) -> int:
    """The number of GPUs of this machine that the run may use."""
    if options.device == "cpu" or options.uses_external_workers or not cuda_is_available():
        return 0
    from tilepipe._torch import torch

    return int(torch.cuda.device_count())
