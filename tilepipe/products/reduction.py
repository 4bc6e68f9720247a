"""Reducing each 2 x 2 pixels to one, by vote or mean of those that have an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DENSE = 8
"""Where labels differ in more than one of so many places, all are voted on."""


def mode(labels: NDArray[np.uint8], no_answer: int) -> NDArray[np.uint8]:
    """The most frequent label of each 2 x 2 pixels; the lower one in a tie.

    Parameters
    ----------
    labels : ndarray of uint8, shape (..., H, W)
        Labels of one plane or several.
    no_answer : int
        The highest label, which wins only if all four pixels have it. Odd sides are padded with it.

    Returns
    -------
    ndarray of uint8, shape (..., ceil(H / 2), ceil(W / 2))
    """
    even = np.ascontiguousarray(_even(labels, no_answer))
    rows = even.reshape(-1, even.shape[-1])  # of all planes
    # Two labels at a time. Nearly everywhere all four are one, and there is nothing to vote on.
    top, bottom = rows[::2].view(np.uint16), rows[1::2].view(np.uint16)
    mixed = np.flatnonzero((top != bottom) | (top >> 8 != top & 0xFF))
    found: NDArray[np.uint8] = rows[::2, ::2].copy()
    if DENSE * mixed.size > found.size:  # noise, for which places would take too much memory
        return _vote(_quarters(even, no_answer), no_answer)
    if mixed.size:
        y, x = (2 * place for place in np.divmod(mixed, top.shape[1]))
        four = [rows[y + down, x + right] for down in (0, 1) for right in (0, 1)]
        found.reshape(-1)[mixed] = _vote(four, no_answer)
    return found.reshape(*even.shape[:-2], even.shape[-2] // 2, even.shape[-1] // 2)


def _vote(labels: list[NDArray[np.uint8]], no_answer: int) -> NDArray[np.uint8]:
    """The most frequent of four labels, pixel by pixel."""
    # Then equal labels are neighbours, and no answer comes last.
    a, b, c, d = _sorted(*labels)
    last = np.where((c == d) & (c != no_answer), c, a)
    middle = np.where((b == c) & (b != no_answer), b, last)
    found: NDArray[np.uint8] = np.where(a == b, a, middle)
    return found


def mode_of_objects(numbers: NDArray[Any]) -> NDArray[Any]:
    """The most frequent number of each 2 x 2 pixels; in a tie the lower one, and 0 last.

    So an object that has half of the four pixels is kept. Pixels beyond odd sides do not vote.

    Parameters
    ----------
    numbers : ndarray of an unsigned type, shape (..., H, W)
        0 is no object.

    Returns
    -------
    ndarray of the same type, shape (..., ceil(H / 2), ceil(W / 2))
    """
    height, width = numbers.shape[-2:]
    sides = [(0, 0)] * (numbers.ndim - 2) + [(0, height % 2), (0, width % 2)]
    one = numbers.dtype.type(1)
    # One less, so that 0 becomes the highest number.
    lowered = np.pad(numbers, sides, mode="edge") - one
    a, b, c, d = _sorted(*_quarters(lowered, 0))
    found = np.where(b == c, b, np.where(c == d, c, a))
    reduced: NDArray[Any] = np.where(a == b, a, found) + one
    return reduced


def mean(values: NDArray[Any]) -> NDArray[Any]:
    """The mean of each 2 x 2 pixels without NaN; NaN if all four are.

    The shape (..., H, W) becomes (..., ceil(H / 2), ceil(W / 2)); the dtype is kept.
    """
    quarters = _quarters(values, np.nan)
    # Wider than the pixels, so that the sum of four does not overflow.
    total = np.zeros(quarters[0].shape, np.float32 if values.dtype == np.float16 else np.float64)
    count = np.zeros(quarters[0].shape, np.uint8)
    for quarter in quarters:
        valid = ~np.isnan(quarter)
        np.add(total, quarter, out=total, where=valid)
        count += valid
    found = np.full_like(total, np.nan)
    np.divide(total, count, out=found, where=count > 0)
    return found.astype(values.dtype)


def rounded_mean(values: NDArray[np.uint8], no_answer: int) -> NDArray[np.uint8]:
    """The mean of each 2 x 2 pixels, rounded half up, without those that are ``no_answer``.

    The shape (..., H, W) becomes (..., ceil(H / 2), ceil(W / 2)).
    """
    quarters = _quarters(values, no_answer)
    total = np.zeros(quarters[0].shape, np.uint16)
    count = np.zeros(quarters[0].shape, np.uint16)
    for quarter in quarters:
        valid = quarter != no_answer
        np.add(total, quarter, out=total, where=valid)
        count += valid
    found = (total + count // 2) // np.maximum(count, 1)
    return np.where(count > 0, found, no_answer).astype(np.uint8)


def _sorted(
    a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Four arrays in ascending order, pixel by pixel, by a sorting network."""
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    b, c = np.minimum(b, c), np.maximum(b, c)
    return a, b, c, d


def _quarters(array: NDArray[Any], pad: float) -> list[NDArray[Any]]:
    array = _even(array, pad)
    return [array[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]


def _even(array: NDArray[Any], pad: float) -> NDArray[Any]:
    """An array (..., H, W) of which odd sides are padded."""
    height, width = array.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return array
    sides = [(0, 0)] * (array.ndim - 2) + [(0, height % 2), (0, width % 2)]
    return np.pad(array, sides, constant_values=pad)
