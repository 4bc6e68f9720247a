"""One slide and one scene whose answer is known, and what tilepipe makes of them.

The network is a convolution of 1 x 1 that gives the colours of a pixel as its scores, so that the
picture is painted in classes and every mask is known in advance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

import tilepipe
from tests.images.making import write_scene
from tests.making import write_tiff
from tilepipe.images import PixelSize
from tilepipe.models import ClassSpec, InputSpec, OutputSpec, import_onnx
from tilepipe.models.file import save_model

SHAPE = (1100, 1400)
"""Rows and columns; three levels."""

CLASSES = (
    ClassSpec("background", "#000000"),
    ClassSpec("nucleus", "#e6194b"),
    ClassSpec("fibre é", "#3cb44b"),
)
LEVELS = [(1100, 1400), (550, 700), (275, 350)]
BACKGROUND, NUCLEUS, FIBRE, NO_ANSWER = 0, 1, 2, 255
PIXEL_UM = 0.25
COARSE = 2
"""How many pixels of the slide are a pixel of the mask ``coarse``, along each side."""

BANDS = ("red", "green", "blue", "near infrared")
TRANSFORM = (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)
CRS = "EPSG:32633"
_PLACED: dict[str, Any] = {"transform": TRANSFORM, "crs": CRS}

GAP = 96
"""Rows at the top without an answer: nodata in the scene, outside the region of the slide."""

PATCHES: tuple[tuple[int, slice, slice], ...] = (
    (NUCLEUS, slice(200, 400), slice(300, 700)),
    (NUCLEUS, slice(440, 480), slice(900, 960)),
    (NUCLEUS, slice(1000, 1100), slice(1300, 1400)),
    (FIBRE, slice(600, 900), slice(100, 500)),
    (NO_ANSWER, slice(0, GAP), slice(0, 1400)),
)
"""Class, rows and columns of what lies on the background; all in multiples of 4 pixels."""

OBJECTS = [
    (CLASSES[label].name, (rows, columns)) for label, rows, columns in PATCHES if label != NO_ANSWER
]
"""The class of each connected part, its rows and columns."""

PLACES = {BACKGROUND: (540, 700), NUCLEUS: (300, 500), FIBRE: (740, 300), NO_ANSWER: (50, 700)}
"""Row and column of a pixel in the midst of each."""

_COLOURS = {BACKGROUND: (230, 20, 60), NUCLEUS: (20, 220, 60), FIBRE: (60, 20, 210)}


def labels() -> NDArray[np.uint8]:
    """The label map, shape (rows, columns)."""
    labels = np.full(SHAPE, BACKGROUND, np.uint8)
    for label, rows, columns in PATCHES:
        labels[rows, columns] = label
    return labels


def picture() -> NDArray[np.uint8]:
    """The image, shape (rows, columns, 3); zeros where there is no answer."""
    colours = np.zeros((256, 3), np.uint8)
    for label, colour in _COLOURS.items():
        colours[label] = colour
    return colours[labels()]


def write_model(path: Path, activation: str, pixel_um: float | None = None) -> Path:
    """A model file of the convolution, with the softmax, sigmoid or no activation."""
    from tests.models.making_onnx import node, write

    raw = path.with_suffix(".raw.onnx")
    weights: dict[str, Any] = {"w": 10 * np.eye(3, dtype=np.float32)[:, :, None, None]}
    write(raw, [node("Conv", ["x", "w"], "y", kernel_shape=[1, 1])], weights)
    output = OutputSpec(
        activation,  # type: ignore[arg-type]
        CLASSES,
        background=0 if activation == "softmax" else None,
        thresholds=(0.999,) * 3 if activation == "sigmoid" else None,
    )
    size = None if pixel_um is None else PixelSize(pixel_um, pixel_um, "micrometer")
    taken = InputSpec(3, "uint8", 1 / 255, (0.0,) * 3, (1.0,) * 3, pixel_size=size)
    model = import_onnx(raw, taken, output)
    save_model(path, model)
    return path


@dataclass(frozen=True)
class Results:
    """Paths of images and results, all in one folder."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        path = self.folder / name
        assert path.exists(), f"no result {name}"
        return path


OBJECT_FILES = ("ome.zarr", "geojson", "gpkg", "fgb", "parquet", "csv", "spatialdata.zarr")
"""Suffixes of a mask and of all that holds its objects."""


def places() -> list[str]:
    """`PLACES` as the scripts take them."""
    return [f"{y},{x}" for y, x in PLACES.values()]


def make_results(folder: Path) -> Results:
    """Run tilepipe on the slide and on the scene, once for each kind of result."""
    slide, scene = folder / "slide.tif", folder / "scene.tif"
    write_tiff(slide, picture(), PIXEL_UM)
    write_scene(scene, picture(), 0, tiled=True, blockxsize=256, blockysize=256, **_PLACED)
    _run_all_kinds(slide, scene)
    labels = folder / "labels.onnx"
    _run(slide, "channels", ("ome.tif",), labels, channels=True)
    _run(slide, "both", ("ome.zarr",), labels, with_image=True)
    _run(slide, "older", ("ome.zarr",), labels, ngff="0.4")
    for image in (slide, scene):
        _run(image, "objects", OBJECT_FILES, labels, objects="components")
    coarse = write_model(folder / "coarse.onnx", "softmax", COARSE * PIXEL_UM)
    _run(slide, "coarse", ("ome.zarr", "geojson"), coarse, objects="components")
    _convert_images(slide)
    return Results(folder)


def _run_all_kinds(slide: Path, scene: Path) -> None:
    """Write IMAGE_labels, IMAGE_planes and IMAGE_values."""
    for kind, activation in (("labels", "softmax"), ("planes", "sigmoid"), ("values", "linear")):
        model = write_model(slide.with_name(f"{kind}.onnx"), activation)
        scores = ("probabilities.tif", "entropy.tif") if kind == "labels" else ()
        more = {"probabilities": "uint8"} if kind == "labels" else {}
        _run(slide, kind, ("ome.zarr", "ome.tif", "tif", *scores), model, **more)
        _run(scene, kind, ("ome.zarr", "tif", *scores), model, **more)


def _convert_images(slide: Path) -> None:
    """Write the slide, and an image of four bands with names, as OME-Zarr."""
    tilepipe.convert(str(slide), slide.with_name("slide_image.ome.zarr"))
    four = slide.with_name("four.tif")
    bands = np.concatenate([picture(), picture()[:, :, :1]], 2)
    write_scene(four, bands, 0, photometric="minisblack", **_PLACED)
    with rasterio.open(four, "r+") as dataset:
        dataset.descriptions = BANDS
    tilepipe.convert(str(four), slide.with_name("four_image.ome.zarr"))


def _run(image: Path, name: str, suffixes: tuple[str, ...], model: Path, **options: Any) -> None:
    """Write IMAGE_NAME.SUFFIX for each suffix; without an answer in the first rows."""
    outputs = [str(image.with_name(f"{image.stem}_{name}.{suffix}")) for suffix in suffixes]
    if image.stem == "slide":
        options["region"] = (GAP, 0, SHAPE[0] - GAP, SHAPE[1])
    tilepipe.run(
        str(image), model=str(model), outputs=outputs, window=572, runtime="onnxruntime", **options
    )
