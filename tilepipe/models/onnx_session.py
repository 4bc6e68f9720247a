"""Sessions of ONNX Runtime."""

from __future__ import annotations

from typing import Any

from tilepipe.errors import InputError
from tilepipe.models.onnx_graph import first_line, missing


def open_session(
    content: bytes, source: str, device: str, threads: int, *, optimise: bool = True
) -> Any:
    """Open a session of ONNX Runtime that gives the same values every time.

    Raises
    ------
    InputError
        Where ONNX Runtime is not installed, lacks the device, or refuses the network.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing("onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Threads that wait must not take the cores that readers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what matters is raised
    # An arena keeps all that a pass took, and takes up to twice what it needs.
    options.enable_cpu_mem_arena = False
    if not optimise:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        # Constants are made when they are needed, not all at the beginning.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    providers: list[Any] = ["CPUExecutionProvider"]
    kind, _, index = device.partition(":")
    if kind == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError(
                "device cuda: the ONNX Runtime installed here computes on CPUs only; use --device "
                "cpu, or install onnxruntime-gpu in place of onnxruntime"
            )
        settings = {
            "device_id": int(index or 0),
            "use_tf32": 0,
            "cudnn_conv_algo_search": "DEFAULT",
        }
        providers.insert(0, ("CUDAExecutionProvider", settings))
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # of no fixed kind
        raise InputError(f"{source}: ONNX Runtime refuses it: {first_line(error)}") from error
