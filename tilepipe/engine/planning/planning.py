"""Making a plan for an image, a model and the workers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tilepipe.engine.cluster.cluster_file import SLOTS
from tilepipe.engine.cluster.connect import connect, gpu_memory
from tilepipe.engine.cluster.failures import out_of_memory
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.hardware import default_memory
from tilepipe.engine.inputs import open_input
from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.plan.coverage import can_be_framed
from tilepipe.engine.plan.plan import ImageFacts, Plan, absolute, at_model_scale
from tilepipe.engine.plan.region import RegionFacts, coverage_of, region_of
from tilepipe.engine.plan.scale import Scale, base_pixel_size, choose_scale
from tilepipe.engine.planning import trial
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.engine.planning.cost import PassCost
from tilepipe.engine.planning.facts import image_facts, like_image_spec, mask_spec
from tilepipe.engine.planning.int8 import MOST_CHANGE, offer
from tilepipe.engine.planning.measured import measurement_key, recall, remember
from tilepipe.engine.planning.objects import object_rule
from tilepipe.engine.planning.precision_trial import Settled, Trial
from tilepipe.engine.planning.region import find_region
from tilepipe.engine.planning.runtime_selection import (
    RuntimeChoice,
    choose_precision,
    choose_runtime,
    fastest_runtime,
    may_time,
    quickest,
    worth_timing,
)
from tilepipe.engine.planning.sizing import MemoryModel, check_room, choose_tiling, smallest
from tilepipe.engine.planning.survey import beyond_this_machine, gpus, memory_limit, survey
from tilepipe.engine.planning.timing import (
    PassSettings,
    Sample,
    central_tile,
    speed_of,
    speed_on_worker,
)
from tilepipe.engine.resources import Estimate, Resources, check_workers
from tilepipe.engine.state.outputs import Outputs, choose_outputs
from tilepipe.engine.work.environment import relevant_to
from tilepipe.errors import NonFiniteError
from tilepipe.grid import Tiling
from tilepipe.images import Image, check_bounded
from tilepipe.models.file import Model, load_model, shipped_models
from tilepipe.products.product import canonical_keys, main_product, product_named
from tilepipe.regions.cells import Region

RATE_SECONDS = 120
"""How long an external worker may take to time one tile."""


def make_plan(options: RunOptions) -> tuple[Plan, Estimate]:
    """The plan of a run with these options, and its cost; writes nothing but the user's cache.

    Raises InputError for everything about image, model or options that a run would refuse.
    """
    found = plan_alone(options)
    return found.plan, found.estimate


def plan_alone(options: RunOptions) -> NewPlan:
    """As `make_plan`, with the model as the run would compute it."""
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


class NewPlan(NamedTuple):
    """The plan of a new run, and what belongs to it."""

    plan: Plan
    estimate: Estimate
    settled: Settled
    """The model as the run computes it, and its quantised network if there is one."""


def new_plan(
    options: RunOptions,
    image: Image,
    model: Model,
    outputs: Outputs,
    resources: Resources,
    workers: Workers | None,
) -> NewPlan:
    """The plan of a new run. Runs the network on one tile, to time it, or on more to quantise it.

    Raises
    ------
    InputError
        When the image does not suit the model, or nothing fits the memory.
    NonFiniteError
        When the network overflows on that tile.
    """
    return _Planner(options, image, model, outputs, resources, workers).plan()


@dataclass(frozen=True)
class _Planner:
    """The inputs of a plan, and the decisions that follow from them."""

    options: RunOptions
    image: Image
    model: Model
    outputs: Outputs
    resources: Resources
    workers: Workers | None

    def plan(self) -> NewPlan:
        check_bounded(self.image, self.scale.level, self.limit // 4)
        model, options, resources = self.settled.model, self.options, self.resources
        facts, precision = self.facts, self.settings.precision
        model.predictor.check(self.settings.runtime, resources.device, precision)
        memory = self.memory_of(self.settings.runtime)
        check_room(model, facts, memory, self.limit, resources)
        choice, way, tried = self._choose(memory)
        region, tiling = way.region, way.tiling
        name = image_stem(str(self.outputs.requested[0]))
        mask = mask_spec(self.image, model, facts, name, options.ngff or "0.5")
        plan = Plan(
            image=facts, model=model_reference(options.model),
            model_fingerprint=self.model.fingerprint,
            tiling=tiling, device=resources.device, precision=precision, threads=resources.threads,
            probabilities=options.stored_probabilities,
            products=canonical_keys(options.further_products), mask=mask,
            channels=options.channels,
            environment=relevant_to(resources.environment, precision)
            | model.predictor.versions(choice.runtime),
            runtime=choice.runtime, model_pixel_size=model.input.pixel_size,
            model_bands=model.input.band_names, region=region,
            like_image=like_image_spec(self.image, mask, options, self.outputs)
            if options.on_image_grid else None,
            objects=object_rule(options, model, mask, self.outputs.has_objects),
            network=self.settled.network_hash, change=self.settled.change,
        )  # fmt: skip
        # Not measured again where it need not be: timing has grown this process.
        bound = (self.memory_of(choice.runtime) if choice.speeds else memory).total(tiling)
        warnings = (
            *plan_warnings(self.image, model, options, self.scale), *self.settled.warnings, *tried,
            *choice.warnings, *beyond_this_machine(plan.threads, resources, bound),
        )  # fmt: skip
        speeds = self.settled.speeds or choice.speeds
        offered = None
        if options.precision == "auto":
            offered = offer(model, facts, resources, way.seconds)
        return NewPlan(
            plan, Estimate(bound, self.limit, way.seconds, warnings, speeds, offered), self.settled
        )

    @cached_property
    def scale(self) -> Scale:
        return choose_scale(self.image, self.model, self.options)

    @cached_property
    def facts(self) -> ImageFacts:
        return image_facts(self.image, self.scale)

    @cached_property
    def as_read(self) -> Image:
        return at_model_scale(self.image, self.facts)

    @cached_property
    def region(self) -> RegionFacts | None:
        return find_region(
            self.image, self.as_read, self.scale.level, self.options,
            base_pixel_size(self.image, self.options), self.model.geometry.stride_factor,
            self.limit // 4,
        )  # fmt: skip

    @cached_property
    def cells(self) -> Region | None:
        facts = self.facts
        return None if self.region is None else region_of(self.region, facts.height, facts.width)

    @cached_property
    def settled(self) -> Settled:
        """The precision and runtime as asked for, or as a trial of them came out."""
        options = self.options
        if options.precision not in MOST_CHANGE:
            return Settled(self.model, options.precision, options.runtime)
        return Trial(
            options, self.model, self.as_read, self.facts, self.cells, self.resources, self.limit
        ).settle()

    @cached_property
    def settings(self) -> PassSettings:
        """The settings of a pass, with the network's reference runtime if none is given."""
        device, threads, settled = self.resources.device, self.resources.threads, self.settled
        precision = choose_precision(settled.precision, device, settled.model)
        return PassSettings(
            device, precision, threads, choose_runtime(settled.runtime, settled.model)
        )

    @property
    def limit(self) -> int:
        return memory_limit(self.options, self.resources)

    def memory_of(self, runtime: str) -> MemoryModel:
        return MemoryModel(
            self.as_read, self.scale.level, self.settled.model, self.resources,
            self.resources.device, self.settings.precision, self.options.extras, runtime,
        )  # fmt: skip

    def _way_that_runs(self, memory: MemoryModel) -> tuple[_Way, list[str]]:
        """The reference's windows, of which a GPU has computed one; and what to warn of."""
        runtime, cost = self.settings.runtime, PassCost.guess(self.model.geometry.shrink)
        way = first = self._way(memory, runtime, cost)
        fixed = self.model.predictor.fixed
        while self.resources.device != "cpu" and not self._computes(way.tiling):
            memory = trial.smaller(memory, way.tiling, self.options.window, fixed=fixed)
            way = self._way(memory, runtime, cost)
        warnings = [trial.warning(first.tiling, way.tiling)] if way is not first else []
        return way, warnings

    def _computes(self, tiling: Tiling) -> bool:
        products = (main_product(self.model.output), *map(product_named, self.options.extras))
        if self.resources.local or self.workers is None:
            return trial.computes(self.model, self.facts, tiling, self.settings, products)
        try:
            reference = model_reference(self.options.model)
            return bool(
                self.workers.client.submit(
                    trial.computes_on_worker, reference, self.facts, tiling, self.settings,
                    products, pure=False,
                ).result(timeout=RATE_SECONDS)
            )  # fmt: skip
        except TimeoutError:
            return True  # the run will report what is wrong with its workers

    def _choose(self, memory: MemoryModel) -> tuple[RuntimeChoice, _Way, list[str]]:
        """The runtime and the windows with which the run takes least time; and what to warn of."""
        reference, geometry = self.settings.runtime, self.model.geometry
        way, warnings = self._way_that_runs(memory)
        tile, speed = self._time_a_pass()
        if not speed:
            return RuntimeChoice(reference), way, warnings
        side = geometry.input_for(geometry.step)
        cost = PassCost.guess(geometry.shrink, (side, side), side * side / speed)
        seconds = self._seconds(way, cost)
        choice = None if tile is None else self._measured(tile, cost, seconds)
        if choice is None:
            return RuntimeChoice(reference), replace(way, seconds=seconds), warnings
        ways = {}
        for name, cost in choice.costs:
            if name == reference or self._has_room(name):
                other = self._way(memory if name == reference else self.memory_of(name), name, cost)
                ways[name] = replace(other, seconds=self._seconds(other, cost))
        runtime = quickest(reference, {name: way.seconds or 0.0 for name, way in ways.items()})
        return replace(choice, runtime=runtime), ways[runtime], warnings

    def _seconds(self, way: _Way, cost: PassCost) -> float:
        """The time of all passes."""
        return cost.total(coverage_of(way.tiling, way.region).windows) / self.resources.workers

    def _measured(self, tile: Sample, cost: PassCost, seconds: float) -> RuntimeChoice | None:
        """What passes cost, remembered or timed; None where that is not worth its time.

        As far as is known, passes have this cost, and a run takes so many seconds.
        """
        model, settings = self.settled.model, self.settings
        predictor = model.predictor
        if settings.device != "cpu" or settings.precision.agreement is None or not may_time():
            return None
        # In floating-point images an overflow must be noticed, and only torch keeps NaN as NaN.
        others = self.settled.runtime == "auto" and np.dtype(self.facts.dtype).kind in "ui"
        names = [name for name in predictor.alternatives() if others and self._has_room(name)]
        key = measurement_key(
            model=model.fingerprint,
            settings=settings,
            names=names,
            window=tile.pixels.shape,
            environment=self.resources.environment,
            versions=[predictor.versions(name) for name in (settings.runtime, *names)],
        )
        choice = recall(key)
        pass_seconds = cost.seconds(*tile.pixels.shape[:2])
        if choice is None and worth_timing(len(names), pass_seconds, seconds):
            choice = fastest_runtime(model, tile, settings, names)
            remember(key, choice)
        return choice

    def _way(self, memory: MemoryModel, runtime: str, cost: PassCost) -> _Way:
        """The windows with which a runtime takes least time."""
        options, facts, cells = self.options, self.facts, self.cells
        model = self.settled.model
        # Tiles cut to a region have many shapes. A GPU wants one, as does a quantised network, and
        # torch.compile needs it.
        free = options.window == "auto" and not model.predictor.fixed
        free = free and self.resources.device == "cpu" and runtime != "compile"
        free = free and self.settled.network is None
        tiling = choose_tiling(
            model, facts, memory, self.limit, options, self.resources, cells,
            framed=free, cost=cost,
        )  # fmt: skip
        region = self.region
        if region is not None and cells is not None:
            region = replace(region, framed=free and can_be_framed(cells, tiling))
        return _Way(tiling, region)

    def _has_room(self, runtime: str) -> bool:
        """Whether anything fits the memory with a runtime."""
        return self.memory_of(runtime).fits(smallest(self.model, self.facts), self.limit)

    def _time_a_pass(self) -> tuple[Sample | None, float | None]:
        """A tile of the image, if passes run on this machine, and input pixels per second."""
        try:
            if self.resources.local or self.workers is None:
                tile = central_tile(self.as_read, self.facts, self.model.geometry)
                model = self.settled.model
                speed = None if tile is None else speed_of(model, tile, self.settings)
                return tile, speed
            reference = model_reference(self.options.model)
            asked = self.workers.client.submit(
                speed_on_worker, reference, self.facts, self.settings, self.settled.network,
                pure=False,
            )  # fmt: skip
            return None, asked.result(timeout=RATE_SECONDS)
        except TimeoutError:
            return None, None  # the run will report what is wrong with its workers
        except NonFiniteError as error:
            raise NonFiniteError(f"{self.facts.path}: {error}") from error
        except Exception as error:
            if self.settings.device == "cpu" or not out_of_memory(error):
                raise
            return None, None  # the window of the plan has been tried


@dataclass(frozen=True, slots=True)
class _Way:
    """The windows of a run, and the time that it takes."""

    tiling: Tiling
    region: RegionFacts | None
    seconds: float | None = None
    """Of all passes; None if none could be timed."""


def model_reference(name: str) -> str:
    """The name of a shipped model, or the absolute path at which every worker finds the model."""
    return name if name in shipped_models() else absolute(name)
