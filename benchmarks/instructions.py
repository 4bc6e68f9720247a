"""Passes by OpenVINO with the instructions of older processors: fp32, bf16 and int8.

    python benchmarks/instructions.py [--side 1212] [--repeats 3] [--pixels 10]

OpenVINO is told to use no more than an instruction set (`ONEDNN_MAX_CPU_ISA`), on a processor that
has it. That is not an older processor, whose clock, caches and memory differ, but the ratios of the
precisions to each other are those of its instructions. Each in a process of its own, all in turns,
medians. int8 is the shipped network; the layers that are not quantised are in bf16 where the set
has AVX-512, as OpenVINO takes it there, else in fp32. bf16 itself is left out where it would be
emulated, as tilepipe leaves it out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from common import HERE, command_line, parse, record

PASSES = """
import sys, time
import numpy as np
import tilepipe
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.quantised import with_network
from tilepipe.models.runtimes.openvino_cpu import OpenVino

precision, rest, side, passes, threads = *sys.argv[1:3], *map(int, sys.argv[3:])
model = tilepipe.load_model("nuclei-he")
if precision == "int8":
    model = with_network(model, model.int8.content)
    OpenVino._hint = lambda *_: rest
network = model.predictor.open("cpu", Precision(precision), threads, "openvino")
x = np.random.default_rng(0).random((1, 3, side, side), np.float32)
network(x)
begin = time.perf_counter()
for _ in range(passes):
    network(x)
print((time.perf_counter() - begin) / passes)
"""


class Instructions(NamedTuple):
    """What processors of a kind have."""

    name: str
    """As oneDNN calls it."""
    flags: tuple[str, ...]
    """What the system calls it."""
    found: str
    """In which processors."""
    bf16: bool = False

    @property
    def rest(self) -> str:
        """The type of layers that are not quantised, as OpenVINO takes it."""
        return "bf16" if self.name.startswith("AVX512") else "f32"


KINDS = (
    Instructions("AVX2", ("avx2",), "Intel from 2013, AMD to Zen 3"),
    Instructions("AVX2_VNNI", ("avx2", "avx_vnni"), "Intel Core from 2021"),
    Instructions("AVX512_CORE", ("avx512f", "avx512bw"), "Intel Xeon from 2017"),
    Instructions("AVX512_CORE_VNNI", ("avx512_vnni",), "Intel Xeon from 2019"),
    Instructions("AVX512_CORE_BF16", ("avx512_vnni", "avx512_bf16"), "AMD from Zen 4", True),
    Instructions("AVX512_CORE_AMX", ("amx_int8", "amx_bf16"), "Intel Xeon from 2023", True),
)


def has(kind: Instructions, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has them."""
    lines = cpuinfo.read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return set(kind.flags) <= set(flags)


def seconds_of(kind: Instructions, precision: str, side: int, passes: int, threads: int) -> float:
    """Seconds of a pass."""
    child = subprocess.run(
        [sys.executable, "-c", PASSES, precision, kind.rest, *map(str, (side, passes, threads))],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": kind.name}, cwd=HERE.parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if child.returncode:
        raise SystemExit(f"{kind.name}, {precision}: {child.stderr}")
    return float(child.stdout.split()[-1])


def main() -> None:
    """Measure each a few times, in turns, and write the medians."""
    from tilepipe.models.runtimes import installed

    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=1212)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pixels", type=float, default=10, help="millions in each turn, about")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parse(parser, side=188, repeats=1, pixels=0.01)
    if not installed("openvino"):
        print("openvino is not installed: nothing is measured")
        return
    kinds = [kind for kind in KINDS if has(kind)]
    cases = [
        (kind, precision)
        for kind in kinds
        for precision in ("fp32", "bf16", "int8")
        if precision != "bf16" or kind.bf16
    ]
    kept = (options.side - 184) ** 2 / 1e6
    passes = max(2, int(options.pixels / kept))
    found: dict[tuple[Instructions, str], list[float]] = {case: [] for case in cases}
    for turn in range(options.repeats):
        for kind, precision in cases[turn:] + cases[:turn]:
            taken = seconds_of(kind, precision, options.side, passes, options.threads)
            found[kind, precision].append(taken)
    for kind in kinds:
        rows = [
            (precision, kept / statistics.median(found[kind, precision]), "Mpx/s", "")
            for each, precision in cases
            if each == kind
        ]
        pairs = zip(found[kind, "fp32"], found[kind, "int8"], strict=True)
        ratio = statistics.median(slow / fast for slow, fast in pairs)
        record(
            "instructions", f"nuclei-he, {options.side} in, {kind.name} ({kind.found})",
            [*rows, ("int8 faster than fp32 by", ratio, "", "")],
        )  # fmt: skip


if __name__ == "__main__":
    main()
