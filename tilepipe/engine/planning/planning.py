"""Making a plan for an image, a model and the workers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tilepipe.engine.cluster.connect import connect, local_resources
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.inputs import model_reference, open_input
from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.plan.plan import ImageFacts, Plan, at_model_scale
from tilepipe.engine.plan.region import RegionFacts, region_of
from tilepipe.engine.plan.scale import Scale, base_pixel_size, choose_scale
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.engine.planning.facts import image_facts, like_image_spec, mask_spec
from tilepipe.engine.planning.int8 import MOST_CHANGE, offer
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.objects import object_rule
from tilepipe.engine.planning.passes import Passes
from tilepipe.engine.planning.precision_trial import Settled, Trial
from tilepipe.engine.planning.region import find_region
from tilepipe.engine.planning.runtime_selection import (
    choose_precision,
    choose_runtime,
)
from tilepipe.engine.planning.sizing import check_room
from tilepipe.engine.planning.survey import (
    beyond_this_machine,
    gpus,
    memory_limit,
    require_precision,
    survey,
)
from tilepipe.engine.planning.timing import (
    PassSettings,
)
from tilepipe.engine.resources import Estimate, Resources
from tilepipe.engine.state.outputs import Outputs, choose_outputs
from tilepipe.engine.work.environment import relevant_to
from tilepipe.images import Image, check_bounded
from tilepipe.models.file import Model, load_model
from tilepipe.products.product import canonical_keys
from tilepipe.regions.cells import Region


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
            workers, resources = None, local_resources(options, gpus(options))
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
        require_precision(options, model, resources, precision, self.settings.runtime)
        memory = self.memory_of(self.settings.runtime)
        check_room(model, facts, memory, self.limit, resources)  # before any of it is read
        choice, way, tried = self.passes.choose(memory)
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
        memory = self.memory_of(choice.runtime) if choice.speeds else memory
        slots = memory.slots(tiling, self.limit)
        bound = memory.with_slots(slots).total(tiling)
        warnings = (
            *plan_warnings(self.image, model, options, self.scale), *self.settled.warnings, *tried,
            *choice.warnings, *beyond_this_machine(plan.threads, resources, bound),
        )  # fmt: skip
        speeds = self.settled.speeds or choice.speeds
        offered = None
        if options.precision == "auto":
            offered = offer(model, facts, resources, way.seconds)
        return NewPlan(
            plan,
            Estimate(bound, self.limit, way.seconds, warnings, speeds, slots, offered),
            self.settled,
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
            self.as_read, self.facts.level, self.settled.model, self.resources,
            self.resources.device, self.settings.precision, self.options.extras, runtime,
        )  # fmt: skip

    @property
    def passes(self) -> Passes:
        return Passes(
            self.options, self.as_read, self.facts, self.settled, self.settings, self.region,
            self.cells, self.resources, self.limit, self.memory_of, self.workers,
        )  # fmt: skip
