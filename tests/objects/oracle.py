"""What objects are, computed in the plainest way from a whole image in memory (DESIGN, Objects)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CORNERS = np.ones((3, 3), bool)


def numbered(groups: NDArray[Any], min_area: int = 0) -> NDArray[np.int64]:
    """Groups (0 for none), renumbered in raster order of their first pixels, without specks."""
    found: dict[int, int] = {}
    sizes = dict(zip(*np.unique(groups, return_counts=True), strict=True))
    out = np.zeros(groups.shape, np.int64)
    for place, group in np.ndenumerate(groups):
        if group and sizes[group] >= min_area:
            out[place] = found.setdefault(int(group), len(found) + 1)
    return out


def components(parts: NDArray[Any], min_area: int = 0) -> NDArray[np.int64]:
    total = np.zeros(parts.shape, np.int64)
    for value in np.unique(parts[(parts > 0) & (parts < 253)]):
        found, _ = ndimage.label(parts == value, CORNERS)
        total += np.where(found > 0, found + total.max(), 0)
    return numbered(total, min_area)


def split(parts: NDArray[Any], depth: float = 1.0, min_area: int = 0) -> NDArray[np.int64]:
    total = np.zeros(parts.shape, np.int64)
    for value in np.unique(parts[(parts > 0) & (parts < 253)]):
        found = _split(parts == value, depth)
        total += np.where(found > 0, found + total.max(), 0)
    return numbered(total, min_area)


def _split(inside: NDArray[np.bool_], depth: float) -> NDArray[np.int64]:
    distance = np.full(inside.shape, 24.0)
    background = np.argwhere(~inside)
    if len(background):
        for place in np.argwhere(np.ones(inside.shape, bool)):
            nearest = np.sqrt(((background - place) ** 2).sum(1).min())
            distance[tuple(place)] = min(24.0, nearest)
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    weights /= weights.sum()
    padded = np.pad(distance, 4, mode="edge")
    rows = sum(w * padded[k : k + len(inside)] for k, w in enumerate(weights))
    smooth = sum(w * rows[:, k : k + inside.shape[1]] for k, w in enumerate(weights))
    height = np.rint(np.asarray(smooth) * 64).astype(int)

    def neighbours(y: int, x: int) -> list[tuple[int, int]]:
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
        h, w = inside.shape
        return [p for p in around if 0 <= p[0] < h and 0 <= p[1] < w and inside[p]]

    peak: dict[tuple[int, int], tuple[int, int]] = {}

    def peak_of(place: tuple[int, int]) -> tuple[int, int]:
        way = []
        while True:
            way.append(place)
            better = [p for p in neighbours(*place) if height[p] > height[place]]
            if not better:
                break
            place = max(better, key=lambda p: (height[p], -p[0], -p[1]))
        for each in way:
            peak[each] = place
        return place

    places = [tuple(int(v) for v in p) for p in np.argwhere(inside)]
    for place in places:
        peak_of(place)  # type: ignore[arg-type]
    parent = {p: p for p in peak.values()}

    def root(p: tuple[int, int]) -> tuple[int, int]:
        while parent[p] != p:
            p = parent[p]
        return p

    for place in places:
        for other in neighbours(*place):  # type: ignore[arg-type]
            a, b = peak[place], peak[other]  # type: ignore[index]
            way_up = min(height[place], height[other])
            if a != b and way_up > min(height[a], height[b]) - depth * 64:
                parent[root(a)] = root(b)
    names: dict[tuple[int, int], int] = {}
    out = np.zeros(inside.shape, np.int64)
    for place in places:
        out[place] = names.setdefault(root(peak[place]), len(names) + 1)  # type: ignore[index]
    return out


def grown(seeds: NDArray[Any], border: NDArray[np.bool_], reach: int) -> NDArray[np.int64]:
    out = seeds.astype(np.int64)
    height, width = out.shape
    for _ in range(reach):
        before = out.copy()
        for y, x in np.argwhere(border & (before == 0)):
            near = [
                before[y + dy, x + dx]
                for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))
                if 0 <= y + dy < height and 0 <= x + dx < width and before[y + dy, x + dx]
            ]
            if near:
                out[y, x] = min(near)
    return out


def filled(parts: NDArray[Any], max_hole: int = 0) -> NDArray[np.uint8]:
    """Parts with each hole that one part encloses filled with it."""
    free, count = ndimage.label(parts == 0)
    out = parts.copy()
    padded = np.pad(parts, 1, constant_values=255)
    for number in range(1, count + 1):
        hole = np.pad(free == number, 1)
        around = np.zeros_like(hole)
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            around |= np.roll(hole, (dy, dx), (0, 1))
        values = np.unique(padded[around & ~hole])
        small = not max_hole or hole.sum() <= max_hole
        if len(values) == 1 and 0 < values[0] < 253 and small:
            out[hole[1:-1, 1:-1]] = values[0]
    return out


def merged(objects: NDArray[Any], min_area: int) -> NDArray[np.int64]:
    """Specks given to the neighbour that shares most edges with them; the others are dropped."""
    out = objects.astype(np.int64)
    sizes = np.bincount(out.reshape(-1))
    edges: dict[tuple[int, int], int] = {}
    for axis in (0, 1):
        ends = out.take(range(out.shape[axis] - 1), axis), out.take(range(1, out.shape[axis]), axis)
        for a, b in zip(*(end.reshape(-1).tolist() for end in ends), strict=True):
            for speck, other in ((a, b), (b, a)):
                if speck and other and sizes[speck] < min_area <= sizes[other]:
                    edges[speck, other] = edges.get((speck, other), 0) + 1
    becomes = np.arange(len(sizes))
    for speck in range(1, len(sizes)):
        if sizes[speck] < min_area:
            beside = {other: n for (one, other), n in edges.items() if one == speck}
            becomes[speck] = max(beside, key=lambda o: (beside[o], -o)) if beside else 0
    return numbered(becomes[out])
