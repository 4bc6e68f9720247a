"""Draw the nuclei that a run found in a small image: outlined, and a part of it enlarged.

    python workflows/first_picture.py out/sample.tif out/sample_mask.ome.zarr out/sample_nuclei.png

`make run` ends with it. It reads all of the image and all of the mask at once; for a slide, see the
`.png` that every run writes.
"""

from __future__ import annotations

import argparse
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

import tilepipe
from tilepipe.errors import InputError, TilepipeError
from tilepipe.grid import Window
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.whole import number_parts

NUCLEUS, NO_ANSWER = 1, 255
SMALLEST_UM2 = 3.75
"""Smaller parts are specks, and are neither drawn nor counted."""
LARGEST = 1 << 24
"""Pixels of a mask that is drawn."""

INK = "#fff200"
ENLARGED = 0.25
"""Side of the enlarged part, as a share of the whole."""


def objects_of(labels: NDArray[Any], pixel_um: float) -> NDArray[np.int64]:
    """The nuclei of a mask, numbered from 1: connected pixels, holes filled, no specks; (H, W)."""
    rule = ObjectRule(min_area=ceil(SMALLEST_UM2 / pixel_um**2), fill_holes=True)
    return number_parts((labels == NUCLEUS).astype(np.uint8), rule)


def outlines(objects: NDArray[np.int64], pixel_um: float) -> list[NDArray[np.float64]]:
    """Closed lines along the edges of the objects, each (N, 2) of x and y in micrometres."""
    lines = []
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        if place is None:  # no object has this number
            continue
        inside = np.pad(objects[place] == number, 1).astype(np.float64)
        corner = np.array([place[0].start, place[1].start]) - 0.5
        lines += [(line + corner)[:, ::-1] * pixel_um for line in find_contours(inside, 0.5)]
    return lines


def crowded(objects: NDArray[np.int64]) -> tuple[slice, slice]:
    """The part that is enlarged: of those side by side, the one with the most nuclei."""
    height, width = (round(side * ENLARGED) for side in objects.shape)
    places = [
        (slice(y, y + height), slice(x, x + width))
        for y in range(0, objects.shape[0] - height + 1, max(1, height // 4))
        for x in range(0, objects.shape[1] - width + 1, max(1, width // 4))
    ]
    return max(places, key=lambda place: np.unique(objects[place]).size)


def draw(pixels: NDArray[Any], objects: NDArray[np.int64], pixel_um: float, title: str) -> Figure:
    """The whole with its nuclei outlined, and a part enlarged, without and with outlines."""
    height, width = (side * pixel_um for side in objects.shape)
    rows, columns = crowded(objects)
    part = (columns.start, columns.stop, rows.stop, rows.start)
    left, right, bottom, top = (edge * pixel_um for edge in part)
    lines = outlines(objects, pixel_um)

    across, gap, above = 12.0, 0.08, 0.34
    tall = (across - gap) / 1.5 * height / width
    figure = Figure((across, tall + above), dpi=150)
    grid = figure.add_gridspec(
        2, 2, width_ratios=(2, 1), left=0, right=1, bottom=0, top=tall / (tall + above),
        wspace=gap / 4, hspace=gap / 3,
    )  # fmt: skip
    whole = figure.add_subplot(grid[:, 0])
    bare, outlined = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    for axes in (whole, bare, outlined):
        axes.imshow(pixels, extent=(0, width, height, 0), interpolation="bicubic")
        axes.set_axis_off()
        axes.set_aspect("auto")
        if axes is not bare:
            axes.add_collection(LineCollection(lines, colors=INK, linewidths=1.0))
    whole.set(xlim=(0, width), ylim=(height, 0))
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=2)
    whole.add_patch(frame)
    for axes in (bare, outlined):
        axes.set(xlim=(left, right), ylim=(bottom, top))
    scale_bar(whole)
    scale_bar(outlined)
    figure.text(0.004, 1 - 0.5 * above / (tall + above), title, va="center", size=12)
    return figure


def scale_bar(axes: Any) -> None:
    """A round length, at most a fifth of the width, at the lower right."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    most = (right - left) / 5
    power = 10.0 ** np.floor(np.log10(most))
    length = power * max(step for step in (1, 2, 5) if step * power <= most)
    x, y = right - 0.03 * (right - left), bottom - 0.05 * (bottom - top)
    axes.plot(
        (x - length, x), (y, y), color="white", lw=4, solid_capstyle="butt",
        path_effects=[withStroke(linewidth=6, foreground="black")],
    )  # fmt: skip
    axes.annotate(
        f"{length:g} µm", (x - length / 2, y), xytext=(0, 6), textcoords="offset points",
        color="white", ha="center", size=12,
        path_effects=[withStroke(linewidth=3, foreground="black")],
    )  # fmt: skip


def picture_of(image_path: Path, mask_path: Path, path: Path) -> str:
    """Write the picture; what it shows, in words.

    Raises
    ------
    InputError
        The mask is too large, or its pixels have no size.
    """
    mask = tilepipe.open_mask(mask_path)
    height, width = mask.shape
    metres = mask.pixel_size.metres() if mask.pixel_size else None
    if height * width > LARGEST:
        raise InputError(f"{mask_path} has {width} x {height} pixels, too many for this picture")
    if metres is None:
        raise InputError(f"{mask_path} has no pixel size")
    labels = mask.read(Window(0, 0, height, width))
    image = tilepipe.open_image(image_path)
    pixels = image.read(Window(0, 0, *image.shape[:2]))
    pixel_um = metres[0] * 1e6
    objects = objects_of(labels, pixel_um)
    count = np.unique(objects[objects > 0]).size
    square_mm = np.count_nonzero(labels != NO_ANSWER) * pixel_um**2 / 1e6
    density = f"{count / square_mm:,.0f}" if square_mm else "none"
    said = f"{count:,} nuclei in {square_mm:.3g} mm², {density} per mm²"
    draw(pixels, objects, pixel_um, f"{image_path.name}: {said}").savefig(path)
    return said


def main() -> None:
    """Draw the picture, and say what it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("mask", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    try:
        said = picture_of(options.image, options.mask, options.picture)
    except TilepipeError as error:
        raise SystemExit(f"There is no picture of nuclei: {error}") from error
    print(f"nuclei     {said}; touching ones count as one\npicture    {options.picture}")


if __name__ == "__main__":
    main()
