"""``--precision int8`` and ``fastest``: quantising and measuring on tiles of the image.

What comes of it is frozen with the plan: the precision, the quantised network by its hash, and how
far its labels are from fp32's. A resumed run tries nothing again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tilepipe.engine.hardware import bf16_in_hardware
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.label_change import LabelChange, percent
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.planning.agreement import check_agreement
from tilepipe.engine.planning.int8 import allowed_change, obstacle
from tilepipe.engine.planning.quantising import (
    CALIBRATING,
    MEASURING,
    int8_settings,
    labels_of,
    network_inputs,
    reference_settings,
)
from tilepipe.engine.planning.runtime_selection import MIN_SPEEDUP, fastest_runtime
from tilepipe.engine.planning.tiles import TrialTiles, read_tiles
from tilepipe.engine.planning.timing import PassSettings, speed_of
from tilepipe.engine.resources import Resources
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.images import Image
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.quantised import network_hash, with_network
from tilepipe.models.quantise import missing_package, quantised, require_packages
from tilepipe.models.specs import Model
from tilepipe.regions.cells import Region
from tilepipe.text import gigabytes

LIVE, WEIGHTS, ROOM = 4, 6, 60 * 10**6
"""Bounds of the memory that quantising takes: of the live tensors of a pass in float32, of the
weights, and bytes besides."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A precision, and what a plan needs to compute in it."""

    model: Model
    """The model; its network is quantised, if that is the precision."""
    precision: str
    """As options have it, as is the runtime."""
    runtime: str
    network: bytes | None = None
    """The quantised network."""
    change: LabelChange | None = None
    speeds: tuple[tuple[str, float], ...] = ()
    """Input pixels per second of each precision that was timed."""
    warnings: tuple[str, ...] = ()

    @property
    def network_hash(self) -> str | None:
        """The hash of the quantised network, by which the plan knows it."""
        return None if self.network is None else network_hash(self.network)


@dataclass(frozen=True)
class Trial:
    """A network, and the image on which precisions of it are tried."""

    options: RunOptions
    model: Model
    image: Image
    """As the run reads it, at the level of ``facts``."""
    facts: ImageFacts
    region: Region | None
    resources: Resources
    limit: int
    """Bytes of memory that the run may take."""

    def settle(self) -> Settled:
        """Quantise and measure, and for ``fastest`` choose.

        Raises
        ------
        InputError
            Where the precision is impossible here, or changes more labels than may be.
        NonFiniteError
            Where the network overflows on a tile.
        """
        try:
            if self.options.precision == "fastest":
                return self._fastest()
            int8 = self._int8()
        except NonFiniteError as error:
            raise NonFiniteError(f"{self.facts.path}: {error}") from error
        most = allowed_change(self.options)
        if int8.change is not None and int8.change.share > most:
            raise InputError(
                f"precision int8: does not suit model {self.model.name} on {self.facts.path}: "
                f"{int8.change}, and {percent(most)} may; use --precision fp32, or allow "
                "more with --max-label-change"
            )
        return int8

    def _int8(self) -> Settled:
        """The quantised network, and what it changes; InputError where there can be none."""
        options, facts = self.options, self.facts
        reason = obstacle(self.model, facts, self.resources.device, options.runtime)
        if reason is not None:
            raise InputError(f"precision int8: {reason}")
        if self.model.int8 is None:
            return self._of_image()
        settled = self._with(self.model.int8.content, calibrated_here=False)
        change = settled.change
        if change is None or change.share <= allowed_change(options) or missing_package():
            return settled
        warning = (
            f"with the int8 network that comes with model {self.model.name}, {change.figures} "
            "here, so another was made on tiles of this image"
        )
        settled = self._of_image()
        return replace(settled, warnings=(warning, *settled.warnings))

    def _of_image(self) -> Settled:
        """A network quantised on tiles of this image."""
        require_packages("precision int8")
        self._check_memory()
        self._check_agreement()
        content = quantised(
            self.model.predictor.graph(), network_inputs(self.model, self._tiles.calibrating),
            saturates=self._machine.startswith("x86") and not self._instructions,
        )  # fmt: skip
        return self._with(content, calibrated_here=True)

    def _with(self, content: bytes, *, calibrated_here: bool) -> Settled:
        """A quantised network, and what it changes on this image."""
        model = with_network(self.model, content)
        change = self._change(model, int8_settings(self.resources.threads))
        warnings = [] if self._instructions else [
            "there are no instructions for int8 (VNNI) here: it works, but the speed-up is smaller"
        ]  # fmt: skip
        if self._tiles.plain or change.dice is None:
            done = "calibrated and compared" if calibrated_here else "compared with fp32"
            warnings.append(
                f"int8 was {done} on tiles that hold nothing but background: where the image holds "
                "more, labels may differ more from fp32's; give a --region or --tissue that does"
            )
        return Settled(model, "int8", "openvino", content, change, warnings=tuple(warnings))

    def _fastest(self) -> Settled:
        """The fastest precision whose labels change little enough; fp32 if none is faster."""
        self._check_fastest()
        tile, model, runtime = self._tiles.measuring[0], self.model, self.options.runtime
        named = runtime != "auto"
        # As for a runtime that is chosen by itself: see `Passes`.
        others = model.predictor.alternatives() if self._is_integer and not named else ()
        settled: list[Settled] = []
        speeds: dict[str, float] = {}
        warnings: list[str] = []
        possible = model.predictor.precisions("cpu")
        floats = [Precision.FP32, *([Precision.BF16] if bf16_in_hardware() else [])]
        for precision in (each for each in floats if each in possible):
            first = self._settings(precision, runtime if named else model.predictor.runtimes[0])
            model.predictor.check(first.runtime, first.device, precision)
            choice = fastest_runtime(model, tile, first, others)
            warnings += choice.warnings
            speeds[str(precision)] = dict(choice.speeds)[choice.runtime]
            change = None
            if precision is not Precision.FP32:
                change = self._change(model, first._replace(runtime=choice.runtime))
            settled.append(Settled(model, precision, choice.runtime, change=change))
        try:
            int8 = self._int8()
            speeds["int8"] = speed_of(int8.model, tile, int8_settings(self.resources.threads))
            settled.append(int8)
        except InputError as error:
            if isinstance(error, NonFiniteError):
                raise
            warnings.append(f"{error} (left out)")
        best, fp32 = settled[0], speeds["fp32"]
        for each in settled[1:]:
            if each.change is not None and each.change.share > allowed_change(self.options):
                warnings.append(f"precision {each.precision} is left out: {each.change}")
            elif speeds[each.precision] > max(MIN_SPEEDUP * fp32, speeds[best.precision]):
                best = each
        return replace(best, speeds=tuple(speeds.items()), warnings=(*warnings, *best.warnings))

    def _check_fastest(self) -> None:
        """Refuse where a choice by speed and labels means nothing."""
        if self.resources.device != "cpu":
            raise InputError(
                "precision fastest: chooses on CPUs only; on a GPU leave --precision out (fp16)"
            )
        if not self.resources.local:
            raise InputError(
                "precision fastest: measures on this machine, and the workers are elsewhere; name "
                "a precision"
            )
        if self.model.output.activation == "linear":
            raise InputError(
                f"precision fastest: model {self.model.name} gives values, and changes are "
                "measured in labels; name a precision"
            )
        possible = self.model.predictor.precisions("cpu")
        if Precision.FP32 not in possible:
            raise InputError(
                f"precision fastest: model {self.model.name} computes in "
                f"{' or '.join(possible)} only, as its file holds it; leave --precision out"
            )

    def _check_agreement(self) -> None:
        check_agreement(self.model, self._tiles.measuring[0], self.resources, self.facts.path)

    def _change(self, model: Model, settings: PassSettings) -> LabelChange:
        labels = labels_of(model, self._tiles.measuring, settings)
        return LabelChange.between(labels, self._truth, self.model.output.background)

    @cached_property
    def _truth(self) -> list[NDArray[Any]]:
        """The labels of fp32, by the reference runtime; for int8 alone by OpenVINO, if they agree.

        OpenVINO computes int8 anyway, and loading the reference takes longer than the trial.
        """
        settings = reference_settings(self.model, self.resources.threads)
        if self.options.precision == "int8":
            self._check_agreement()
            settings = settings._replace(runtime="openvino")
        return labels_of(self.model, self._tiles.measuring, settings)

    def _settings(self, precision: Precision, runtime: str) -> PassSettings:
        return PassSettings("cpu", precision, self.resources.threads, runtime)

    @property
    def _is_integer(self) -> bool:
        return np.dtype(self.facts.dtype).kind in "ui"

    @property
    def _instructions(self) -> str:
        return str(self.resources.environment.get("int8", ""))

    @property
    def _machine(self) -> str:
        return str(self.resources.environment.get("machine", ""))

    @cached_property
    def _tiles(self) -> TrialTiles:
        tiles = read_tiles(
            self.image, self.facts.level, self.model, self.region, CALIBRATING + MEASURING
        )
        if not tiles.measuring:
            raise InputError(
                f"precision {self.options.precision}: no tile of {self.facts.path} can be read to "
                "try it on; use --precision fp32"
            )
        return tiles

    def _check_memory(self) -> None:
        model, side = self.model, self._tiles.measuring[0].pixels.shape[0]
        live_of = model.predictor.live_bytes(model.geometry, Precision.FP32, "openvino", "cpu")
        inputs = 4 * len(self._tiles.calibrating) * side * side * model.input.bands
        needed = LIVE * live_of(side, side) + WEIGHTS * model.predictor.weight_bytes + inputs + ROOM
        held = int(psutil.Process().memory_info().rss)
        if held + needed > self.limit and self.resources.local:
            raise InputError(
                f"precision int8: quantising model {model.name} needs "
                f"{gigabytes(held + needed)}, and --memory is {gigabytes(self.limit)}; allow that "
                "much, or use another precision"
            )
