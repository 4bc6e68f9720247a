"""Many linked lists put in order at once, and other arithmetic of ragged arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Index = NDArray[np.int64]

ENDS = -1
"""The successor of the last of an open list."""


def groups(count: int, one: Index, other: Index) -> Index:
    """The group of each of ``count`` things, of which some pairs belong together.

    Groups are numbered 0, 1, 2 ... in the order of their first members.
    """
    return in_order_of_first(connected(count, one, other))


def connected(count: int, one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int32]:
    """The same, with groups numbered in no order, but for the first thing, whose group is 0."""
    graph = sparse.coo_matrix((np.ones(len(one), bool), (one, other)), (count, count))
    return np.asarray(csgraph.connected_components(graph, directed=False)[1], np.int32)


def in_order_of_first(names: NDArray[Any]) -> Index:
    """Rename groups to 0, 1, 2 ... in the order in which they appear; (n,)."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse])


def walks(successor: Index) -> tuple[Index, Index]:
    """Follow all lists, open ones and cycles, from their first to their last element.

    Parameters
    ----------
    successor : ndarray of int, shape (n,)
        The element after each; `ENDS` for none. No element is the successor of two.

    Returns
    -------
    order : ndarray of int64, shape (n,)
        The elements of one list after another. A cycle begins with its lowest element; lists come
        in the order of their lowest.
    offsets : ndarray of int64, shape (lists + 1,)
        Where each begins in ``order``.
    """
    count = len(successor)
    if not count:
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    linked = np.flatnonzero(successor >= 0)
    path = np.array(successor, np.int64)
    member = groups(count, linked, path[linked])
    sizes = np.bincount(member)
    first = np.empty(len(sizes), np.int64)
    first[member[::-1]] = np.arange(count)[::-1]
    headless = np.ones(count, bool)
    headless[path[linked]] = False
    heads = np.flatnonzero(headless)
    first[member[heads]] = heads
    # One long path through all lists is what scipy puts in order in one pass.
    starts = np.zeros(count, bool)
    starts[first] = True
    last = np.flatnonzero((path < 0) | starts[path])
    after = np.append(first[1:], ENDS)
    path[last] = after[member[last]]
    onward = path >= 0
    graph = sparse.csr_matrix(
        (
            np.ones(count - 1, bool),
            path[onward].astype(np.int32),
            np.concatenate(([0], np.cumsum(onward))).astype(np.int32),
        ),
        (count, count),
    )
    order = csgraph.breadth_first_order(graph, int(first[0]), return_predecessors=False)
    return order.astype(np.int64), offsets_of(sizes)


def offsets_of(sizes: NDArray[Any]) -> Index:
    """Where each of several pieces begins, and where the last ends: (n + 1,)."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))


def ranges(starts: NDArray[Any], sizes: NDArray[Any]) -> Index:
    """The numbers ``start, start + 1 ...`` of each range, one range after another."""
    sizes = np.asarray(sizes, np.int64)
    begin = offsets_of(sizes)
    shift = np.asarray(starts, np.int64) - begin[:-1]
    return np.arange(begin[-1]) + np.repeat(shift, sizes)
