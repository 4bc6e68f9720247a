"""The tile geometry of a U-Net: sides in and out, and the margin beyond which outputs are exact."""

from __future__ import annotations

from tilepipe.grid import Geometry, round_up
from tilepipe.models.unet_arguments import UNetArguments

PAPER_INPUT = 572
"""Side of the tile of Ronneberger et al. 2015; the tile chosen is the valid one nearest to it."""

LEAST_KEPT = 128
"""Least outputs kept per axis: a smaller tile spends nearly all its work on its margin."""


def geometry_of(arguments: UNetArguments) -> Geometry:
    """The tile geometry of a U-Net, counted along one axis from what each layer spoils or takes.

    Notes
    -----
    `probe_geometry` finds the same by running the network; the tests compare the two.
    """
    factor, depth = arguments.stride_factor, arguments.depth
    if arguments.padding == "valid":
        # Two convolutions on each level, once down and once up, take 2 pixels of that level each.
        shrink = 6 * factor - 4
        residue = -4 % factor
    else:
        shrink, residue = 0, 0
    return choose_tile(shrink, shrink + _spoiled(arguments, depth), factor, residue)


def choose_tile(shrink: int, reach: int, stride_factor: int, residue: int) -> Geometry:
    """The geometry whose tile lies nearest the paper's, among those that keep enough.

    Parameters
    ----------
    shrink
        Pixels that the network takes off each edge.
    reach
        Distance from a window's edge to the first output that does not depend on the cut.
    stride_factor
        Total downsampling.
    residue
        The remainder of a valid input side divided by the stride factor.
    """
    margin = margin_for(shrink, reach, stride_factor)
    least = round_up(LEAST_KEPT, stride_factor) + 2 * margin
    least += (residue - least) % stride_factor
    below = PAPER_INPUT - (PAPER_INPUT - residue) % stride_factor
    nearest = min((below + stride_factor, below), key=lambda side: abs(side - PAPER_INPUT))
    side = max(least, nearest)
    return Geometry(side, side - 2 * shrink, margin, stride_factor)


def margin_for(shrink: int, reach: int, stride_factor: int) -> int:
    """``reach`` rounded up, so that the first output that is kept lies on the phase."""
    return shrink + round_up(max(0, reach - shrink), stride_factor)


def _spoiled(arguments: UNetArguments, depth: int) -> int:
    """Width of the outputs at a window's edge that depend on where it was cut."""
    # The number of spoiled pixels at the edge of an array: a padded 3x3 convolution spoils one
    # more, an unpadded one takes as many as it would spoil; pooling keeps half of them, rounded up.
    convolutions = 2 if arguments.padding == "same" else 0
    spoiled = convolutions
    for _ in range(depth):
        spoiled = -(-spoiled // 2) + convolutions
    for _ in range(depth):
        # Bilinear interpolation looks one pixel further, half the size of those it comes from.
        spoiled = 2 * spoiled + (arguments.upsampling == "interpolation") + convolutions
    return spoiled
