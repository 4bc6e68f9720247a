"""Exact medians of many groups of values that are never in memory at once.

The bits of a float, put in order, are digits of a number. Each pass counts, for each group, the
next digit of the values that begin with the digits found so far, and so finds one digit more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Groups = NDArray[np.intp]
Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]

DIGIT = 11
"""Bits of a digit."""

DIGITS = -(-64 // DIGIT)

_SIGN = np.uint64(1 << 63)


def medians(
    parts: Callable[[], Iterable[tuple[Groups, Floats]]], counts: NDArray[np.int64]
) -> Floats:
    """The median of the values of each group; NaN of groups without any.

    Parameters
    ----------
    parts : callable
        Gives the values again each time that it is called, in parts: the group of each value, and
        the values, none of them NaN.
    counts : ndarray of int64, shape (n,)
        How many values each group has.

    Returns
    -------
    ndarray of float64, shape (n,)
        Of an even number of values, the mean of the two in the middle.
    """
    ranks = np.stack((np.maximum(counts - 1, 0) // 2, counts // 2))
    found = np.zeros(ranks.shape, np.uint64)
    for digit in reversed(range(DIGITS)):
        same = bool((found[0] == found[1]).all())
        below = [
            _digits(parts, found[end], digit).cumsum(1) for end in range(1 if same else 2)
        ]  # fmt: skip
        for end in range(2):
            sums = below[min(end, len(below) - 1)]
            digits = (sums <= ranks[end][:, None]).sum(1).clip(max=(1 << DIGIT) - 1)
            before = np.take_along_axis(sums, np.maximum(digits - 1, 0)[:, None], 1)[:, 0]
            ranks[end] -= np.where(digits > 0, before, 0)
            found[end] = (found[end] << np.uint64(DIGIT)) | digits.astype(np.uint64)
    middle = _values(found)
    return np.where(counts > 0, middle[0] + (middle[1] - middle[0]) / 2, np.nan)


def _digits(
    parts: Callable[[], Iterable[tuple[Groups, Floats]]], found: Keys, digit: int
) -> NDArray[np.int64]:
    """How often each digit follows those found, in each group; shape (n, 2048)."""
    counted = np.zeros(len(found) << DIGIT, np.int64)
    for groups, values in parts():
        keys = _keys(values)
        if digit < DIGITS - 1:
            follows = keys >> np.uint64(DIGIT * (digit + 1)) == found[groups]
            keys, groups = keys[follows], groups[follows]
        digits = (keys >> np.uint64(DIGIT * digit)) & np.uint64((1 << DIGIT) - 1)
        counted += np.bincount((groups << DIGIT) + digits.astype(np.intp), minlength=len(counted))
    return counted.reshape(len(found), 1 << DIGIT)


def _keys(values: Floats) -> Keys:
    """Numbers in the order of the values: negative values have all bits turned over."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _values(keys: Keys) -> Floats:
    bits = np.where(keys & _SIGN, keys & ~_SIGN, ~keys)
    return bits.view(np.float64)
