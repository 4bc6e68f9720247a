"""Facts of torch without loading it, which takes seconds."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import sys
from pathlib import Path
from types import ModuleType

from tilepipe.storage.cache import kept

GPUS = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""Files in /dev of a Linux machine with a GPU that torch computes on: NVIDIA's, those of its small
boards, WSL's, AMD's."""


def torch_version() -> str:
    """Torch's own name of its version, which tells builds apart."""
    build = _build()
    if build is None:
        from tilepipe._torch import torch

        return str(torch.__version__)
    return str(build.__version__)


def cuda_is_available() -> bool:
    """Whether torch sees a GPU of NVIDIA or AMD."""
    if not is_loaded() and not _may_have_gpu():
        return False
    from tilepipe._torch import torch

    return bool(torch.cuda.is_available())


def cpu_capability() -> str:
    """Torch's name of the instruction set that its kernels use, such as ``AVX512``."""
    if is_loaded():
        return _asked_capability()
    what = torch_version(), os.environ.get("ATEN_CPU_CAPABILITY"), *_processor()
    name = hashlib.sha256(repr(what).encode()).hexdigest()[:32]
    return kept(f"torch-{name}.txt", lambda: _asked_capability().encode()).decode()


def is_loaded() -> bool:
    """Whether this process has torch already, so that asking it costs nothing."""
    return "torch" in sys.modules


def _asked_capability() -> str:
    from tilepipe._torch import torch

    return str(torch.backends.cpu.get_cpu_capability())


def _may_have_gpu() -> bool:
    build = _build()
    if build is None:
        return True
    if not (getattr(build, "cuda", None) or getattr(build, "hip", None)):
        return False
    return not sys.platform.startswith("linux") or any(
        next(Path("/dev").glob(pattern), None) for pattern in GPUS
    )


@functools.cache
def _build() -> ModuleType | None:
    """The module ``torch.version``, loaded by itself; None where it is not as expected."""
    try:
        torch = importlib.util.find_spec("torch")
        assert torch is not None
        assert torch.origin is not None
        path = Path(torch.origin).with_name("version.py")
        spec = importlib.util.spec_from_file_location("tilepipe._torch_version", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (AssertionError, OSError, ImportError, ValueError):
        return None
    return module if hasattr(module, "__version__") else None


def _processor() -> tuple[str, ...]:
    """The machine, and on Linux its processor's instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    names = ("model name", "flags", "features")
    return platform.machine(), *dict.fromkeys(s for s in lines if s.lower().startswith(names))
