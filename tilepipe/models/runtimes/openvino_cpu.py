"""Networks in OpenVINO, on CPUs."""

from __future__ import annotations

from typing import Any

from tilepipe._torch import Tensor, torch
from tilepipe.errors import InputError
from tilepipe.models.precision import Precision
from tilepipe.models.runtimes import Runtime

HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}


class OpenVino(Runtime):
    """A network compiled for one shape of window at a time, its memory laid out beforehand.

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

    def __init__(
        self, content: bytes, precision: Precision, threads: int, weights: bytes | None = None
    ) -> None:
        import openvino

        self._core = openvino.Core()
        # read_model, not convert_model: no tracing of modules, and no telemetry.
        self._model = self._core.read_model(content, weights)
        self._settings = {
            "INFERENCE_PRECISION_HINT": self._hint(precision),  # left alone, it may take bf16
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Bound to cores, its threads would fight with those of other processes.
            "ENABLE_CPU_PINNING": False,
        }
        self._shape: tuple[int, ...] = ()
        self._request: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        if tuple(x.shape) != self._shape:
            self._compile(tuple(x.shape))
        result = self._request.infer({0: x.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(result[0])

    def _hint(self, precision: Precision) -> str:
        if precision is not Precision.INT8:
            return HINTS[precision]
        has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "bf16" if has_bf16 else "f32"

    def _compile(self, shape: tuple[int, ...]) -> None:
        self._request, self._shape = None, ()  # the memory of the last shape, before the next
        self._model.reshape(list(shape))
        compiled = self._core.compile_model(self._model, "CPU", self._settings)
        wanted = self._settings["INFERENCE_PRECISION_HINT"]
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if hint != wanted:
            raise InputError(
                f"runtime openvino: this processor has no {wanted}, OpenVINO would take "
                f"{hint}; use --precision fp32"
            )
        self._request, self._shape = compiled.create_infer_request(), shape
