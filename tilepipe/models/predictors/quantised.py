"""Quantised networks: int8, in OpenVINO, on CPUs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import PASS_OVERHEAD, Predictor
from tilepipe.models.quantise import unpacked
from tilepipe.models.runtimes import RUNTIMES, Runtime, check_runtime
from tilepipe.models.specs import Model

LIVE, WEIGHTS = 1.1, 2
"""Measured bounds of the peak of a pass: of the live tensors of one in float32, which a processor
without bf16 needs (with it, 0.7 would do), and of copies of the weights."""


class QuantisedPredictor(Predictor):
    """A network of another predictor, quantised."""

    runtimes = ("openvino",)

    def __init__(self, base: Predictor, content: bytes) -> None:
        super().__init__(base.arguments, base.tensors, inexact=base.inexact, fixed=base.fixed)
        self._base, self._xml_and_weights = base, unpacked(content)

    @property
    def network(self) -> Any:
        """The network as it is without being quantised."""
        return self._base.network

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self._base.weights

    def describe(self) -> str:
        """The network in a few words, for a person."""
        return f"{self._base.describe()}, quantised to int8"

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """The one that it has."""
        return (Precision.INT8,)

    def check(self, runtime: str, device: str, precision: Precision) -> None:
        """Refuse all but OpenVINO on a CPU."""
        check_runtime(runtime, device, Precision.FP32)

    def memory(
        self, geometry: Geometry, precision: Precision, runtime: str, device: str = "cpu"
    ) -> Callable[[int, int], int]:
        """Peak bytes of one pass of a window (height, width), besides the float32 weights."""
        live = self._base.live_bytes(geometry, Precision.FP32, runtime, device)
        spec = RUNTIMES["openvino"]
        held = WEIGHTS * self.weight_bytes + PASS_OVERHEAD + spec.constant
        return cache(lambda height, width: int(LIVE * live(height, width)) + held)

    def takes_arrays(self, runtime: str) -> bool:
        """Whether a runtime takes and gives numpy's arrays: OpenVINO does."""
        return True

    def open(self, device: str, precision: Precision, threads: int, runtime: str) -> Runtime:
        """Make the network ready; see `Predictor.open`."""
        from tilepipe.models.runtimes.openvino_cpu import OpenVinoByShape

        self.check(runtime, device, precision)
        xml, weights = self._xml_and_weights
        try:
            return OpenVinoByShape(xml, Precision.INT8, threads, weights)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read the quantised network: {error}") from error


def with_network(model: Model, content: bytes) -> Model:
    """A model whose network is the quantised one (`tilepipe.models.quantise.quantised`).

    Raises
    ------
    ValueError
        For bytes that are no such network.
    """
    predictor = QuantisedPredictor(model.predictor, content)
    both = f"{model.fingerprint} {network_hash(content)}"
    fingerprint = hashlib.sha256(both.encode()).hexdigest()
    return replace(model, predictor=predictor, fingerprint=fingerprint)


def network_hash(content: bytes) -> str:
    """SHA-256 of a quantised network, as hexadecimal digits, by which a plan knows it."""
    return hashlib.sha256(content).hexdigest()
