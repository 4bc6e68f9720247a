"""What the environment asks of oneDNN, with which torch and OpenVINO compute on CPUs.

oneDNN reads each of these variables once. Each has an old name, too: the new one counts, unless it
is empty.
"""

from __future__ import annotations

import os
from typing import NamedTuple

REDUCED = ("bf16", "f16", "tf32", "any")
"""Modes in which oneDNN computes float32 at reduced precision."""

WITH_BF16 = ("BF16", "FP16", "AMX", "AVX10")
WITH_VNNI = ("VNNI", *WITH_BF16)
"""Parts of the names of limits that leave bf16, or sums of int8 products, in hardware."""


class Variable(NamedTuple):
    """A variable of the environment."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def reduced_float32() -> Variable | None:
    """The variable that lets oneDNN compute float32 at reduced precision; None if none does."""
    found = _variable("DEFAULT_FPMATH_MODE")
    return found if found is not None and found.value.lower() in REDUCED else None


def instruction_limit() -> Variable | None:
    """The variable that limits oneDNN to older instructions, such as AVX2; None if none does."""
    found = _variable("MAX_CPU_ISA")
    return None if found is None or found.value.upper() in ("ALL", "DEFAULT") else found


def instruction_hints() -> Variable | None:
    """The variable by which oneDNN prefers some kernels to others; None if none does."""
    found = _variable("CPU_ISA_HINTS")
    return None if found is None or found.value.upper() == "NO_HINTS" else found


def limit_leaves(*parts: str) -> bool:
    """Whether there is no limit, or one whose name has one of these parts, such as ``AMX``."""
    limit = instruction_limit()
    return limit is None or any(part in limit.value.upper() for part in parts)


def _variable(name: str) -> Variable | None:
    names = (f"ONEDNN_{name}", f"DNNL_{name}")
    return next((Variable(each, os.environ[each]) for each in names if os.environ.get(each)), None)
