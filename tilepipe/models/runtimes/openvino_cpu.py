"""Networks in OpenVINO, on CPUs."""

from __future__ import annotations

from typing import Any

from tilepipe._torch import Tensor, torch
from tilepipe.errors import InputError
from tilepipe.models.precision import Precision
from tilepipe.models.runtimes import Runtime

HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}


class OpenVino(Runtime):
    """A network compiled once for windows of every shape.

    Compiled for one shape it is no faster, and tiles that are cut to a region have many.

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

        core = openvino.Core()
        # read_model, not convert_model: no tracing of modules, and no telemetry.
        model = core.read_model(content, weights)
        bands = model.input(0).partial_shape[1].get_length()
        model.reshape([1, bands, -1, -1])
        wanted = _hint(core, precision)
        settings = {
            "INFERENCE_PRECISION_HINT": wanted,  # left alone, it may take bf16
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Kernels of that many layers are held; more would fill memory that no plan knows of.
            "CPU_RUNTIME_CACHE_CAPACITY": 128,
            # Bound to cores, its threads would fight with those of other processes.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if hint != wanted:
            raise InputError(
                f"runtime openvino: this processor has no {wanted}, OpenVINO would take "
                f"{hint}; use --precision fp32"
            )
        self._request: Any = compiled.create_infer_request()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        result = self._request.infer({0: x.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(result[0])


def _hint(core: Any, precision: Precision) -> str:
    """OpenVINO's name of the type that layers are computed in, if they are not quantised."""
    if precision is not Precision.INT8:
        return HINTS[precision]
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if has_bf16 else "f32"
