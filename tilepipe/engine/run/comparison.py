"""Comparing what a mask holds with what the network gives, window by window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.verification import Verification
from tilepipe.grid import Window
from tilepipe.images.validity import Validity, in_any_band
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model
from tilepipe.products.base import Mask
from tilepipe.products.like_image import Nearest
from tilepipe.products.product import Product
from tilepipe.products.store import ZarrMask


class Comparison:
    """Sums over the windows compared."""

    def __init__(
        self, plan: Plan, model: Model, unreadable: list[Window], nearest: Nearest | None
    ) -> None:
        self.plan, self.model, self.unreadable, self.nearest = plan, model, unreadable, nearest
        self.windows = self.skipped = self.pixels = self.differing = self.ties = 0
        self.tie_bound = Precision(plan.precision).tie_bound
        self.largest_gap = 0.0
        self.largest_difference: float | None = None
        self.tolerance: float | None = None
        self.damage: list[str] = []

    def result(self) -> Verification:
        """What was found, over all windows compared so far."""
        return Verification(
            self.windows, self.skipped, self.pixels, self.differing, self.ties, self.tie_bound,
            self.largest_gap, self.largest_difference, self.tolerance, self.model.predictor.inexact,
            tuple(dict.fromkeys(self.damage)), self._covered(),
        )  # fmt: skip

    def _covered(self) -> tuple[str, ...]:
        share = self.pixels / self.plan.coverage.pixels
        return (f"windows: {share:.1%} of what was asked for was computed anew and compared",)

    def compare(
        self,
        kept: Window,
        logits: NDArray[np.float64],
        valid: Validity | None,
        mask: Mask,
    ) -> None:
        """Compare one window's logits, (outputs, rows, columns), with what the mask says."""
        image = Window(0, 0, self.plan.image.height, self.plan.image.width)
        inside = kept.intersect(image)
        if inside is None:
            return
        logits = logits[(slice(None), *inside.slices(kept))]
        answered = np.ones(inside.shape, np.bool_)
        if valid is not None:
            margin = self.model.geometry.margin
            kept_valid = valid[margin : margin + kept.height, margin : margin + kept.width]
            answered = in_any_band(kept_valid[inside.slices(kept)])
        # In blocks where something could not be read, silence is no contradiction.
        excused = self._excused(inside)
        asked = self.plan.coverage.inside(inside)
        if asked is not None:
            answered = answered & asked
        if self.nearest is not None:
            place = self.nearest.under(inside)
            if place is None:
                return
            rows, columns = self.nearest.taken(place)
            down, across = (rows - inside.y)[:, None], columns - inside.x
            logits, answered = logits[:, down, across], answered[down, across]
            excused, inside = excused[down, across], place
        self.windows += 1
        product = self.plan.mask.product
        self._compare(product, mask.read(inside), logits, answered, excused, is_main=True)
        for layer in mask.layers[1:] if isinstance(mask, ZarrMask) else ():
            written = layer.read(inside)
            self._compare(layer.product, written, logits, answered, excused, is_main=False)

    def _compare(
        self,
        product: Product,
        written: NDArray[Any],
        logits: NDArray[np.float64],
        answered: NDArray[np.bool_],
        excused: NDArray[np.bool_],
        *,
        is_main: bool,
    ) -> None:
        """Compare the pixels of one product with those that the logits make."""
        span = float(np.ptp(logits)) or 1.0
        silent = product.unanswered(written[None] if product.flat else written)
        deviation = product.deviation(written, logits, self.model.output)
        # An answer where there should be none, or none where there should be one, is no tie.
        wrong = (silent == answered) & ~(silent & excused)
        both = answered & ~silent
        if is_main:
            self.pixels += int(both[0].sum())
        tolerance = product.tolerance(self.tie_bound, span)
        if tolerance is None:
            gaps = np.where(both, deviation / span, 0.0)
            self.ties += int(((gaps > 0) & (gaps <= self.tie_bound)).sum())
            wrong |= gaps > self.tie_bound
            self.largest_gap = max(self.largest_gap, float(gaps[np.isfinite(gaps)].max(initial=0)))
        else:
            difference = float(deviation[both].max(initial=0.0))
            self.largest_difference = max(self.largest_difference or 0.0, difference)
            self.tolerance = max(self.tolerance or 0.0, tolerance)
        self.differing += int(wrong.sum())

    def _excused(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a window lie in blocks of which something could not be read."""
        excused = np.zeros(window.shape, np.bool_)
        for block in self.unreadable:
            common = block.intersect(window)
            if common is not None:
                excused[common.slices(window)] = True
        return excused
