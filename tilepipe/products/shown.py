"""The text and the picture of a mask; see `tilepipe.notebook`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tilepipe.images.base import show_pixel_size
from tilepipe.notebook import Shown, read_small
from tilepipe.products.base import NO_ANSWER, Mask
from tilepipe.products.product import product_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ShownMask(Shown):
    """A `Mask` with a readable `repr`, and HTML in notebooks."""

    __slots__ = ()

    def _facts(self) -> list[tuple[str, str]]:
        mask = cast(Mask, self)
        height, width = mask.shape
        names = ", ".join(c.name for c in mask.classes) if mask.classes else "unnamed classes"
        return [
            ("mask", f"mask {mask.path}"),
            ("size", f"{width} x {height} pixels (width x height)"),
            ("holds", f"{mask.kind}, {mask.dtype}"),
            ("classes", names),
            ("pixel size", show_pixel_size(size) if (size := mask.pixel_size) else "no pixel size"),
        ]

    def _picture(self) -> NDArray[np.uint8] | None:
        from tilepipe.drawing import as_rgb

        mask = cast(Mask, self)
        pixels = read_small(mask, mask.levels, mask.planes * mask.dtype.itemsize)
        if pixels is None:
            return None
        product = product_named(mask.kind)
        if not product.has_classes:
            return as_rgb(pixels[0][..., None], as_bytes=False)
        return _coloured(pixels, mask, flat=product.flat)


def _coloured(pixels: NDArray[Any], mask: Mask, *, flat: bool) -> NDArray[np.uint8]:
    """Labels (H, W), or planes (C, H, W), in the colours of their classes."""
    import numpy as np

    from tilepipe.drawing import NO_DATA_COLOUR

    colours = [c.rgb for c in mask.classes] if mask.classes else []
    greys = [(255 - shade,) * 3 for shade in range(len(colours), 255)]
    palette = np.array([*colours, *greys, NO_DATA_COLOUR], np.uint8)
    if flat:
        return np.asarray(palette[pixels.astype(np.uint8)])
    rgb = np.full((*pixels.shape[1:], 3), 255, np.uint8)
    for plane, colour in zip(pixels, palette, strict=False):
        rgb[plane == 1] = colour
    rgb[(pixels == NO_ANSWER).all(axis=0)] = NO_DATA_COLOUR
    return rgb
