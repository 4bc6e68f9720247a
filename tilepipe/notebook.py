"""How images, masks and summaries show themselves: a line of text, in notebooks a small picture."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tilepipe.errors import TilepipeError
from tilepipe.grid import Window
from tilepipe.text import one_line, shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 256
"""Longer side of a picture, in pixels."""

MOST_BYTES = 1 << 26
"""Of pixels that are read for a picture; without a level as small as that, there is none."""


class Shown:
    """Gives a class a ``repr`` that a person reads, and HTML with a small picture in notebooks."""

    __slots__ = ()

    def _facts(self) -> list[tuple[str, str]]:
        """Labels and texts; the first is the title."""
        raise NotImplementedError

    def _picture(self) -> NDArray[np.uint8] | None:
        """RGB of at most `SIDE` pixels a side, or None."""
        return None

    def __repr__(self) -> str:
        (_, title), *facts = self._facts()
        return f"<{one_line(title)}: {', '.join(one_line(text) for _, text in facts)}>"

    def _repr_html_(self) -> str:
        (_, title), *facts = self._facts()
        try:
            picture = self._picture()
        except (TilepipeError, OSError, ValueError):  # it is closed, unreadable, or gone
            picture = None
        shown = "" if picture is None else f'<img src="{_data_uri(picture)}" alt="">'
        rows = "".join(
            f"<tr><th>{escape(label)}</th><td>{escape(shortened(one_line(text)))}</td></tr>"
            for label, text in facts
        )
        return f"<div><b>{escape(one_line(title))}</b><br>{shown}<table>{rows}</table></div>"


def small_level(shapes: Sequence[tuple[int, int]], bytes_per_pixel: int) -> int | None:
    """The smallest level (height, width) that fills a picture; None where it is too large."""
    filling = [i for i, shape in enumerate(shapes) if max(shape) >= SIDE]
    level = max(filling, default=0)
    height, width = shapes[level]
    return level if height * width * bytes_per_pixel <= MOST_BYTES else None


def read_small(image: Any, shapes: Sequence[tuple[int, int]], bytes_per_pixel: int) -> Any:
    """Pixels of an image or a mask for a picture, rows and columns left out; None: see above."""
    level = small_level(shapes, bytes_per_pixel)
    if level is None:
        return None
    height, width = shapes[level]
    pixels = image.read(Window(0, 0, height, width), level)
    step = -(-max(height, width) // SIDE)
    rows = slice(step // 2, None, step)
    return pixels[rows, rows] if pixels.shape[:2] == (height, width) else pixels[:, rows, rows]


def _data_uri(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
