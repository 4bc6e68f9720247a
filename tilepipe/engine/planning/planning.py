"""Making a plan: the image, the model and the place where passes run, brought together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from tilepipe._torch import torch
from tilepipe.engine.cluster.cluster_file import SLOTS
from tilepipe.engine.cluster.connect import connect, gpu_memory
from tilepipe.engine.cluster.workers import Workers
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
    ImageFacts,
    Plan,
    absolute,
    at_model_scale,
    describe_differences,
)
from tilepipe.engine.plan.region import region_of
from tilepipe.engine.plan.scale import base_pixel_size, choose_scale
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.engine.planning.facts import image_facts, like_image_spec, mask_spec
from tilepipe.engine.planning.region import find_region
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
from tilepipe.engine.resources import Estimate, Resources, check_workers
from tilepipe.engine.state.outputs import Outputs, choose_outputs
from tilepipe.engine.work.environment import choose_device, environment, relevant_to
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.grid import Tiling
from tilepipe.images import Image, check_bounded
from tilepipe.models.file import Model, load_model, shipped_models
from tilepipe.text import gigabytes

RATE_SECONDS = 120
"""How long a worker elsewhere may take to time one tile."""


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
            workers, resources = stack.enter_context(connect(options, to_plan=True))
        else:
            count = options.workers or max(1, gpus(options))
            in_process = options.workers is None and count == 1
            check_workers(count, options.memory or default_memory())
            memory = gpu_memory(gpus(options), count)
            workers, resources = None, Resources(count, in_process, SLOTS, gpu_memory=memory)
        resources = survey(options, workers, resources)
        return new_plan(options, image, model, outputs, resources, workers)


def new_plan(
    options: RunOptions,
    image: Image,
    model: Model,
    outputs: Outputs,
    resources: Resources,
    workers: Workers | None,
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
    precision = choose_precision(options.precision, resources.device, model)
    limit = memory_limit(options, resources)
    check_bounded(image, scale.level, limit // 4)
    as_read = at_model_scale(image, facts)

    def memory_of(name: str) -> MemoryModel:
        return MemoryModel(
            as_read, scale.level, model, resources, resources.device, precision,
            options.extras, name,
        )  # fmt: skip

    runtime = choose_runtime(options.runtime, model)
    model.predictor.check(runtime, resources.device, precision)
    memory = memory_of(runtime)
    check_room(model, facts, memory, limit, resources)
    region = find_region(
        image, as_read, scale.level, options, base_pixel_size(image, options),
        model.geometry.stride_factor, limit // 4,
    )  # fmt: skip
    cells = None if region is None else region_of(region, facts.height, facts.width)
    # Tiles framed around a region are of many shapes; a GPU wants one.
    free = options.window == "auto" and not model.predictor.fixed and resources.device == "cpu"
    tiling = choose_tiling(model, facts, memory, limit, options, resources, cells, framed=free)
    if region is not None and cells is not None:
        region = replace(region, framed=free and can_be_framed(cells, tiling))

    settings = PassSettings(resources.device, precision, resources.threads, runtime)
    tile, speed = _time_a_pass(as_read, facts, options, model, settings, resources, workers)
    choice = RuntimeChoice(runtime)
    # Tiles of a region have many shapes, which torch takes best. In floating-point images an
    # overflow must be noticed, and torch alone keeps a NaN a NaN.
    comparable = cells is None and np.dtype(facts.dtype).kind in "ui"
    if options.runtime == "auto" and comparable and tile is not None and speed:
        choice = _compare_runtimes(
            model, tile, speed, settings, tiling, resources, memory_of, limit
        )
        if choice.speeds:
            memory = memory_of(choice.runtime)
            speed = dict(choice.speeds)[choice.runtime]
    bound = memory.total(tiling)
    mask = mask_spec(image, model, facts, image_stem(str(outputs.requested[0])))
    plan = Plan(
        image=facts,
        model=model_reference(options.model),
        model_fingerprint=model.fingerprint,
        tiling=tiling,
        device=resources.device,
        precision=precision,
        threads=resources.threads,
        probabilities=options.probabilities,
        products=options.products,
        mask=mask,
        environment=relevant_to(resources.environment, precision)
        | model.predictor.versions(choice.runtime),
        runtime=choice.runtime,
        model_pixel_size=model.input.pixel_size,
        model_bands=model.input.band_names,
        like_image=like_image_spec(image, mask, options) if options.like_image else None,
        region=region,
    )
    seconds = plan.coverage.work / speed / resources.workers if speed else None
    warnings = (
        *plan_warnings(image, model, options, scale), *choice.warnings,
        *beyond_this_machine(plan.threads, resources, bound),
    )  # fmt: skip
    return plan, Estimate(bound, limit, seconds, warnings, choice.speeds)


def _time_a_pass(
    as_read: Image,
    facts: ImageFacts,
    options: RunOptions,
    model: Model,
    settings: PassSettings,
    resources: Resources,
    workers: Workers | None,
) -> tuple[Sample | None, float | None]:
    """A tile of the image, where passes run in this machine, and input pixels per second of a pass.

    Raises
    ------
    NonFiniteError
        When the network overflows on the tile.
    """
    try:
        if resources.local or workers is None:
            tile = central_tile(as_read, facts, model.geometry)
            return tile, None if tile is None else speed_of(model, tile, settings)
        reference = model_reference(options.model)
        asked = workers.client.submit(speed_on_worker, reference, facts, settings, pure=False)
        return None, asked.result(timeout=RATE_SECONDS)
    except TimeoutError:
        return None, None  # the run will report what is wrong with its workers
    except NonFiniteError as error:
        raise NonFiniteError(f"{facts.path}: {error}") from error


def _compare_runtimes(
    model: Model,
    tile: Sample,
    speed: float,
    settings: PassSettings,
    tiling: Tiling,
    resources: Resources,
    memory_of: Callable[[str], MemoryModel],
    limit: int,
) -> RuntimeChoice:
    """The fastest of the runtimes that fit the memory, where it pays to time them."""
    reference = RuntimeChoice(settings.runtime)
    if settings.device != "cpu" or settings.precision.agreement is None:
        return reference
    needed = memory_of(settings.runtime).total(tiling)
    names = fitting(
        model.predictor.alternatives(),
        lambda name: memory_of(name).total(tiling) - needed,
        limit - needed,
    )
    run_seconds = tiling.work / speed / resources.workers
    if not worth_timing(len(names), tile.area / speed, run_seconds):
        return reference
    return fastest_runtime(model, tile, settings, names)


def survey(options: RunOptions, workers: Workers | None, resources: Resources) -> Resources:
    """The device and the threads of a pass, as the workers have them.

    Raises
    ------
    InputError
        When workers elsewhere differ from each other, and that is not allowed.
    """
    if workers is None or resources.local:
        device = choose_device(options.device)
        threads = options.threads or max(1, cores() // resources.workers)
        return replace(
            resources,
            device=device,
            threads=threads,
            memory=default_memory(),
            environment=environment(device, threads),
        )
    threads = options.threads or resources.threads or resources.slots
    reports = workers.ask(_survey_worker, options.device)
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


def memory_limit(options: RunOptions, resources: Resources) -> int:
    """Bytes that a run may take: what the user says, or a share of what is free.

    All processes of this machine together; where the workers are elsewhere, each of them.
    """
    return options.memory or resources.memory


def beyond_this_machine(threads: int, resources: Resources, bound: int) -> list[str]:
    """Warnings of a plan that takes more cores or memory than this machine lets it have."""
    if not resources.local:
        return []
    grant, found = granted(), []
    if bound > (most := most_memory(grant)):
        where = "control group (a container's, or a job's)" if most == grant.memory else "machine"
        found.append(
            f"the run may take {gigabytes(bound)}, and the {where} has {gigabytes(most)}: it may "
            "be killed on the way; give a smaller --memory"
        )
    if resources.device == "cpu" and threads * resources.workers > (usable := cores(grant)):
        several = f"{resources.workers} workers with {threads} threads each"
        found.append(
            f"{several if resources.workers > 1 else f'{threads} threads'} share {usable} "
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
