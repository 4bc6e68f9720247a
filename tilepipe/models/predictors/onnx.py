"""Networks in ONNX files: computed by ONNX Runtime, in the precision that their file holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tilepipe._torch import Tensor
from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.models.onnx_network import OnnxArguments, OnnxNetwork
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import PASS_OVERHEAD, Predictor
from tilepipe.models.runtimes import RUNTIMES, Runtime, version


class OnnxPredictor(Predictor):
    """A network that came as an ONNX file."""

    arguments_type = OnnxArguments
    suffix = ".onnx"
    runtimes = ("onnxruntime",)
    arguments: OnnxArguments

    @property
    def network(self) -> OnnxNetwork:
        """A torch module that ONNX Runtime computes."""
        assert isinstance(self._given, OnnxNetwork)
        return self._given

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.network.graph.weights

    def describe(self) -> str:
        """The network in a few words, for a person."""
        a, graph = self.arguments, self.network.graph
        return f"ONNX, opset {graph.opset}, {graph.precision}, {a.layout}, gives {a.gives}"

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """The one that its file holds."""
        return (self.network.graph.precision,)

    def check(self, runtime: str, device: str, precision: Precision) -> None:
        """Refuse a Mac's GPU; opening reports what else is missing. Old plans name any runtime."""
        if device == "mps":
            raise InputError(
                "device mps: ONNX Runtime computes on CPUs and CUDA only; use --device cpu"
            )

    def versions(self, runtime: str) -> dict[str, str]:
        """The version of ONNX Runtime."""
        return {"onnxruntime": version("onnxruntime")}

    def memory(
        self, geometry: Geometry, precision: Precision, runtime: str, device: str = "cpu"
    ) -> Callable[[int, int], int]:
        """Peak bytes of one pass of a window (height, width); the graph counts its own weights."""
        live, factor = self.network.live_bytes, RUNTIMES["torch"].live
        return cache(lambda height, width: int(live(height, width) * factor) + PASS_OVERHEAD)

    def open(self, device: str, precision: Precision, threads: int, runtime: str) -> Runtime:
        """Make the network ready: it opens a session on the device of the first pixels."""
        return _Session(self.network)


class _Session(Runtime):
    """A network that computes, and casts, by itself, through the memory of the machine."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        logits: Tensor = self._network(x)
        return logits
