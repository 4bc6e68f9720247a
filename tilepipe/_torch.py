"""The one place that loads torch, with the settings it reads once, as it is loaded.

Every other module takes torch from here, so the settings hold whichever part of tilepipe is
imported first. Afterwards the environment is as it was: programs that the caller starts do not
inherit them. Where the caller has loaded torch before tilepipe, they have no effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    # Activations on huge pages: faults of fresh 4 KiB pages otherwise take half of a forward pass.
    "THP_MEM_ALLOC_ENABLE": "1",
    # OpenMP threads that sleep while they wait for each other: spinning, they take the cores that
    # readers need.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Variables of the environment that are set where the user has not (benchmarks/README.md)."""


@contextmanager
def _settings() -> Iterator[None]:
    missing = [name for name in SETTINGS if name not in os.environ]
    os.environ.update({name: SETTINGS[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


with _settings():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    # Some of it is read only when it is first needed.
    torch.get_num_threads()
    torch.empty(1)

__all__ = ["Tensor", "functional", "nn", "torch"]
