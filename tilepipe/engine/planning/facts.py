"""The description of an image and of its mask in a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilepipe.engine.options import Ngff, RunOptions
from tilepipe.engine.plan.plan import ImageFacts, absolute, at_model_scale
from tilepipe.engine.plan.scale import Scale, base_pixel_size
from tilepipe.engine.state.outputs import Outputs
from tilepipe.images.base import Image
from tilepipe.images.resampled import resampled_size
from tilepipe.models.specs import Model
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.image_labels import open_image_group
from tilepipe.products.product import main_product
from tilepipe.products.with_image import label_of_converted


def image_facts(image: Image, scale: Scale) -> ImageFacts:
    """The description of an image in a plan."""
    level = image.levels[scale.level]
    height, width = level.height, level.width
    if scale.factors is not None:
        height, width = resampled_size(level, scale.factors)
    return ImageFacts(
        path=absolute(image.path), kind=image.kind, fingerprint=image.fingerprint(),
        level=scale.level, height=height, width=width, bands=image.bands,
        dtype=np.dtype(image.dtype).name, pixel_size=scale.pixel_size, factors=scale.factors,
        reading=image.reading, band_names=image.band_names, crs_pixel_size=scale.crs_pixel_size,
    )  # fmt: skip


def mask_spec(
    image: Image, model: Model, facts: ImageFacts, name: str, ngff: Ngff = "0.5"
) -> MaskSpec:
    """The description of the mask: its grid, its place and its classes."""
    level = at_model_scale(image, facts).levels[facts.level]
    output = model.output
    shape = facts.height, facts.width
    grid = image.grid.coarser(shape, level.scale_y, level.scale_x, facts.pixel_size)
    return MaskSpec(
        *shape, main_product(output).name,
        classes=tuple(MaskClass(c.name, c.colour) for c in output.classes),
        pixel_size=facts.pixel_size, crs=grid.crs, transform=grid.transform, control=grid.control,
        origin=grid.origin, name=name, background=output.background,
        ngff=ngff, has_coordinates=grid.transform is not None,
    )  # fmt: skip


def like_image_spec(
    image: Image, spec: MaskSpec, options: RunOptions, outputs: Outputs
) -> MaskSpec:
    """The description of the mask on the grid of the image's level 0, perhaps as its label."""
    on_image = replace(
        spec,
        height=image.levels[0].height,
        width=image.levels[0].width,
        pixel_size=base_pixel_size(image, options),
        transform=image.transform,
        control=image.control,
        origin=(0.0, 0.0),
    )
    label = outputs.label
    if label is None:
        return on_image
    if outputs.with_image is not None:
        return label_of_converted(on_image, image, label.name)
    return open_image_group(label, image).label(on_image, label.name)
