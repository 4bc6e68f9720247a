"""What reading, writing and the engine sustain before a device that takes a set time per window.

    python benchmarks/feeding.py [--side 8192] [--repeats 3] [--rates 0 100 20]

The device is a stand-in: it sleeps for as long as one of so many megapixels (of output) a second
would compute, and answers with background. At a rate of 0 it takes no time at all. Everything else
is a run's own: reading a slide of JPEG tiles, or one of uncompressed tiles, hashing, writing
chunks, the ledger. The processor time per megapixel says how many cores a faster device asks for.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from common import (
    WORK,
    command_line,
    fresh,
    parse,
    plain_slide,
    random_model,
    record,
    sample_slide,
)

import tilepipe
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.work.device import Device, Prediction, Request

GOAL = 100.0
"""Megapixels a second: what a network of width 64 is to reach on an H100."""


class Span(RunCallbacks):
    """Seconds, of clock and processor, from the first block submitted to the last written."""

    def __init__(self) -> None:
        self.begun = self.ended = (0.0, 0.0)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def submitted(self) -> None:
        self.begun = self._now()

    def block(self, receipt: object) -> None:
        self.ended = self._now()

    @property
    def seconds(self) -> float:
        return self.ended[0] - self.begun[0]

    @property
    def processor(self) -> float:
        return self.ended[1] - self.begun[1]


def stand_in(rate: float) -> Any:
    """A pass of a device that computes so many megapixels of output a second; 0: at once."""

    def compute(device: Device, request: Request) -> Prediction:
        rows, columns = request.keep
        seconds = rows * columns / 1e6 / rate if rate else 0.0
        time.sleep(seconds)
        classes = len(device.output.classes)
        arrays = (
            np.zeros(product.shape(classes, request.keep), product.dtype)
            for product in request.products
        )
        return Prediction(tuple(arrays), seconds)

    return compute


def main() -> None:
    """Measure in turns, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 100, 20])
    options = parse(parser, side=512, repeats=1, rates=[0])
    slides = {
        "JPEG tiles": sample_slide(options.side),
        "uncompressed tiles": plain_slide(options.side),
    }
    model, store = random_model("feeding", width=1, depth=4), WORK / "feeding.ome.zarr"
    found: dict[tuple[str, float], list[Span]] = {}
    actual = Device._compute
    for _ in range(options.repeats):
        for name, slide in slides.items():
            for rate in options.rates:
                fresh(store, WORK / "feeding.run.json")
                span = Span()
                Device._compute = stand_in(rate)  # type: ignore[method-assign]
                try:
                    tilepipe.run(
                        slide,
                        model=model,
                        outputs=store,
                        level=0,
                        runtime="torch",
                        device="cpu",
                        watch=span,
                    )
                finally:
                    Device._compute = actual  # type: ignore[method-assign]
                found.setdefault((name, rate), []).append(span)
    megapixels = options.side**2 / 1e6
    for (name, rate), spans in found.items():
        device = f"a device of {rate:g} Mpx/s" if rate else "a device that takes no time"
        speed = megapixels / statistics.median(span.seconds for span in spans)
        processor = statistics.median(span.processor for span in spans) / megapixels
        figures = [
            ("sustained", speed, "Mpx/s", f">= {0.85 * rate:g}" if rate else ""),
            ("processor time", processor, "s/Mpx", ""),
            (f"cores for {GOAL:g} Mpx/s", GOAL * processor, "", ""),
        ]
        if rate:
            figures.insert(1, ("device busy", speed / rate, "", ">= 0.85"))
        record("feeding", f"{options.side} x {options.side} {name}, {device}", figures)


if __name__ == "__main__":
    main()
