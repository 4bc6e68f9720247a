"""The idea of a predictor: a network as planning knows it and as a run opens it.

Nothing outside `tilepipe.models` asks what kind of network a model holds; it asks the model's
predictor. `Predictor` is at once the interface and the plainest kind: a torch module run by torch,
its weights in a safetensors file. U-Nets (`unet`) and ONNX files (`onnx`) override what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tilepipe.grid import Geometry
from tilepipe.models.precision import FLOATING, Precision
from tilepipe.models.runtimes import MEASURABLE, RUNTIMES, Runtime, check_runtime, version
from tilepipe.models.weights import Weights, network_with, shapes_of, weights_of

if TYPE_CHECKING:
    from tilepipe._torch import nn
    from tilepipe.models.memory import ForwardMemory

PASS_OVERHEAD = 60 * 10**6
"""Bytes that a pass takes besides its tensors: kernels and scratch of libraries, stacks of threads.
"""


class Arguments(Protocol):
    """A frozen dataclass of what distinguishes networks of one kind: numbers and texts.

    It is the ``network.arguments`` of a model file. Reading checks each field by its type; what
    else must hold, ``__post_init__`` checks, with a ValueError that begins with the field's name.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    kind: ClassVar[str]
    """The ``network.name`` of its model files."""

    @property
    def bands(self) -> int:
        """Input channels."""
        ...

    @property
    def outputs(self) -> int:
        """Output channels."""
        ...


class Predictor:
    """A network, which is never changed: planning asks it, and a run opens it.

    It is made of a torch module, or of weights alone: what needs no torch then does without, as
    loading it takes longer than all else before the first block.

    To add a kind, define its arguments (see `Arguments`), subclass with `arguments_type` and
    `build`, override what differs, and register it (see `tilepipe.models.predictors`).
    """

    arguments_type: ClassVar[type[Arguments]]
    suffix: ClassVar[str] = ".safetensors"
    """Suffix of its model files."""
    runtimes: ClassVar[tuple[str, ...]] = ("torch", "compile")
    """Names of what can compute it. The first is the reference: the default, and what the others
    and `verify` are held against."""
    quantisable: ClassVar[bool] = False
    """Whether it can be quantised to int8 (`tilepipe.models.quantise`)."""

    def __init__(
        self,
        arguments: Arguments,
        network: nn.Module | Weights,
        *,
        inexact: str | None = None,
        fixed: bool = False,
    ) -> None:
        self.arguments = arguments
        self._given = network
        self.inexact = inexact
        """Why outputs depend on where tiles lie; None: they do not. A network of which they do is
        used with its own tile only, and its masks are never called exact."""
        self.fixed = fixed
        """Whether its tile is the only window it takes."""
        self._live: dict[Precision, ForwardMemory] = {}

    # What its model file implies

    @classmethod
    def build(cls, arguments: Any) -> nn.Module:
        """A new network, whose tensors the model file must hold by name and shape."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, arguments: Any) -> dict[str, tuple[int, ...]]:
        """The name and shape of each tensor that the model file must hold."""
        return shapes_of(lambda: cls.build(arguments))

    @classmethod
    def geometry(cls, arguments: Any) -> Geometry | None:
        """The tile geometry that arguments imply; None: model files state it."""
        return None

    @cached_property
    def network(self) -> Any:
        """Maps normalised pixels (N, bands, H, W) to logits (N, outputs, h, w).

        A torch module in evaluation mode, on the CPU, its parameters float32 and without gradients;
        built when it is first asked for, of the same memory as `tensors`.
        """
        given = self._given
        if not isinstance(given, Mapping):
            return given
        return network_with(given, lambda: self.build(self.arguments))

    @cached_property
    def tensors(self) -> Weights:
        """The weights, and whatever else its model file holds, as numpy arrays by name."""
        given = self._given
        return given if isinstance(given, Mapping) else weights_of(given)

    # What planning asks

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.arguments.outputs

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights in memory, as float32."""
        return 4 * self.weights

    def describe(self) -> str:
        """The network in a few words, for a person."""
        return type(self.network).__name__

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """Precisions it can compute in on a device; the first is the default."""
        default = Precision.FP16 if device.startswith("cuda") else Precision.FP32
        possible = [each for each in FLOATING if each is not Precision.FP64 or device != "mps"]
        return (default, *(precision for precision in possible if precision is not default))

    def alternatives(self) -> tuple[str, ...]:
        """Runtimes installed here that are worth timing against the reference, on a CPU."""
        return ()

    def check(self, runtime: str, device: str, precision: Precision) -> None:
        """Refuse a runtime that cannot compute this network on this device.

        Raises
        ------
        InputError
            Names what would work.
        """
        check_runtime(runtime, device, precision)

    def versions(self, runtime: str) -> dict[str, str]:
        """What float results depend on besides torch: plans record it, and a resume compares it."""
        return {runtime: version(runtime)} if runtime in MEASURABLE else {}

    def memory(
        self, geometry: Geometry, precision: Precision, runtime: str, device: str = "cpu"
    ) -> Callable[[int, int], int]:
        """Peak bytes of one pass of a window (height, width), besides the float32 weights."""
        spec = RUNTIMES[runtime]
        factor = spec.live_half if precision.is_half else spec.live
        copies = int(self.weight_bytes * self.weight_copies(runtime))

        @cache
        def peak(height: int, width: int) -> int:
            live = self.live_bytes(geometry, precision, runtime, device)(height, width)
            return int(live * factor) + PASS_OVERHEAD + copies + spec.constant

        return peak

    def live_bytes(
        self, geometry: Geometry, precision: Precision, runtime: str, device: str
    ) -> Callable[[int, int], int]:
        """Peak bytes of the tensors that are alive during a pass of a window (height, width)."""
        if precision not in self._live:
            from tilepipe.models.memory import ForwardMemory

            self._live[precision] = ForwardMemory(
                self.network, self.arguments.bands, geometry.smallest_input,
                geometry.stride_factor, precision.dtype,
            )  # fmt: skip
        return self._live[precision].peak

    def weight_copies(self, runtime: str) -> float:
        """Copies of the weights that are held at most besides one in the precision of the run."""
        return RUNTIMES[runtime].weights

    def graph(self) -> bytes:
        """The network as an ONNX model of one input and one output, if it is `quantisable`."""
        raise NotImplementedError

    # What a run opens

    def takes_arrays(self, runtime: str) -> bool:
        """Whether a runtime takes and gives numpy's arrays, on the CPU, and not torch's tensors."""
        return False

    def open(self, device: str, precision: Precision, threads: int, runtime: str) -> Runtime:
        """Make the network ready on a device, with so many CPU threads for a pass.

        Parameters
        ----------
        device
            As torch names it: ``cpu``, ``cuda:0``, ``mps``.
        precision, threads, runtime
            Of a pass.

        Raises
        ------
        InputError
            Where the runtime is not installed, or does not compute this network here.
        """
        from tilepipe._torch import torch
        from tilepipe.models.runtimes.bounded import Bounded
        from tilepipe.models.runtimes.eager import Compiled, Eager

        self.check(runtime, device, precision)
        on = torch.device(device)
        kind: type[Eager] = Compiled if runtime == "compile" else Eager
        if kind is Eager and on.type == "cuda" and not precision.is_half:
            kind = Bounded
        return kind(self.inference_network(precision), on, precision.dtype)

    def inference_network(self, precision: Precision) -> nn.Module:
        """The same function in a form that is faster in inference."""
        network: nn.Module = self.network
        return network
