"""Comparing a mask with the network's outputs, window by window."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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


@dataclass
class Tally:
    """Sums over the compared windows, as `Verification` reports them."""

    tie_bound: float
    windows: int = 0
    skipped: int = 0
    pixels: int = 0
    differing: int = 0
    ties: int = 0
    largest_gap: float = 0.0
    largest_difference: float | None = None
    tolerance: float | None = None
    damage: list[str] = field(default_factory=list)

    def add_gaps(self, gaps: NDArray[np.float64], wrong: NDArray[np.bool_]) -> None:
        """Add gaps between logits as shares of their range, and pixels that are wrong anyway."""
        self.ties += int(((gaps > 0) & (gaps <= self.tie_bound)).sum())
        self.differing += int((wrong | (gaps > self.tie_bound)).sum())
        self.largest_gap = max(self.largest_gap, float(gaps[np.isfinite(gaps)].max(initial=0)))

    def add_difference(self, difference: float, tolerance: float, wrong: int) -> None:
        """Add the largest difference of stored values, and the number of wrong pixels."""
        self.largest_difference = max(self.largest_difference or 0.0, difference)
        self.tolerance = max(self.tolerance or 0.0, tolerance)
        self.differing += wrong


class Comparison:
    """A mask compared with the network's outputs, window by window."""

    def __init__(
        self, plan: Plan, model: Model, unreadable: list[Window], nearest: Nearest | None
    ) -> None:
        self.plan, self.model, self.unreadable, self.nearest = plan, model, unreadable, nearest
        self.tally = Tally(Precision(plan.precision).tie_bound)

    def result(self) -> Verification:
        """The result for all windows compared so far."""
        share = self.tally.pixels / self.plan.coverage.pixels
        covered = f"windows: {share:.1%} of the computed area was computed again and compared"
        found = asdict(self.tally) | {"damage": tuple(dict.fromkeys(self.tally.damage))}
        return Verification(**found, inexact=self.model.predictor.inexact, covered=(covered,))

    def compare(
        self, kept: Window, logits: NDArray[np.float64], valid: Validity | None, mask: Mask
    ) -> None:
        """Compare the logits of one window, (outputs, rows, columns), with the mask."""
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
        # Blocks that could not be read whole may lack answers.
        excused = self._excused(inside)
        asked = self.plan.coverage.inside(inside)
        if asked is not None:
            answered = answered & asked
        span = float(np.ptp(logits)) or 1.0
        if self.nearest is not None:
            place = self.nearest.under(inside)
            if place is None:
                return
            rows, columns = self.nearest.taken(place)
            down, across = (rows - inside.y)[:, None], columns - inside.x
            logits, answered = logits[:, down, across], answered[down, across]
            excused, inside = excused[down, across], place
        self.tally.windows += 1
        product = self.plan.mask.product
        both = self._compare(product, mask.read(inside), logits, span, answered, excused)
        self.tally.pixels += int(both[0].sum())
        if not isinstance(mask, ZarrMask):
            return
        for product, layer in zip(mask.products[1:], mask.layers[1:], strict=True):
            self._compare(product, layer.read(inside), logits, span, answered, excused)

    def _compare(
        self,
        product: Product,
        written: NDArray[Any],
        logits: NDArray[np.float64],
        span: float,
        answered: NDArray[np.bool_],
        excused: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Compare the pixels of one product; returns where both sides have an answer."""
        silent = product.unanswered(written[None] if product.flat else written)
        deviation = product.deviation(written, logits, self.model.output)
        # An answer where none belongs, or none where one belongs, is never a tie.
        wrong = (silent == answered) & ~(silent & excused)
        both = answered & ~silent
        tolerance = product.tolerance(self.tally.tie_bound, span)
        if tolerance is None:
            self.tally.add_gaps(np.where(both, deviation / span, 0.0), wrong)
        else:
            difference = float(deviation[both].max(initial=0.0))
            self.tally.add_difference(difference, tolerance, int(wrong.sum()))
        return both

    def _excused(self, window: Window) -> NDArray[np.bool_]:
        """The pixels of a window that lie in blocks with unreadable parts."""
        excused = np.zeros(window.shape, np.bool_)
        for block in self.unreadable:
            common = block.intersect(window)
            if common is not None:
                excused[common.slices(window)] = True
        return excused
