"""Find which pictures of the 2018 Data Science Bowl were cut from one field, and split by field.

    python workflows/dsb2018_fields.py DATA_FOLDER -o workflows/dsb2018_fields.csv \
        --show sheet.png --pairs out/pairs

DATA_FOLDER holds `images/*.png`, `labels/*.png` and `index.tsv`. The set does not say which of
its pictures are neighbouring crops of one microscope field. Three things say it here:

Seams. Where two crops lie side by side, the step from the last column of one to the first of
the other is as small as the steps between columns inside a picture. The *misfit* of a seam is
the mean squared step across it over the mean squared step beside it: 1 between neighbours. A
border that is empty fits every other empty border, so a seam must also be *telling*: its contrast
along the border is large against the step. Seams that cannot be (one border reversed, or a border
against the same border of another picture) show how often chance fits as well.

Overlaps. Phase correlation finds the shift at which two pictures may show the same thing, and the
correlation of what they then share says whether they do: crops that overlap, and duplicates.

Look-alikes. A group of crops may have a neighbour that no seam shows: its free borders are too
empty to tell, or it is a block that touches the next only at a corner. Such open groups are held
together when the level, the tint and the noise of their backgrounds differ no more than they do
within fields.

Every field goes to one side of the split as a whole.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import fft
from scipy.ndimage import gaussian_filter, gaussian_filter1d

SPLITS = {"train": 0.70, "validation": 0.15, "test": 0.15}
Seam = tuple[str, int, int]  # the side of the first picture, the first, the second
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
SEAMS = (("right", "left"), ("bottom", "top"))
IMPOSSIBLE = tuple((side, side) for side in SIDES)

LOG_OFFSET = 4.0  # grey levels; logarithms make dim fields as telling as bright ones
STEP_FLOOR = 2e-4  # mean squared step of the rounding to whole grey levels
CLEAR, FAINT = 2.0, 6.0  # pixels of smoothing along the border
CLEAR_MISFIT, CLEAR_TELLING = 2.0, 4.0
FAINT_MISFIT, FAINT_LEAD = 3.0, 2.0
COARSE = 4
SHARED_COARSE, SHARED_EXACT, SHARED_PART = 0.5, 0.9, 1 / 16
LOOK_ALIKE = 0.9  # the part of neighbours inside fields that look at least as much alike
FEW = 8  # pictures of one size; fewer are taken as one field


@dataclass(eq=False)
class Picture:
    """One picture of the set.

    Attributes
    ----------
    name, kind
        Its id and kind in the index.
    pixels
        uint8, (height, width, 3), or (height, width, 1) where the picture is grey.
    """

    name: str
    kind: str
    pixels: np.ndarray

    @property
    def dark(self) -> bool:
        """Whether the background is dark."""
        return self.kind == "fluo"

    @property
    def stratum(self) -> tuple[str, int, int]:
        """The pictures it may be a neighbour of: fluo, stained or gray, and the size."""
        height, width = self.pixels.shape[:2]
        return self.kind.split("_")[0], width, height


@dataclass
class Group:
    """Pictures of one field, each with its column and row in the grid of crops."""

    places: dict[int, tuple[int, int]]
    open: bool = False


@dataclass
class Stratum:
    """All that was found among pictures of one family and size."""

    pictures: list[Picture]
    seams: list[Seam] = field(default_factory=list)
    rivals: list[Seam] = field(default_factory=list)
    faint: int = 0
    overlaps: list[tuple[int, int]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    fields: list[list[int]] = field(default_factory=list)
    possible: np.ndarray = field(default_factory=lambda: np.zeros(0))
    impossible: np.ndarray = field(default_factory=lambda: np.zeros(0))
    chance: int = 0
    looks: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    alike: float = 0.0


class Union:
    """Disjoint sets of numbers."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        """The representative of the set of i."""
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one set of two; the smaller representative stays."""
        low, high = sorted((self.find(i), self.find(j)))
        self.parent[high] = low

    def sets(self) -> list[list[int]]:
        """All sets, by their smallest member."""
        members = defaultdict(list)
        for i in range(len(self.parent)):
            members[self.find(i)].append(i)
        return list(members.values())


def load(folder: Path) -> list[Picture]:
    """All pictures of the set in the order of the index."""
    with (folder / "index.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    pictures = []
    for row in rows:
        pixels = np.asarray(Image.open(folder / "images" / f"{row['id']}.png").convert("RGB"))
        if (pixels == pixels[..., :1]).all():
            pixels = pixels[..., :1]
        pictures.append(Picture(row["id"], row["kind"], pixels))
    return pictures


def logarithms(pictures: Sequence[Picture]) -> list[np.ndarray]:
    """The pictures as float32 logarithms, all with the same number of channels."""
    channels = max(p.pixels.shape[2] for p in pictures)
    return [
        np.broadcast_to(
            np.log(p.pixels.astype(np.float32) + LOG_OFFSET), (*p.pixels.shape[:2], channels)
        )
        for p in pictures
    ]


# --- Seams ---------------------------------------------------------------------------------------


def borders(logs: Sequence[np.ndarray], sigma: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each side the outermost line of every picture and the line beside it.

    Returns
    -------
    side -> (outer, inner), each (pictures, length, channels), smoothed along the border.
    """
    lines = {
        "left": [(a[:, 0], a[:, 1]) for a in logs],
        "right": [(a[:, -1], a[:, -2]) for a in logs],
        "top": [(a[0], a[1]) for a in logs],
        "bottom": [(a[-1], a[-2]) for a in logs],
    }
    return {
        side: (
            gaussian_filter1d(np.stack([o for o, _ in pairs]), sigma, axis=1, mode="nearest"),
            gaussian_filter1d(np.stack([i for _, i in pairs]), sigma, axis=1, mode="nearest"),
        )
        for side, pairs in lines.items()
    }


def compare(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Misfit and tellingness of every border of ``first`` against every one of ``second``.

    Returns
    -------
    misfit
        Mean squared step across the seam over that beside it, (pictures, pictures).
    telling
        Variance along the two borders over the mean squared step beside the seam.
    """
    (a, a_inner), (b, b_inner) = first, second
    step = ((a - a_inner) ** 2).mean((1, 2))[:, None] + ((b - b_inner) ** 2).mean((1, 2))[None]
    step = step / 2 + STEP_FLOOR
    contrast = a.var(1).mean(1)[:, None] + b.var(1).mean(1)[None]
    flat_a, flat_b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    squares = (flat_a**2).mean(1)[:, None] + (flat_b**2).mean(1)[None]
    across = squares - 2 * flat_a @ flat_b.T / flat_a.shape[1]
    return across / step, contrast / step


def reverse(border: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The border read from its other end."""
    return border[0][:, ::-1], border[1][:, ::-1]


def mutual(misfit: np.ndarray, lead: float = 1.0) -> list[tuple[int, int]]:
    """Pairs that fit each other best, ``lead`` times better than either fits anything else."""
    pairs = []
    for i, j in enumerate(misfit.argmin(1)):
        if not np.isfinite(misfit[i, j]) or misfit[:, j].argmin() != i:
            continue
        others = np.concatenate([np.delete(misfit[i], j), np.delete(misfit[:, j], i)])
        if others.size == 0 or others.min() >= lead * misfit[i, j]:
            pairs.append((i, int(j)))
    return pairs


def clear_fits(misfit: np.ndarray, telling: np.ndarray) -> np.ndarray:
    """The misfit of seams that are telling and fit, infinite for all others."""
    fits = (misfit < CLEAR_MISFIT) & (telling > CLEAR_TELLING) & ~np.eye(len(misfit), dtype=bool)
    return np.where(fits, misfit, np.inf)


def find_seams(found: Stratum, logs: Sequence[np.ndarray]) -> None:
    """Find the clear seams, then faint ones among the borders that are still free."""
    n = len(logs)
    others = ~np.eye(n, dtype=bool)
    lines = borders(logs, CLEAR)
    free = {side: np.ones(n, dtype=bool) for side in SIDES}
    possible, impossible = [], []
    for one, two in SEAMS:
        misfit, telling = compare(lines[one], lines[two])
        possible.append(misfit[others & (telling > CLEAR_TELLING)])
        fits = clear_fits(misfit, telling)
        found.rivals += [(one, int(i), int(j)) for i, j in np.argwhere(np.isfinite(fits))]
        for i, j in mutual(fits):
            found.seams.append((one, i, j))
            free[one][i] = free[two][j] = False
        misfit, telling = compare(lines[one], reverse(lines[two]))
        impossible.append(misfit[others & (telling > CLEAR_TELLING)])
        found.chance += len(mutual(clear_fits(misfit, telling)))
    for one, two in IMPOSSIBLE:
        misfit, telling = compare(lines[one], lines[two])
        impossible.append(misfit[others & (telling > CLEAR_TELLING)])
    found.possible, found.impossible = np.concatenate(possible), np.concatenate(impossible)

    lines = borders(logs, FAINT)
    candidates = []
    for one, two in SEAMS:
        misfit, _ = compare(lines[one], lines[two])
        misfit = np.where(others & free[one][:, None] & free[two][None], misfit, np.inf)
        candidates += [(misfit[i, j], one, i, j) for i, j in mutual(misfit, FAINT_LEAD)]
    for misfit, one, i, j in sorted(candidates):
        if misfit < FAINT_MISFIT and completes(found.seams, (one, i, j)):
            found.seams.append((one, i, j))
            found.faint += 1


def completes(seams: Sequence[Seam], seam: Seam) -> bool:
    """Whether the groups that a seam joins lie within 2 x 2 crops and on different places."""
    places = place(seam[1:2], [*seams, seam])
    taken = set(places.values())
    return len(taken) == len(places) and max(np.ptp(list(taken), axis=0)) <= 1


def place(start: Iterable[int], seams: Sequence[Seam]) -> dict[int, tuple[int, int]]:
    """Column and row of all that hangs together with ``start`` in the grid of crops."""
    steps = defaultdict(list)
    for side, i, j in seams:
        dx, dy = SIDES[side]
        steps[i].append((j, dx, dy))
        steps[j].append((i, -dx, -dy))
    places: dict[int, tuple[int, int]] = {}
    for first in start:
        if first in places:
            continue
        places[first] = (0, 0)
        queue = [first]
        while queue:
            i = queue.pop(0)
            for j, dx, dy in steps[i]:
                if j not in places:
                    places[j] = (places[i][0] + dx, places[i][1] + dy)
                    queue.append(j)
    return places


# --- Overlaps ------------------------------------------------------------------------------------


def flattened(log: np.ndarray, factor: int) -> np.ndarray:
    """The picture reduced by ``factor``, without what is larger than some nuclei."""
    height, width = (n // factor * factor for n in log.shape[:2])
    grey = log[:height, :width].mean(2)
    small = grey.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    return small - gaussian_filter(small, 24 / factor)


def shared(a: np.ndarray, b: np.ndarray, dy: int, dx: int) -> float:
    """Correlation of what two pictures share when ``b`` lies (dy, dx) from ``a``."""
    h, w = a.shape
    part_a = a[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
    part_b = b[max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)]
    if part_a.size < SHARED_PART * a.size:
        return 0.0
    return float(np.corrcoef(part_a.ravel(), part_b.ravel())[0, 1])


def whitened(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The spectrum of a picture with fading borders, most of its sizes levelled."""
    h, w = picture.shape
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]) ** 0.3
    spectrum = fft.rfft2((picture * window).astype(np.float32), shape)
    size = np.abs(spectrum)
    return spectrum / (size + 0.3 * size.mean())


def find_overlaps(logs: Sequence[np.ndarray]) -> list[tuple[int, int, float]]:
    """Pairs that may overlap, with the correlation of what they then share at full resolution."""
    small = [flattened(log, COARSE) for log in logs]
    large = [flattened(log, 1) for log in logs]
    shape = tuple(fft.next_fast_len(2 * n, real=True) for n in small[0].shape)
    white = [whitened(picture, shape) for picture in small]
    near = range(-COARSE, COARSE + 1)
    pairs = []
    for j in range(len(logs)):
        for i in range(j):
            correlation = fft.irfft2(white[i] * white[j].conj(), shape)
            top = divmod(int(correlation.argmax()), shape[1])
            dy, dx = (d - n if d > n // 2 else d for d, n in zip(top, shape, strict=True))
            if shared(small[i], small[j], dy, dx) > SHARED_COARSE:
                y, x = dy * COARSE, dx * COARSE
                exact = max(shared(large[i], large[j], y + v, x + u) for v in near for u in near)
                pairs.append((i, j, exact))
    return pairs


# --- Groups and look-alikes ----------------------------------------------------------------------


def extent(places: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Columns and rows that a group spans."""
    columns, rows = np.ptp(list(places.values()), axis=0) + 1
    return int(columns), int(rows)


def is_open(places: dict[int, tuple[int, int]], telling: dict[str, np.ndarray]) -> bool:
    """Whether a crop may be missing that no border could have told of.

    The fields were cut in grids of at least 2 x 2. What is missing of that lies inside the
    rectangle around the group, or beside it where it is one crop wide or high. More than one
    such grid but not whole ones are neighbours by chance.
    """
    if len(places) > 4 and len(places) % 4:
        return True
    taken = set(places.values())
    spans = extent(places)
    low = np.min(list(taken), axis=0)
    told: dict[tuple[int, int], bool] = {}
    for i, (x, y) in places.items():
        for side, (dx, dy) in SIDES.items():
            spot = (x + dx, y + dy)
            inside = all(low[k] <= spot[k] < low[k] + spans[k] for k in (0, 1))
            if spot in taken or not (inside or spans[0 if dx else 1] == 1):
                continue
            told[spot] = told.get(spot, False) or bool(telling[side][i])
    return not all(told.values())


def background(picture: Picture) -> np.ndarray:
    """Level and tint of the background and its noise, as logarithms."""
    values = np.log(picture.pixels.astype(np.float32) + LOG_OFFSET)
    grey = picture.pixels.mean(2, dtype=np.float32)
    half = grey <= np.median(grey) if picture.dark else grey >= np.median(grey)
    level = np.broadcast_to(values[half].mean(0), 3)
    curve = 4 * grey[1:-1, 1:-1] - grey[2:, 1:-1] - grey[:-2, 1:-1]
    curve = curve - grey[1:-1, 2:] - grey[1:-1, :-2]
    noise = np.log(curve[half[1:-1, 1:-1]].std() / 20**0.5 + 0.02)
    return np.array([level.mean(), level[0] - level[1], level[2] - level[1], noise])


def look_distances(found: Stratum) -> np.ndarray:
    """How different the backgrounds are: 1 is as different as neighbours within a field are."""
    looks = np.stack([background(p) for p in found.pictures])
    steps = np.array([looks[i] - looks[j] for _, i, j in found.seams]).reshape(-1, 4)
    scale = 1.4826 * np.median(np.abs(steps), axis=0) if len(steps) else np.full(4, 0.05)
    looks = looks / np.maximum(scale, 0.01)
    return np.sqrt(((looks[:, None] - looks[None]) ** 2).mean(2))


def find_fields(pictures: Sequence[Picture]) -> Stratum:
    """Group pictures of one family and size into fields."""
    found = Stratum(list(pictures))
    n = len(pictures)
    logs = logarithms(pictures)
    union = Union(n)
    if n > 1:
        find_seams(found, logs)
        for i, j, correlation in find_overlaps(logs):
            if correlation > SHARED_EXACT:
                found.overlaps.append((i, j))
    for i, j in [s[1:] for s in found.seams] + found.overlaps:
        union.join(i, j)

    lines = borders(logs, CLEAR)
    telling = {
        side: np.array(compare(line, line)[1].diagonal() > CLEAR_TELLING)
        for side, line in lines.items()
    }
    for one, two in SEAMS:  # where something fits but fits something else better, nothing is told
        for i, j in (seam[1:] for seam in found.rivals if seam[0] == one):
            telling[one][i] = telling[two][j] = False
    layouts = [place(members, found.seams) for members in union.sets()]
    usual = float(np.median([max(extent(places)) for places in layouts]))
    for places in layouts:  # where fields are larger, two blocks may touch only at a corner
        small = max(extent(places)) < usual
        found.groups.append(Group(places, small or is_open(places, telling)))

    found.looks = look_distances(found)
    within = [found.looks[i, j] for _, i, j in found.seams]
    found.alike = float(np.quantile(within, LOOK_ALIKE)) if within else 1.0
    unsure = [list(g.places) for g in found.groups if g.open]
    for k, one in enumerate(unsure):
        for two in unsure[:k]:
            if found.looks[np.ix_(one, two)].min() < found.alike:
                union.join(one[0], two[0])
    if n < FEW:
        for i in range(n):
            union.join(0, i)
    found.fields = union.sets()
    return found


# --- The split -----------------------------------------------------------------------------------


def split(found: Stratum) -> list[str]:
    """The side of each field: from dim to bright, always the side that has least of its share."""
    level = [float(background(p)[0]) for p in found.pictures]
    order = sorted(
        range(len(found.fields)),
        key=lambda k: (np.mean([level[i] for i in found.fields[k]]), found.fields[k][0]),
    )
    has = dict.fromkeys(SPLITS, 0)
    sides = [""] * len(found.fields)
    for k in order:
        size = len(found.fields[k])
        seen = sum(has.values()) + size
        sides[k] = max(SPLITS, key=lambda side: SPLITS[side] * seen - has[side])
        has[sides[k]] += size
    return sides


def assign(strata: Sequence[Stratum]) -> dict[str, tuple[str, str]]:
    """Field and side of every picture by its name."""
    assigned = {}
    for found in strata:
        family, width, height = found.pictures[0].stratum
        for k, (members, side) in enumerate(zip(found.fields, split(found), strict=True), 1):
            for i in members:
                name = f"{family}-{width}x{height}-{k:03d}"
                assigned[found.pictures[i].name] = (name, side)
    return assigned


def by_stratum(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """The pictures of each family and size, by name."""
    strata = defaultdict(list)
    for picture in sorted(pictures, key=lambda p: p.name):
        strata[picture.stratum].append(picture)
    return [strata[key] for key in sorted(strata)]


# --- Output --------------------------------------------------------------------------------------


def write_fields(
    path: Path, pictures: Sequence[Picture], assigned: dict[str, tuple[str, str]]
) -> None:
    """Write id, kind, field and split of every picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "kind", "field", "split"])
        for picture in sorted(pictures, key=lambda p: p.name):
            writer.writerow([picture.name, picture.kind, *assigned[picture.name]])


def write_pairs(
    folder: Path,
    data: Path,
    pictures: Sequence[Picture],
    assigned: dict[str, tuple[str, str]],
) -> None:
    """Write `fluo.csv` and `stained.csv`: image, mask (instance labels), split and group.

    Fluorescence is one band that the set stores three times; it is written anew as one.
    """
    grey = folder.resolve() / "fluo"
    grey.mkdir(parents=True, exist_ok=True)
    for family in ("fluo", "stained"):
        with (folder / f"{family}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "mask", "split", "group"])
            for picture in sorted(pictures, key=lambda p: p.name):
                if picture.stratum[0] == family:
                    name, side = assigned[picture.name]
                    image, mask = (
                        data.resolve() / d / f"{picture.name}.png" for d in ("images", "labels")
                    )
                    if family == "fluo":
                        with Image.open(image) as opened:
                            image = grey / image.name
                            opened.getchannel(0).save(image)
                    writer.writerow([image, mask, side, name])


def thumbnail(picture: Picture, width: int) -> Image.Image:
    """The picture at a width, fluorescence stretched to be seen."""
    pixels = picture.pixels.astype(np.float32)
    if picture.dark:
        low, high = np.log(pixels.min() + LOG_OFFSET), np.log(pixels.max() + LOG_OFFSET)
        pixels = 255 * (np.log(pixels + LOG_OFFSET) - low) / max(high - low, 0.1)
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).clip(0, 255).astype(np.uint8)
    height = round(width * rgb.shape[0] / rgb.shape[1])
    return Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX)


def mosaic(found: Stratum, places: dict[int, tuple[int, int]], width: int) -> Image.Image:
    """The crops of a group in their places, with nothing between them."""
    taken = np.array(list(places.values()))
    low, (columns, rows) = taken.min(0), np.ptp(taken, axis=0) + 1
    pieces = {i: thumbnail(found.pictures[i], width) for i in places}
    height = next(iter(pieces.values())).height
    sheet = Image.new("RGB", (int(columns) * width, int(rows) * height), (90, 60, 30))
    for i, (x, y) in places.items():
        sheet.paste(pieces[i], (int(x - low[0]) * width, int(y - low[1]) * height))
    return sheet


def histogram(found: Stratum, size: tuple[int, int]) -> Image.Image:
    """How the misfit of telling seams is distributed: possible in blue, impossible in grey."""
    width, height = size
    edges = np.linspace(-0.5, 3.5, 81)
    chart = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(chart)
    inner = height - 30
    counts = [
        np.histogram(np.log10(np.maximum(values, 1e-9)), edges)[0] * weight
        for values, weight in ((found.possible, 1), (found.impossible, 1 / 3))
    ]  # there are three times as many impossible seams
    top = np.log10(max(c.max() for c in counts) + 2)
    for values, colour, shift in zip(counts, ((40, 90, 200), (150, 150, 150)), (0, 2), strict=True):
        for k, value in enumerate(values):
            bar = int(inner * np.log10(value + 1) / top)
            left = 5 + k * (width - 10) / (len(edges) - 1) + shift
            draw.rectangle((left, height - 15 - bar, left + 1.5, height - 15), fill=colour)
    limit = 5 + (np.log10(CLEAR_MISFIT) + 0.5) / 4 * (width - 10)
    draw.line((limit, 15, limit, height - 15), fill=(200, 40, 40))
    family, w, h = found.pictures[0].stratum
    draw.text((5, 2), f"{family} {w} x {h}: seams by misfit (both axes logarithmic)", "black")
    for tick in (0, 1, 2, 3):
        x = 5 + (tick + 0.5) / 4 * (width - 10)
        draw.text((x, height - 12), f"{10**tick}", "black")
    return chart


def show(path: Path, strata: Sequence[Stratum], examples: int = 7) -> None:
    """Draw the histograms of the misfit and examples of matched groups."""
    large = [s for s in strata if len(s.seams) >= FEW]
    width, margin = 900, 8
    sheet = Image.new("RGB", (width, 4000), "white")
    draw = ImageDraw.Draw(sheet)
    y = margin
    for k, found in enumerate(large):
        x = margin + k % 2 * (width // 2)
        sheet.paste(histogram(found, (width // 2 - 2 * margin, 130)), (x, y))
        if k % 2 or k == len(large) - 1:
            y += 130 + margin
    for found in large:
        family, w, h = found.pictures[0].stratum
        several = [g.places for g in found.groups if len(g.places) > 1]
        chosen = several[:: max(1, len(several) // examples)][:examples]
        draw.text((margin, y), f"{family} {w} x {h}: {len(several)} groups with seams", "black")
        y, x, tallest = y + 14, margin, 0
        for places in chosen:
            piece = mosaic(found, places, 56)
            if x + piece.width > width:
                continue
            sheet.paste(piece, (x, y))
            x, tallest = x + piece.width + margin, max(tallest, piece.height)
        y += tallest + margin
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.crop((0, 0, width, y)).quantize(48).save(path, optimize=True)


def report(strata: Sequence[Stratum], assigned: dict[str, tuple[str, str]]) -> None:
    """Print what was found."""
    for found in strata:
        family, w, h = found.pictures[0].stratum
        sizes = sorted((len(f) for f in found.fields), reverse=True)
        sides = [assigned[p.name][1] for p in found.pictures]
        across = [seam for seam in found.rivals if sides[seam[1]] != sides[seam[2]]]
        print(
            f"{family} {w} x {h}: {len(found.pictures)} pictures, {len(found.fields)} fields\n"
            f"    {len(found.seams) - found.faint} clear seams (reversed: {found.chance}), "
            f"{found.faint} faint ones, {len(found.overlaps)} overlaps, "
            f"{sum(g.open for g in found.groups)} open groups; "
            f"seams that fit across the split: {len(across)}"
        )
        print(f"    pictures per field: {' '.join(map(str, sizes))}")
        print("    " + ", ".join(f"{side} {sides.count(side)}" for side in SPLITS))


def main() -> None:
    """Find the fields, split, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=Path("fields.csv"))
    parser.add_argument("--show", type=Path, metavar="PNG", help="draw how it was found")
    parser.add_argument("--pairs", type=Path, metavar="FOLDER", help="write lists to train with")
    arguments = parser.parse_args()

    pictures = load(arguments.data)
    strata = [find_fields(members) for members in by_stratum(pictures)]
    assigned = assign(strata)
    write_fields(arguments.output, pictures, assigned)
    report(strata, assigned)
    if arguments.show:
        show(arguments.show, strata)
    if arguments.pairs:
        write_pairs(arguments.pairs, arguments.data, pictures, assigned)


if __name__ == "__main__":
    main()
