"""The OME-NGFF metadata of a mask, versions 0.5 and 0.4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tilepipe.images.base import UNITS_IN_METRES, PixelSize
from tilepipe.products.base import NO_ANSWER, MaskClass, MaskSpec
from tilepipe.products.product import PixelForm, Product

_UNITS = frozenset(UNITS_IN_METRES) - {"us survey foot"}
"""The units that NGFF knows. Others are left out, but the scale is kept."""


def mask_attributes(spec: MaskSpec) -> dict[str, Any]:
    """The NGFF attributes of a mask's group (OME-NGFF 0.5, sections 2.4 and 2.6)."""
    if spec.product.flat:
        return _group(spec, spec.product, {"image-label": _image_label(spec)})
    return _group(spec, spec.product, {"omero": _omero(spec)})


def product_attributes(spec: MaskSpec, product: Product) -> dict[str, Any]:
    """The NGFF attributes of the group of a product beside a mask."""
    if product.flat:  # it has one channel, and not one for each class
        spec = replace(spec, classes=(MaskClass(product.name, "#ffffff"),), background=None)
    return _group(spec, product, {"omero": _omero(spec, product.top)})


def instance_attributes(spec: MaskSpec, form: PixelForm, source: str | None) -> dict[str, Any]:
    """The NGFF attributes of the objects of a mask; ``source`` is the path of their image.

    There is no list of colours, because viewers give each number a colour of their own.
    """
    label: dict[str, Any] = {"version": spec.ngff}
    if source is not None:
        label["source"] = {"image": source}
    return _group(spec, form, {"image-label": label})


def _group(spec: MaskSpec, form: PixelForm, others: dict[str, Any]) -> dict[str, Any]:
    multiscale = _multiscale(spec, form)
    if spec.ngff == "0.4":  # in which each part has the version
        return {"multiscales": [{**multiscale, "version": "0.4"}], **others}
    return {"ome": {"version": spec.ngff, "multiscales": [multiscale], **others}}


def read_pixel_size(multiscale: dict[str, Any]) -> tuple[PixelSize | None, tuple[float, float]]:
    """The pixel size of level 0, and the centre (y, x) of its first pixel."""
    scale, translation = read_scale(multiscale)
    unit = multiscale["axes"][-1].get("unit")
    return None if unit is None else PixelSize(*scale, str(unit)), translation


def read_scale(multiscale: dict[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The distance of the pixel centres of level 0, and the first of them: each (y, x)."""
    scale, translation = [1.0, 1.0], [0.0, 0.0]
    datasets = multiscale["datasets"][0].get("coordinateTransformations", [])
    for step in (*datasets, *multiscale.get("coordinateTransformations", [])):
        if step.get("type") == "scale":
            factors = [float(factor) for factor in step["scale"][-2:]]
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            translation = [a * b for a, b in zip(translation, factors, strict=True)]
        elif step.get("type") == "translation":
            shift = step["translation"][-2:]
            translation = [a + float(b) for a, b in zip(translation, shift, strict=True)]
    return (scale[0], scale[1]), (translation[0], translation[1])


def _multiscale(spec: MaskSpec, product: PixelForm) -> dict[str, Any]:
    unit = {}
    if spec.pixel_size is not None and spec.pixel_size.unit in _UNITS:
        unit = {"unit": spec.pixel_size.unit}
    axes = [{"name": name, "type": "space", **unit} for name in "yx"]
    if not product.flat:
        axes.insert(0, {"name": "c", "type": "channel"})
    return {
        "name": spec.name,
        "axes": axes,
        "datasets": [
            {
                "path": path,
                "coordinateTransformations": _transformations(spec, level, not product.flat),
            }
            for level, path in enumerate(spec.level_paths)
        ],
        "type": "mean" if product.averaged else "mode",
    }


def _transformations(spec: MaskSpec, level: int, with_channels: bool) -> list[dict[str, Any]]:
    """The transformations of a level, between pixel centres, so coarser ones start further in."""
    size = spec.pixel_size or PixelSize(1.0, 1.0, "pixel")
    factor = 2**level
    scale = [size.y * factor, size.x * factor]
    translation = [
        spec.origin[0] + size.y * (factor - 1) / 2,
        spec.origin[1] + size.x * (factor - 1) / 2,
    ]
    if with_channels:
        scale, translation = [1.0, *scale], [0.0, *translation]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(translation):
        steps.append({"type": "translation", "translation": translation})
    return steps


def _image_label(spec: MaskSpec) -> dict[str, Any]:
    colours, properties = [], []
    for value, named in enumerate(spec.classes):
        alpha = 0 if value == spec.background else 255
        colours.append({"label-value": value, "rgba": [*named.rgb, alpha]})
        properties.append({"label-value": value, "name": named.name})
    colours.append({"label-value": NO_ANSWER, "rgba": [0, 0, 0, 0]})
    properties.append({"label-value": NO_ANSWER, "name": "no answer"})
    label = {"version": spec.ngff, "colors": colours, "properties": properties}
    return label if spec.source is None else {**label, "source": {"image": spec.source}}


def _omero(spec: MaskSpec, top: float = 1.0) -> dict[str, Any]:
    window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
    return {
        "channels": [
            {
                "label": named.name,
                "color": named.colour[1:].upper(),
                "active": index != spec.background,
                "window": window,
            }
            for index, named in enumerate(spec.classes)
        ]
    }
