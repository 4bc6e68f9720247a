"""Draw rules.png: one mask, and its objects by each of the three rules.

Run it in this folder; it needs matplotlib.
"""

from __future__ import annotations

import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from scipy import ndimage

import tilepipe

# Centre (y, x) and radii of ellipses: a touching pair, one alone, one that is long, and a speck.
NUCLEI = (
    (16, 18, 12.3, 14.3), (20, 42, 14.3, 13.3), (14, 78, 9.3, 11.3), (47, 26, 8.3, 20.3),
    (48, 66, 1.5, 1.5),
)  # fmt: skip
HEIGHT, WIDTH = 60, 94
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#66ccee")


def mask() -> np.ndarray:
    """0 background, 1 the inside of nuclei, 2 the rim of each, 3 pixels wide."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, column, height, width in NUCLEI:
        whole = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 <= 1
        labels[whole & (labels == 0)] = 2
        labels[ndimage.binary_erosion(whole, iterations=3)] = 1
    labels[14:17, 73:76] = 0  # a hole
    return labels


def outlines(folder: pathlib.Path, labels: np.ndarray, **options: object) -> list[list[np.ndarray]]:
    """The rings of the objects of a mask, in the order of their numbers."""
    tifffile.imwrite(folder / "mask.tif", labels)
    table = folder / "objects.parquet"
    tilepipe.find_objects(folder / "mask.tif", outputs=[table], overwrite=True, **options)
    shapes = tilepipe.open_objects(table).to_geopandas().geometry
    return [[np.asarray(r.coords) for r in (s.exterior, *s.interiors)] for s in shapes]


def main() -> None:
    """Draw the picture."""
    labels = mask()
    nuclei = (labels > 0).astype(np.uint8)
    two, three = "0=background,1=nucleus", "0=background,1=core,2=border"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = {
            "components": outlines(folder, nuclei, classes=two),
            "split": outlines(folder, nuclei, classes=two, method="split"),
            "seeded": outlines(folder, labels, classes=three, method="seeded", border="border"),
            "split, specks dropped, holes filled": outlines(
                folder, nuclei, classes=two, method="split", min_area="20", fill_holes=True
            ),
        }
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.3), layout="constrained")
    for axis, (title, objects) in zip(axes, found.items(), strict=True):
        grey = np.choose(labels if title == "seeded" else nuclei, (255, 150, 205))
        axis.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, WIDTH, HEIGHT, 0))
        for number, rings in enumerate(objects):
            colour = COLOURS[number % len(COLOURS)]
            path = Path.make_compound_path(*(Path(ring, closed=True) for ring in rings))
            axis.add_patch(PathPatch(path, facecolor=colour + "60", edgecolor=colour, linewidth=2))
            (x, y), (x2, y2) = rings[0].min(axis=0), rings[0].max(axis=0)
            at = ((x + x2) / 2, (y + y2) / 2) if x2 - x > 6 else (x2 + 4, (y + y2) / 2)
            axis.text(*at, number + 1, ha="center", va="center", fontsize=12)
        axis.set_title(f"{title}: {len(objects)}", fontsize=11)
        axis.set_axis_off()
    figure.savefig("rules.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
