"""Networks in OpenVINO, on CPUs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tilepipe._openvino import load_openvino
from tilepipe.errors import InputError
from tilepipe.models.onednn import instruction_limit, limit_leaves_avx512
from tilepipe.models.precision import Precision
from tilepipe.models.runtimes import Runtime
from tilepipe.models.runtimes.huge_pages import collapse_large_memory

HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}
ANY = -1
"""A side of windows that is left open."""
LARGE_PIXELS = 2 << 20
"""Windows from which on huge pages are worth their time."""


class OpenVino(Runtime):
    """A network compiled once for windows of every shape.

    In floating point that is about as fast as for one shape, and tiles that are cut to a region
    have many. In long runs, its memory is moved to huge pages.

    Parameters
    ----------
    content
        The network: an ONNX model, or OpenVINO's own XML.
    precision
        In int8, layers that are not quantised are computed in bf16 where the processor has it.
    threads
        Of a pass.
    weights
        The weights of an XML.
    """

    _settled_after: ClassVar[int] = 100
    """The pass, since memory last grew, before which it is moved to huge pages: after as many as
    win the time of that back (measured: 60 ms of 1.3 s in fp32, for up to 4 s once)."""

    def __init__(
        self, content: bytes, precision: Precision, threads: int, weights: bytes | None = None
    ) -> None:
        self._core = load_openvino().Core()
        # read_model, not convert_model: no tracing of modules, and no report of it.
        self._model = self._core.read_model(content, weights)
        self._settings = {
            "INFERENCE_PRECISION_HINT": self._hint(precision),  # left alone, it may take bf16
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Kernels of that many layers are held; more would fill memory that no plan knows of.
            "CPU_RUNTIME_CACHE_CAPACITY": 128,
            # Bound to cores, its threads would fight with those of other processes.
            "ENABLE_CPU_PINNING": False,
        }
        self._request: Any = self._first()
        self._largest = self._passes = 0

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of pixels, in memory that the next call takes again."""
        pixels = x.shape[2] * x.shape[3]
        if pixels > self._largest:  # for which memory is taken
            self._largest, self._passes = pixels, 0
        self._passes += 1
        if self._passes == self._settled_after and self._largest >= LARGE_PIXELS:
            collapse_large_memory()
        logits: NDArray[np.float32]
        logits = self._request.infer({0: x}, share_inputs=True, share_outputs=True)[0]
        return logits

    def _first(self) -> Any:
        """The request that is ready before the first window."""
        return self._compiled(ANY, ANY)

    def _hint(self, precision: Precision) -> str:
        """OpenVINO's name of the type in which layers are computed that are not quantised."""
        if precision is not Precision.INT8:
            return HINTS[precision]
        has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        # What OpenVINO says of bf16 there is right but for a limit below.
        return "bf16" if has_bf16 and limit_leaves_avx512() else "f32"

    def _compiled(self, height: int, width: int) -> Any:
        """A request for windows of a shape."""
        bands = self._model.input(0).partial_shape[1].get_length()
        self._model.reshape([1, bands, height, width])
        try:
            compiled = self._core.compile_model(self._model, "CPU", self._settings)
        except RuntimeError as error:
            if "bad_alloc" in str(error):
                raise  # memory, not the network
            why = (str(error).strip().splitlines() or ["no reason given"])[-1]
            limit = instruction_limit()
            advice = "" if limit is None else f"unset {limit.name}, or "
            raise InputError(
                f"runtime openvino: cannot build the network here ({why.split('. Run ')[0]}); "
                f"{advice}use --runtime torch, or another --precision"
            ) from error
        wanted = self._settings["INFERENCE_PRECISION_HINT"]
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if hint != wanted:
            raise InputError(
                f"runtime openvino: this processor has no {wanted}, OpenVINO would take "
                f"{hint}; use --precision fp32"
            )
        return compiled.create_infer_request()


class OpenVinoByShape(OpenVino):
    """A network compiled for one shape of window at a time, its memory laid out beforehand.

    A quantised network computes it in half the time of one that is compiled for all shapes.
    """

    _settled_after = 20  # 50 ms of 350, for up to 1 s once
    _shape: tuple[int, ...] = ()

    def _first(self) -> None:
        """None: the shape is not known yet."""

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of pixels."""
        if x.shape[2:] != self._shape:
            self._request = None  # the memory of the last shape, before the next
            self._request, self._shape = self._compiled(*x.shape[2:]), x.shape[2:]
            self._largest = 0
        return super().__call__(x)
