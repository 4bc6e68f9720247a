"""How the passes of a run are computed: in which windows, by which runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tilepipe.engine.cluster.failures import out_of_memory
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.inputs import model_reference
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.coverage import can_be_framed
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.plan.region import RegionFacts, coverage_of
from tilepipe.engine.planning import trial
from tilepipe.engine.planning.cost import PassCost, Timing
from tilepipe.engine.planning.measured import measurement_key, recall, remember
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.precision_trial import Settled
from tilepipe.engine.planning.runtime_selection import (
    RuntimeChoice,
    fastest_runtime,
    larger_to_time,
    may_time,
    quickest,
    worth_timing,
)
from tilepipe.engine.planning.sizing import choose_tiling, smallest
from tilepipe.engine.planning.timing import (
    PassSettings,
    central_tile,
    speed_of,
    speed_on_worker,
    time_larger,
)
from tilepipe.engine.planning.trial import Tried
from tilepipe.engine.resources import Resources
from tilepipe.engine.work.torch_facts import is_loaded
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.grid import Tiling, paper_tiling
from tilepipe.images import Image
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model
from tilepipe.products.product import main_product, product_named
from tilepipe.regions.cells import Region

RATE_SECONDS = 120
"""How long an external worker may take to time one tile."""


@dataclass(frozen=True, slots=True)
class Way:
    """The windows of a run, and the time that it takes."""

    tiling: Tiling
    region: RegionFacts | None
    seconds: float | None = None
    """Of all passes; None if none could be timed."""


@dataclass(frozen=True)
class Passes:
    """What the choice of windows and runtime depends on."""

    options: RunOptions
    image: Image
    """As the run reads it, at the level of ``facts``."""
    facts: ImageFacts
    settled: Settled
    settings: PassSettings
    """With the network's reference runtime if none is given."""
    region: RegionFacts | None
    cells: Region | None
    resources: Resources
    limit: int
    """Bytes of memory that the run may take."""
    memory_of: Callable[[str], MemoryModel]
    """The memory that windows need with a runtime."""
    workers: Workers | None
    """None: there are none yet, and passes are tried in this process."""

    @property
    def model(self) -> Model:
        """The model as the run computes it."""
        return self.settled.model

    def _way_that_runs(self, memory: MemoryModel) -> tuple[Way, list[str]]:
        """The reference's windows, of which a GPU has computed one; and what to warn of.

        Their time is known where this process has computed one.
        """
        runtime, cost = self.settings.runtime, PassCost.guess(self.model.geometry.shrink)
        way = first = self._way(memory, runtime, cost)
        if self.resources.device == "cpu":
            return way, []
        fixed = self.model.predictor.fixed
        while not (tried := self._try(way.tiling)).fits:
            memory = trial.smaller(memory, way.tiling, self.options.window, fixed=fixed)
            way = self._way(memory, runtime, cost)
        warnings = [trial.warning(first.tiling, way.tiling)] if way is not first else []
        if tried.seconds is not None:
            cost = PassCost.guess(self.model.geometry.shrink, way.tiling.input, tried.seconds)
            way = replace(way, seconds=self._seconds(way, cost))
        return way, warnings

    def _try(self, tiling: Tiling) -> Tried:
        """Compute a window of a tiling on a GPU."""
        products = (main_product(self.model.output), *map(product_named, self.options.extras))
        if self.resources.local or self.workers is None:
            tile = central_tile(self.image, self.facts, self.model.geometry)
            window = trial.window_of(tiling, self.facts, tile)
            try:
                return trial.try_window(self.model, window, self.settings, products)
            except NonFiniteError as error:
                if tile is None:
                    return Tried(fits=True)  # of zeros; the run looks at every window of its own
                raise NonFiniteError(f"{self.facts.path}: {error}") from error
        try:
            reference = model_reference(self.options.model)
            fits = self.workers.client.submit(
                trial.fits_on_worker, reference, self.facts, tiling, self.settings, products,
                pure=False,
            ).result(timeout=RATE_SECONDS)  # fmt: skip
            return Tried(bool(fits))
        except TimeoutError:
            return Tried(fits=True)  # the run will report what is wrong with its workers

    def choose(self, memory: MemoryModel) -> tuple[RuntimeChoice, Way, list[str]]:
        """The runtime and the windows with which the run takes least time; and what to warn of."""
        reference, geometry = self.settings.runtime, self.model.geometry
        way, warnings = self._way_that_runs(memory)
        if way.seconds is not None:
            return RuntimeChoice(reference), way, warnings
        names = self._others
        key = self._measurement(names)
        choice = None if key is None else recall(key)
        if choice is None:
            speed = self._speed()
            if not speed:
                return RuntimeChoice(reference), way, warnings
            side = geometry.input_for(geometry.step)
            cost = PassCost.guess(geometry.shrink, (side, side), side * side / speed)
            seconds, of_pass = self._seconds(way, cost), cost.seconds(side, side)
            worth = key is not None and worth_timing(len(names), of_pass, seconds)
            tile = central_tile(self.image, self.facts, geometry) if worth else None
            if key is None or tile is None:
                return RuntimeChoice(reference), replace(way, seconds=seconds), warnings
            choice = fastest_runtime(self.model, tile, self.settings, names)
            remember(key, choice)
        assert key is not None, "what was measured has a name"
        return (*self._quickest(choice, key, memory), warnings)

    def _quickest(
        self, choice: RuntimeChoice, key: str, memory: MemoryModel
    ) -> tuple[RuntimeChoice, Way]:
        """The runtime and windows of least time; in a long run, larger ones are timed for it."""
        reference = self.settings.runtime

        def way_of(runtime: str, cost: PassCost) -> Way:
            room = memory if runtime == reference else self.memory_of(runtime)
            way = self._way(room, runtime, cost)
            return replace(way, seconds=self._seconds(way, cost))

        ways = {
            name: way_of(name, cost)
            for name, cost in choice.costs
            if name == reference or self._has_room(name)
        }
        while True:
            seconds_of = {name: way.seconds or 0.0 for name, way in ways.items()}
            runtime = quickest(reference, seconds_of, loaded=is_loaded())
            cost = dict(choice.costs)[runtime]
            timing = self._time_larger(cost, ways[runtime], runtime)
            if timing is None:
                return replace(choice, runtime=runtime), ways[runtime]
            choice = choice.with_timing(runtime, timing)
            remember(key, choice)
            ways[runtime] = way_of(runtime, cost.with_timing(timing))

    def _time_larger(self, cost: PassCost, way: Way, runtime: str) -> Timing | None:
        """How long a larger window takes than was timed; None if it is not worth knowing."""
        model, facts = self.model, self.facts
        if self.options.window != "auto" or model.predictor.fixed:
            return None
        if all(cost.knows(*window) for window in coverage_of(way.tiling, way.region).windows):
            return None  # what the run takes as it is has no larger ones
        size = facts.height, facts.width
        keep = larger_to_time(cost, model.geometry, size, way.seconds or 0.0)
        if keep is None:
            return None
        tiling = paper_tiling(*size, model.geometry, model.geometry.input_for(keep))
        if not self.memory_of(runtime).fits(tiling, self.limit):
            return None
        tile = central_tile(self.image, facts, model.geometry)
        if tile is None:
            return None
        try:
            return time_larger(model, tile, self.settings._replace(runtime=runtime), keep)
        except (InputError, RuntimeError):
            return None  # the run itself will tell, if it takes such windows

    def _seconds(self, way: Way, cost: PassCost) -> float:
        """The time of all passes."""
        windows = coverage_of(way.tiling, way.region).windows
        return cost.total(windows) / self.resources.workers + cost.fresh(windows)

    @property
    def _others(self) -> list[str]:
        """The runtimes that may be timed against the reference."""
        # In floating-point images an overflow must be noticed, and only torch keeps NaN as NaN.
        if np.dtype(self.facts.dtype).kind not in "ui":
            return []
        if self.settled.runtime != "auto" or self.settings.device != "cpu":
            return []
        return [name for name in self.model.predictor.alternatives() if self._has_room(name)]

    def _measurement(self, names: list[str] | None) -> str | None:
        """The name under which it is remembered what passes cost; None where it is not.

        They are timed by the reference and the runtimes named; None: by the reference, one size.
        """
        model, settings = self.model, self.settings
        here = self.resources.local or self.workers is None
        if not here or settings.device != "cpu" or not may_time():
            return None
        # What int8 overflows it does not tell, so there is no use in trying it on each image.
        alone = settings.precision is Precision.INT8 and not names
        if settings.precision.agreement is None and not alone:
            return None
        side = model.geometry.input_for(model.geometry.step)
        timed = (settings.runtime, *(names or ()))
        return measurement_key(
            model=model.fingerprint,
            settings=settings,
            names=names,
            window=(side, side, self.facts.bands),
            environment=self.resources.environment,
            versions=[model.predictor.versions(name) for name in timed],
        )

    def _way(self, memory: MemoryModel, runtime: str, cost: PassCost) -> Way:
        """The windows with which a runtime takes least time."""
        options, model, facts, cells = self.options, self.model, self.facts, self.cells
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
        return Way(tiling, region)

    def _has_room(self, runtime: str) -> bool:
        """Whether anything fits the memory with a runtime."""
        return self.memory_of(runtime).fits(smallest(self.model, self.facts), self.limit)

    def _speed(self) -> float | None:
        """Input pixels per second of the reference, remembered or timed; None if it cannot be."""
        reference, key = self.settings.runtime, self._measurement(None)
        known = None if key is None else recall(key)
        if known is not None:
            return dict(known.speeds)[reference]
        speed = self._time_a_pass()
        if key is not None and speed:
            remember(key, RuntimeChoice(reference, ((reference, speed),)))
        return speed

    def _time_a_pass(self) -> float | None:
        """Input pixels per second of a pass on a tile of the image; None if it cannot be timed."""
        try:
            if self.resources.local or self.workers is None:
                tile = central_tile(self.image, self.facts, self.model.geometry)
                return None if tile is None else speed_of(self.model, tile, self.settings)
            reference = model_reference(self.options.model)
            asked = self.workers.client.submit(
                speed_on_worker, reference, self.facts, self.settings, self.settled.network,
                pure=False,
            )  # fmt: skip
            found: float | None = asked.result(timeout=RATE_SECONDS)
            return found
        except TimeoutError:
            return None  # the run will report what is wrong with its workers
        except NonFiniteError as error:
            raise NonFiniteError(f"{self.facts.path}: {error}") from error
        except Exception as error:
            if self.settings.device == "cpu" or not out_of_memory(error):
                raise
            return None  # the window of the plan has been tried
