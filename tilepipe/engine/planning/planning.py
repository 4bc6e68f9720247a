"""Making a plan: the image, the model and the place where passes run, brought together."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilepipe._torch import torch
from tilepipe.engine.cluster.cluster_file import SLOTS
from tilepipe.engine.cluster.connect import connect, gpu_memory, prepare_workers
from tilepipe.engine.hardware import (
    MACHINE_SHARE,
    cores,
    default_memory,
    granted,
    memory_group,
    most_memory,
)
from tilepipe.engine.inputs import open_input
from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.plan.coverage import can_be_framed
from tilepipe.engine.plan.plan import (
    Plan,
    absolute,
    at_model_scale,
    describe_differences,
    image_facts,
    like_image_spec,
    mask_spec,
)
from tilepipe.engine.plan.region import find_region, region_of
from tilepipe.engine.plan.scale import base_pixel_size, choose_scale
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.engine.planning.runtime_selection import (
    RuntimeChoice,
    choose_precision,
    choose_runtime,
    fastest_runtime,
    fitting,
    worth_timing,
)
from tilepipe.engine.planning.sizing import MemoryModel, check_room, choose_tiling
from tilepipe.engine.planning.timing import (
    PassSettings,
    Sample,
    central_tile,
    speed_of,
    speed_on_worker,
)
from tilepipe.engine.resources import Crew, Estimate, check_workers
from tilepipe.engine.state.outputs import Outputs, choose_outputs
from tilepipe.engine.work.environment import choose_device, environment, relevant_to
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.images import Image, check_bounded
from tilepipe.models.file import Model, load_model, shipped_models
from tilepipe.text import gigabytes

RATE_SECONDS = 120
"""How long a worker elsewhere may take to time one tile."""


@dataclass(frozen=True, slots=True)
class Site:
    """The place where passes run: a device, its threads, and what its results depend on."""

    device: str
    threads: int
    environment: dict[str, Any]
    memory: int
    """Bytes that a run takes by default: on this machine, or of the worker that has least."""
    client: Any | None = None
    """The Dask client of workers elsewhere, which may have what this machine lacks (a GPU)."""


def make_plan(options: RunOptions) -> tuple[Plan, Estimate]:
    """What `run` would do with these options, and what it would cost; writes nothing.

    Raises
    ------
    InputError
        For everything about image, model or options that a run would refuse.
    """
    with ExitStack() as stack:
        model = load_model(options.model)
        image = open_input(options, model)
        stack.callback(image.close)
        outputs = choose_outputs(options, image, model)
        if options.uses_external_workers:
            client, crew = stack.enter_context(connect(options, to_plan=True))
        else:
            workers = options.workers or max(1, gpus(options))
            in_process = options.workers is None and workers == 1
            check_workers(workers, options.memory or default_memory())
            memory = gpu_memory(gpus(options), workers)
            client, crew = None, Crew(workers, in_process, SLOTS, gpu_memory=memory)
        return new_plan(options, image, model, outputs, crew, survey(options, client, crew))


def new_plan(
    options: RunOptions, image: Image, model: Model, outputs: Outputs, crew: Crew, site: Site
) -> tuple[Plan, Estimate]:
    """The plan of a run that has none yet. Runs the network on one tile, to time it.

    Raises
    ------
    InputError
        When the image has no level for the model, or nothing fits the memory.
    NonFiniteError
        When the network overflows on that tile.
    """
    scale = choose_scale(image, model, options)
    facts = image_facts(image, scale)
    precision = choose_precision(options.precision, site.device, model)
    limit = memory_limit(options, site)
    check_bounded(image, scale.level, limit // 4)
    as_read = at_model_scale(image, facts)

    def memory_of(name: str) -> MemoryModel:
        return MemoryModel(
            as_read, scale.level, model, crew, site.device, precision,
            options.probabilities is not None, name,
        )  # fmt: skip

    runtime = choose_runtime(options.runtime, model)
    model.predictor.check(runtime, site.device, precision)
    memory = memory_of(runtime)
    check_room(model, facts, memory, limit, crew)
    region = find_region(
        image, as_read, scale.level, options, base_pixel_size(image, options),
        model.geometry.stride_factor, limit // 4,
    )  # fmt: skip
    cells = None if region is None else region_of(region, facts.height, facts.width)
    # Tiles framed around a region are of many shapes; a GPU wants one.
    free = options.window == "auto" and not model.predictor.fixed and site.device == "cpu"
    tiling = choose_tiling(model, facts, memory, limit, options, crew, cells, framed=free)
    if region is not None and cells is not None:
        region = replace(region, framed=free and can_be_framed(cells, tiling))

    settings = PassSettings(site.device, precision, site.threads, runtime)
    tile: Sample | None = None
    speed: float | None = None
    try:
        if site.client is None:
            tile = central_tile(as_read, facts, model.geometry)
            speed = None if tile is None else speed_of(model, tile, settings)
        else:
            reference = model_reference(options.model)
            asked = site.client.submit(speed_on_worker, reference, facts, settings, pure=False)
            speed = asked.result(timeout=RATE_SECONDS)
    except TimeoutError:
        speed = None  # the run will report what is wrong with its workers
    except NonFiniteError as error:
        raise NonFiniteError(f"{image.path}: {error}") from error
    choice = RuntimeChoice(runtime)
    # Where workers are elsewhere, this machine's speed tells nothing about theirs. Tiles of a
    # region have many shapes, which torch takes best. In floating-point images an overflow must be
    # noticed, and torch alone keeps a NaN a NaN.
    comparable = (
        options.runtime == "auto" and cells is None and site.device == "cpu" and crew.local
        and precision.agreement is not None and np.dtype(facts.dtype).kind in "ui"
    )  # fmt: skip
    if comparable and tile is not None and speed:
        needed = memory_of(runtime).total(tiling)
        names = fitting(
            model.predictor.alternatives(),
            lambda name: memory_of(name).total(tiling) - needed,
            limit - needed,
        )
        if worth_timing(len(names), tile.area / speed, tiling.work / speed / crew.workers):
            choice = fastest_runtime(model, tile, settings, names)
            memory = memory_of(choice.runtime)
            speed = dict(choice.speeds)[choice.runtime]
    bound = memory.total(tiling)
    mask = mask_spec(image, model, facts, image_stem(str(outputs.shown[0])))
    plan = Plan(
        image=facts,
        model=model_reference(options.model),
        model_fingerprint=model.fingerprint,
        tiling=tiling,
        device=site.device,
        precision=precision,
        threads=site.threads,
        probabilities=options.probabilities,
        mask=mask,
        environment=relevant_to(site.environment, precision)
        | model.predictor.versions(choice.runtime),
        runtime=choice.runtime,
        model_pixel_size=model.input.pixel_size,
        model_bands=model.input.band_names,
        like_image=like_image_spec(image, mask, options) if options.like_image else None,
        region=region,
    )
    seconds = plan.coverage.work / speed / crew.workers if speed else None
    warnings = (
        *plan_warnings(image, model, options, scale), *choice.warnings,
        *beyond_this_machine(plan.threads, crew, site, bound),
    )  # fmt: skip
    return plan, Estimate(bound, limit, seconds, warnings, choice.speeds)


def survey(options: RunOptions, client: Any | None, crew: Crew) -> Site:
    """The device and the threads of a pass, as the workers have them.

    Raises
    ------
    InputError
        When workers elsewhere differ from each other, and that is not allowed.
    """
    if client is None or crew.local:
        device = choose_device(options.device)
        threads = options.threads or max(1, cores() // crew.workers)
        return Site(device, threads, environment(device, threads), default_memory())
    threads = options.threads or crew.threads or crew.slots
    reports = prepare_workers(client, _survey_worker, options.device)
    together = Counter(report["group"] for report in reports)
    if options.threads is None:
        # No more than each has cores, where several share those of one machine or container.
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
    return Site(first["device"], threads, here, memory, client.client)


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


def memory_limit(options: RunOptions, site: Site) -> int:
    """Bytes that a run may take: what the user says, or a share of what is free.

    All processes of this machine together; where the workers are elsewhere, each of them.
    """
    return options.memory or site.memory


def beyond_this_machine(threads: int, crew: Crew, site: Site, bound: int) -> list[str]:
    """Warnings of a plan that takes more cores or memory than this machine lets it have."""
    if not crew.local:
        return []
    grant, found = granted(), []
    if bound > (most := most_memory(grant)):
        where = "control group (a container's, or a job's)" if most == grant.memory else "machine"
        found.append(
            f"the run may take {gigabytes(bound)}, and the {where} has {gigabytes(most)}: it may "
            "be killed on the way; give a smaller --memory"
        )
    if site.device == "cpu" and threads * crew.workers > (usable := cores(grant)):
        several = f"{crew.workers} workers with {threads} threads each"
        found.append(
            f"{several if crew.workers > 1 else f'{threads} threads'} share {usable} "
            f"core{'s' if usable > 1 else ''}, and hold each other up; leave --threads out, or use "
            "fewer --workers"
        )
    return found


def model_reference(name: str) -> str:
    """How every worker finds the model: the name of a shipped one, or an absolute path."""
    return name if name in shipped_models() else absolute(name)


def gpus(options: RunOptions) -> int:
    """GPUs of this machine that the run may use."""
    if options.device == "cpu" or options.uses_external_workers or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.device_count())
