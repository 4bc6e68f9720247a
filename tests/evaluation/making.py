"""What the tests of evaluation share: discs as objects, and scores counted one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import disk


def discs(seed: int, side: int = 90, count: int = 25) -> NDArray[np.int32]:
    """Objects of many sizes; later ones lie over earlier ones."""
    rng = np.random.default_rng(seed)
    numbered = np.zeros((side, side), np.int32)
    for number in range(1, count + 1):
        rows, columns = disk(rng.uniform(0, side, 2), rng.uniform(2, 9), shape=numbered.shape)
        numbered[rows, columns] = number
    return numbered


def brute_force(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[int, int, int, float, float]:
    """TP, FP, FN, and numerator and denominator of the AJI, object by object."""
    said = [predicted == n for n in np.unique(predicted) if n]
    true = [truth == n for n in np.unique(truth) if n]
    matched = common = union = 0
    used = set()
    for one in true:
        overlaps = [int((one & other).sum()) for other in said]
        ious = [n / int((one | other).sum()) for n, other in zip(overlaps, said, strict=True)]
        matched += sum(iou > 0.5 for iou in ious)
        if not any(overlaps):
            union += int(one.sum())
            continue
        best = max(range(len(said)), key=lambda i: (ious[i], overlaps[i]))
        used.add(best)
        common += overlaps[best]
        union += int((one | said[best]).sum())
    union += sum(int(other.sum()) for i, other in enumerate(said) if i not in used)
    return matched, len(said) - matched, len(true) - matched, common, union


def picture(*rows: str) -> NDArray[np.uint8]:
    """Labels from a drawing: digits are themselves, everything else is 0."""
    return np.array([[int(c) if c.isdigit() else 0 for c in row] for row in rows], np.uint8)
