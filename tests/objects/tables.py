"""Masks and tables of their objects for tests of what is counted: made by scipy, simply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.objects.areas import PixelArea
from tilepipe.objects.table import (
    Column,
    ImagePlace,
    ObjectBatch,
    ObjectsInfo,
    ObjectTable,
    TableWriter,
    open_table,
)
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.store import ZarrMask, create_mask

CLASSES = (
    MaskClass("background", "#000000"),
    MaskClass("nucleus", "#e6194b"),
    MaskClass("gland", "#3cb44b"),
)
SLIDE = {"pixel_size": PixelSize(0.25, 0.5, "micrometer"), "classes": CLASSES, "background": 0}


def blobs(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Labels of small objects of two classes, and a corner without an answer."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(height, width)), 2)
    labels = np.zeros((height, width), np.uint8)
    labels[noise > 0.15] = 1
    labels[noise < -0.2] = 2
    labels[: height // 4, : width // 3] = 255
    return labels


def label_mask(path: Path, labels: NDArray[np.uint8], **facts: Any) -> ZarrMask:
    """The labels as a mask on disk."""
    spec = MaskSpec(*labels.shape, "labels", **(SLIDE | facts))
    mask = create_mask(path, spec)
    mask.write(Window(0, 0, *labels.shape), labels)
    return mask


def table_of(
    path: Path, mask: ZarrMask, labels: NDArray[np.uint8], image: ImagePlace | None = None,
    **facts: Any,
) -> ObjectTable:  # fmt: skip
    """A table of the connected parts of each class but 0, without outlines."""
    pixel = PixelArea(mask.spec)
    whole = Window(0, 0, *labels.shape)
    rows = []
    for number in range(1, len(mask.spec.classes)):
        found, _ = ndimage.label(labels == number)
        for index, box in enumerate(ndimage.find_objects(found), 1):
            y, x = np.nonzero(found[box] == index)
            y, x = y + box[0].start, x + box[1].start
            inside = np.zeros(labels.shape, bool)
            if pixel.differs:
                inside[y, x] = True
                area = pixel.of(whole, inside) * pixel.unit.smalls
            else:
                area = len(y) * pixel.usual * pixel.unit.smalls
            rows.append(
                (y[0] * labels.shape[1] + x[0], number, area, x.mean() + 0.5, y.mean() + 0.5)
            )
    rows.sort()
    return write_table(path, mask.spec, np.array(rows).reshape(-1, 5)[:, 1:], image, **facts)


def write_table(
    path: Path, spec: MaskSpec, rows: NDArray[Any], image: ImagePlace | None = None, **facts: Any
) -> ObjectTable:
    """A table of rows of class, area, centroid x and centroid y."""
    columns = (
        Column("number", "uint32"),
        Column("class", "uint8"),
        Column("area", "float64", PixelArea(spec).unit.small),
        Column("centroid_x", "float64", "px"),
        Column("centroid_y", "float64", "px"),
    )
    writer = TableWriter(path, columns, outlines=False)
    values = {
        "number": np.arange(1, len(rows) + 1),
        **dict(zip(("class", "area", "centroid_x", "centroid_y"), rows.T, strict=True)),
    }
    writer.append(ObjectBatch(values, None))
    writer.finish(ObjectsInfo(spec, columns, len(rows), image, outlines=False, **facts))
    return open_table(path)


__all__ = ["CLASSES", "SLIDE", "blobs", "label_mask", "table_of", "write_table"]


def wkt(code: str) -> str:
    """A CRS as WKT."""
    from pyproj import CRS

    return str(CRS.from_user_input(code).to_wkt())


def scene(code: str, step: float) -> dict[str, Any]:
    """A mask at 60 degrees north whose pixels are ``step`` units of the CRS."""
    from pyproj import Transformer

    x, y = Transformer.from_crs("OGC:CRS84", code, always_xy=True).transform(15.0, 60.0)
    unit = "degree" if code == "EPSG:4326" else "meter"
    return {
        "crs": wkt(code),
        "transform": (step, 0.0, x, 0.0, -step, y),
        "pixel_size": PixelSize(step, step, unit),
    }
