"""Networks, their files and their geometry."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "DEFAULT_MODEL": "file",
    "build_model": "file",
    "import_onnx": "onnx_file",
    "import_state_dict": "file",
    "load_model": "file",
    "save_model": "file",
    "shipped_models": "file",
    "ClassSpec": "specs",
    "InputSpec": "specs",
    "Model": "specs",
    "OutputSpec": "specs",
    "PRESETS": "unet_arguments",
    "UNet": "unet",
    "UNetArguments": "unet_arguments",
    "preset": "unet_arguments",
    "Precision": "precision",
    "Predictor": "predictors.base",
    "geometry_of": "geometry",
    "probe_geometry": "probe",
    "ForwardMemory": "memory",
    "forward_bytes": "memory",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # Everything here needs torch, which takes seconds to import: it is loaded on first use.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
