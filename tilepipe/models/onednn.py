"""What the environment asks of oneDNN, with which torch and OpenVINO compute on CPUs.

oneDNN reads each of these variables once. Each has an old name, too: the new one counts, unless it
is empty.
"""

from __future__ import annotations

import os
from typing import NamedTuple

REDUCED = ("bf16", "f16", "tf32", "any")
"""Modes in which oneDNN computes float32 at reduced precision."""

WITHOUT_AVX512 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")
WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
WITHOUT_BF16 = (*WITHOUT_VNNI, "AVX2_VNNI", "AVX512_CORE_VNNI")
"""Limits that leave out instructions of x86 processors; other names leave what there is."""


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


def limit_leaves_avx512() -> bool:
    """Whether no limit leaves out AVX-512."""
    return _limit() not in WITHOUT_AVX512


def limit_leaves_vnni() -> bool:
    """Whether no limit leaves out sums of int8 products."""
    return _limit() not in WITHOUT_VNNI


def limit_leaves_bf16() -> bool:
    """Whether no limit leaves out bf16."""
    return _limit() not in WITHOUT_BF16


def _limit() -> str | None:
    limit = instruction_limit()
    return None if limit is None else limit.value.upper()


def _variable(name: str) -> Variable | None:
    names = (f"ONEDNN_{name}", f"DNNL_{name}")
    return next((Variable(each, os.environ[each]) for each in names if os.environ.get(each)), None)
