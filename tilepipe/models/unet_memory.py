"""The memory of a pass of a U-Net: of one layer after the other, and of strips of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilepipe.models.unet_arguments import UNetArguments

STRIP_BYTES = 4 << 20
"""Bytes of one activation of a strip, about; freed, the allocator must keep it for the next."""
LEAST_ROWS = 32
"""Strips of fewer rows would compute too much twice."""
STRIPS_HELD = 8
"""Activations of strips that take memory at once, at most: three that are alive, and what the
allocator keeps for the next."""

Shape = tuple[int, int, int]
"""(channels, height, width)."""


def bytes_by_layers(arguments: UNetArguments, height: int, width: int, itemsize: int) -> int:
    """Peak bytes of the tensors of a pass, layer by layer, of a window (height, width).

    The same as `tilepipe.models.memory.ForwardMemory` finds by computing passes.
    """
    a = arguments
    pixels = a.bands * height * width
    most = pixels if a.bands == 1 else 2 * pixels  # once more, channels last
    held = pixels
    """The window, and skips."""

    def alive(*sizes: int) -> None:
        nonlocal most
        most = max(most, held + sum(sizes))

    def double(x: int, channels: int) -> int:
        """Two convolutions of ``x``, which stays alive until the end."""
        nonlocal height, width
        before = None
        for _ in range(2):
            height, width = height - loss(a) // 2, width - loss(a) // 2
            size = channels * height * width
            alive(x, *(() if before is None else (before,)), size)
            if a.normalisation == "batch":
                alive(x, size, size)
            before = size
        return size

    x, skips, channels = 0, list[int](), a.width
    for level in range(a.depth + 1):
        if level:
            skips.append(x)
            held += x
            height, width, channels = height // 2, width // 2, 2 * channels
            x = channels // 2 * height * width
            alive(x)
        x = double(x, channels)
    for _ in range(a.depth):
        channels //= 2
        convolved = () if a.upsampling == "transposed" else (channels * height * width,)
        height, width = 2 * height, 2 * width
        size = channels * height * width
        alive(x, *convolved)
        alive(x, *convolved, size)
        alive(size, 2 * size)
        held -= skips.pop()
        x = double(2 * size, channels)
    alive(x, a.outputs * height * width)
    return most * itemsize


@dataclass(frozen=True, slots=True)
class Layout:
    """What the levels of a U-Net pass on, for one size of window.

    Each skip has a place of its own. What a level gives to the next is needed no longer than that:
    two places, taken in turn, are enough.
    """

    skips: tuple[Shape, ...]
    """From the first level down."""
    passed: tuple[Shape, ...]
    """What each level gives to the next, down and up again; the logits are not among them."""
    joined: int
    """Numbers in the widest strip of a skip and what is upsampled."""
    outputs: Shape
    """The logits."""

    @classmethod
    def of(cls, arguments: UNetArguments, height: int, width: int, itemsize: int) -> Layout:
        """The layout for windows (height, width), in a precision of so many bytes."""
        lost, channels, joined = loss(arguments), arguments.width, 0
        skips: list[Shape] = []
        passed: list[Shape] = []
        for _ in range(arguments.depth):
            height, width = height - lost, width - lost
            skips.append((channels, height, width))
            height, width = height // 2, width // 2
            passed.append((channels, height, width))
            channels *= 2
        height, width = height - lost, width - lost
        passed.append((channels, height, width))
        for _ in range(arguments.depth):
            channels //= 2
            height, width = 2 * height - lost, 2 * width - lost
            rows = strip_rows((channels, height, width), itemsize) + 4
            joined = max(joined, 2 * channels * rows * (width + lost))
            passed.append((channels, height, width))
        passed.pop()
        return cls(tuple(skips), tuple(passed), joined, (arguments.outputs, height, width))

    @property
    def turns(self) -> tuple[int, int]:
        """Numbers that each of the two places taken in turn holds."""
        sizes = [*map(math.prod, self.passed)]
        return max(sizes[::2]), max(sizes[1::2])

    @property
    def size(self) -> int:
        """Numbers in all of it."""
        return sum(map(math.prod, self.skips)) + sum(self.turns) + self.joined


def bytes_in_strips(arguments: UNetArguments, height: int, width: int, itemsize: int) -> int:
    """Peak bytes of a pass in strips of a window (height, width), products included."""
    layout = Layout.of(arguments, height, width, itemsize)
    # Normalised in float32 at least, and then converted.
    copies = 4 if itemsize == 4 else max(4, itemsize) + itemsize
    pixels = arguments.bands * height * width * copies
    strip = max(
        channels * strip_rows((channels, rows, columns), itemsize) * columns
        for channels, rows, columns in (*layout.skips, *layout.passed)
    )
    outputs, rows, columns = layout.outputs
    # Beside the logits: shares of them, float32, twice while they are made.
    products = rows * columns * (outputs * (itemsize + 2 * 4) + 2)
    return (layout.size + STRIPS_HELD * strip) * itemsize + pixels + products


def loss(arguments: UNetArguments) -> int:
    """Rows (columns) that the two convolutions of a level take off."""
    return 4 if arguments.padding == "valid" else 0


def strip_rows(shape: Shape, itemsize: int) -> int:
    """Rows of a strip of an activation: an even number, or all of it."""
    channels, height, width = shape
    return min(height, max(LEAST_ROWS, STRIP_BYTES // (channels * width * itemsize) // 2 * 2))
