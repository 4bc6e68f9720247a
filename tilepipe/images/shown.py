"""How an image shows itself; see `tilepipe.notebook`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tilepipe.images.base import Image, show_pixel_size
from tilepipe.notebook import Shown, read_small
from tilepipe.text import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ShownImage(Shown):
    """The `repr` and the HTML of an `Image`."""

    __slots__ = ()

    def _facts(self) -> list[tuple[str, str]]:
        image = cast(Image, self)
        height, width, bands = image.shape
        return [
            ("image", f"{image.kind} {image.path}"),
            ("size", f"{width} x {height} pixels (width x height)"),
            ("bands", f"{count(bands, 'band')} of {image.dtype}"),
            (
                "pixel size",
                show_pixel_size(image.pixel_size) if image.pixel_size else "no pixel size",
            ),
            ("levels", count(len(image.levels), "level")),
        ]

    def _picture(self) -> NDArray[np.uint8] | None:
        from tilepipe.drawing import as_rgb, shown_as_bytes

        image = cast(Image, self)
        shapes = [(level.height, level.width) for level in image.levels]
        pixels = read_small(image, shapes, image.decoded_bytes)
        if pixels is None:
            return None
        return as_rgb(pixels, as_bytes=shown_as_bytes(image.dtype, image.bands))
