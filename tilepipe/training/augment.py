"""Augmentation: random geometry and colour of tiles.

All of the geometry (flip, rotation, scale, elastic deformation) is one map from the tile to the
image. So pixels are interpolated once, and image, labels and weights are warped alike. The map is
applied to a window that is read as in `run`, mirrored at the image's borders.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, functional, torch
from tilepipe.grid import Window

# Ruifrok and Johnston 2001: optical densities of haematoxylin, eosin and DAB in R, G, B.
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much tiles are varied; the fields of the same names in `TrainOptions`."""

    flips: bool = False
    rotate: bool = False
    scale: float = 1.0
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    hed: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether the geometry is varied."""
        return self.flips or self.rotate or self.scale > 1 or self.elastic > 0


def random_map(
    side: int, centre: tuple[float, float], how: Augmentation, rng: np.random.Generator
) -> Tensor:
    """The coordinates in the image of each pixel of a tile.

    Parameters
    ----------
    side
        Side of the tile in pixels.
    centre
        (y, x) of the tile's centre in the image.

    Returns
    -------
    coordinates
        (side, side, 2) float32, (x, y) in pixels of the image.
    """
    # All numbers are always drawn, so that switching one option does not change the others.
    angle = rng.uniform(0, 2 * np.pi) * how.rotate
    factor = float(np.exp(rng.uniform(-1, 1) * np.log(how.scale)))
    flip = rng.integers(2, size=3) * how.flips
    coarse = rng.normal(0, 1, (1, 2, 3, 3)).clip(-4, 4)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / factor
    turn = turn @ np.diag(1.0 - 2 * flip[:2])
    if flip[2]:
        turn = turn[::-1]  # with the flips: all eight symmetries of the square
    steps = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    coordinates = torch.empty(side, side, 2)
    for axis in (0, 1):
        across, down = (float(t) for t in turn[axis])
        # The middle of an even side lies between pixels. It is that of `identity_window`, so that
        # a flip alone does not interpolate.
        offset = float(centre[1 - axis]) + (side - 1) / 2 - side // 2
        torch.add(
            across * steps[None, :], down * steps[:, None] + offset, out=coordinates[..., axis]
        )
    if how.elastic:
        coordinates += elastic(torch.from_numpy(coarse).float() * how.elastic, side)
    return coordinates


def elastic(coarse: Tensor, side: int) -> Tensor:
    """Displacements of a coarse grid, interpolated bicubically to each pixel of a tile.

    Ronneberger et al. 2015, section 3.1: 3 x 3 grid, standard deviation 10 pixels.

    Parameters
    ----------
    coarse
        Displacements (x, y) in pixels, (1, 2, n, n), of a grid with the corners of the tile.

    Returns
    -------
    displacements
        (x, y) in pixels, (side, side, 2).
    """
    # Bicubic interpolation is separable: one thin matrix for rows and one for columns.
    across = _bicubic(coarse.shape[-1], side)
    return torch.einsum("yi,cij,xj->yxc", across, coarse[0], across)


@functools.cache
def _bicubic(points: int, side: int) -> Tensor:
    """The weight of each of ``points`` in each of ``side`` pixels between them."""
    eye = torch.eye(points)[None, None]
    return functional.interpolate(eye, (side, points), mode="bicubic", align_corners=True)[0, 0]


def bounds(coordinates: Tensor) -> Window:
    """The window of whole pixels that a map needs."""
    (x, stop_x), (y, stop_y) = (
        (math.floor(axis.min()), math.ceil(axis.max()) + 1) for axis in coordinates.unbind(-1)
    )
    return Window(y, x, stop_y - y, stop_x - x)


def resample(pixels: Tensor, coordinates: Tensor, window: Window, mode: str) -> Tensor:
    """Pixels interpolated at the coordinates of a map.

    Parameters
    ----------
    pixels
        The pixels of ``window``, (C, height, width).
    mode
        ``bilinear``, or ``nearest`` for labels.

    Returns
    -------
    resampled
        (C, h, w) for coordinates of shape (h, w, 2).
    """
    size = torch.tensor([max(1, window.width - 1), max(1, window.height - 1)])
    corner = torch.tensor([window.x, window.y])
    local = torch.addcmul(-1 - 2 * corner / size, coordinates, 2 / size)
    return functional.grid_sample(
        pixels[None], local[None], mode=mode, padding_mode="border", align_corners=True
    )[0]


def jitter_stains(pixels: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Vary the amount of each stain in an H&E tile, (3, H, W) in 0 .. 1."""
    gain = 1 + how.hed * rng.uniform(-1, 1, 3)
    offset = how.hed / 4 * rng.uniform(-1, 1, 3)
    if not how.hed:
        return pixels
    # From density to amounts of stain, varied, and back: one 3 x 3 matrix and a shift.
    change = torch.linalg.inv(STAINS) @ torch.diag(torch.from_numpy(gain).float()) @ STAINS
    shift = torch.from_numpy(offset).float() @ STAINS
    density = -torch.log(pixels.clamp_min(1 / 255)).flatten(1)
    density = change.T @ density + shift[:, None]
    return torch.exp(-density).clamp(0, 1).reshape(pixels.shape)


def jitter_light(pixels: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Vary brightness and contrast of a normalised tile, (C, H, W), alike in all bands."""
    shift, stretch = rng.uniform(-1, 1, 2) * (how.brightness, how.contrast)
    if not how.brightness and not how.contrast:
        return pixels
    mean = pixels.mean((1, 2), keepdim=True)
    return (pixels - mean) * float(1 + stretch) + (mean + float(shift))


def centre_crop(coordinates: Tensor, side: int) -> Tensor:
    """The part of a map that belongs to a smaller tile with the same centre."""
    start = (coordinates.shape[0] - side) // 2
    return coordinates[start : start + side, start : start + side]


def identity_window(centre: tuple[int, int], side: int) -> Window:
    """The window of a tile that is not warped."""
    return Window(centre[0] - side // 2, centre[1] - side // 2, side, side)


def as_bands(pixels: NDArray[np.generic]) -> Tensor:
    """Pixels (height, width, bands) as a float32 tensor (bands, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))
