"""Random geometry and colour: where a tile's pixels come from, and what becomes of them.

All of the geometry (flip, rotation, scale, elastic deformation) is one map from the tile to the
image, so pixels are interpolated once and image, labels and weights are bent alike. The map is
applied to a window read by the code that `run` reads with, mirrored at the borders.
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
    """How far tiles are varied; the fields of the same names of `TrainOptions`."""

    flips: bool = False
    rotate: bool = False
    scale: float = 1.0
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    hed: float = 0.0

    @property
    def bends(self) -> bool:
        """Whether the geometry is varied at all."""
        return self.flips or self.rotate or self.scale > 1 or self.elastic > 0


def random_map(
    side: int, centre: tuple[float, float], how: Augmentation, rng: np.random.Generator
) -> Tensor:
    """Where each pixel of a tile lies in the image.

    Parameters
    ----------
    side
        Of the tile, pixels.
    centre
        (y, x) of the image that the tile's centre falls on.

    Returns
    -------
    places
        (side, side, 2) float32, (x, y) in pixels of the image.
    """
    # Every number is drawn whatever is switched on, so that one option leaves the others as is.
    angle = rng.uniform(0, 2 * np.pi) * how.rotate
    factor = float(np.exp(rng.uniform(-1, 1) * np.log(how.scale)))
    flip = rng.integers(2, size=3) * how.flips
    coarse = rng.normal(0, 1, (1, 2, 3, 3)).clip(-4, 4)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / factor
    turn = turn @ np.diag(1.0 - 2 * flip[:2])
    if flip[2]:
        turn = turn[::-1]  # with the flips: all eight symmetries of the square
    steps = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    places = torch.empty(side, side, 2)
    for axis in (0, 1):
        across, down = (float(t) for t in turn[axis])
        # The middle of an even side lies between pixels: where `identity_window` has it, so that
        # a mere flip takes pixels as they are.
        offset = float(centre[1 - axis]) + (side - 1) / 2 - side // 2
        torch.add(across * steps[None, :], down * steps[:, None] + offset, out=places[..., axis])
    if how.elastic:
        places += elastic(torch.from_numpy(coarse).float() * how.elastic, side)
    return places


def elastic(coarse: Tensor, side: int) -> Tensor:
    """Displacements of a coarse grid, bicubically interpolated to each pixel of a tile.

    Ronneberger et al. 2015, section 3.1: 3 x 3 grid, standard deviation 10 pixels.

    Parameters
    ----------
    coarse
        (1, 2, n, n): displacements (x, y) in pixels, of a grid whose corners are the tile's.

    Returns
    -------
    displacements
        (side, side, 2).
    """
    # Bicubic interpolation is one of rows and one of columns: two thin matrices.
    across = _bicubic(coarse.shape[-1], side)
    return torch.einsum("yi,cij,xj->yxc", across, coarse[0], across)


@functools.cache
def _bicubic(points: int, side: int) -> Tensor:
    """What each of ``points`` contributes to each of ``side`` pixels between them."""
    eye = torch.eye(points)[None, None]
    return functional.interpolate(eye, (side, points), mode="bicubic", align_corners=True)[0, 0]


def bounds(places: Tensor) -> Window:
    """The window of whole pixels that a map reads."""
    (x, stop_x), (y, stop_y) = (
        (math.floor(axis.min()), math.ceil(axis.max()) + 1) for axis in places.unbind(-1)
    )
    return Window(y, x, stop_y - y, stop_x - x)


def sample(pixels: Tensor, places: Tensor, window: Window, mode: str) -> Tensor:
    """Pixels at the places of a map.

    Parameters
    ----------
    pixels
        (C, height, width) of ``window``.
    mode
        ``bilinear``, or ``nearest`` for what must keep its values.

    Returns
    -------
    sampled
        (C, h, w) for places of shape (h, w, 2).
    """
    size = torch.tensor([max(1, window.width - 1), max(1, window.height - 1)])
    corner = torch.tensor([window.x, window.y])
    local = torch.addcmul(-1 - 2 * corner / size, places, 2 / size)
    return functional.grid_sample(
        pixels[None], local[None], mode=mode, padding_mode="border", align_corners=True
    )[0]


def restain(pixels: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """More or less of each stain of an H&E tile, (3, H, W) in 0..1."""
    gain = 1 + how.hed * rng.uniform(-1, 1, 3)
    offset = how.hed / 4 * rng.uniform(-1, 1, 3)
    if not how.hed:
        return pixels
    # Density to amounts of stain, changed, and back: one 3 x 3 matrix and a shift.
    change = torch.linalg.inv(STAINS) @ torch.diag(torch.from_numpy(gain).float()) @ STAINS
    shift = torch.from_numpy(offset).float() @ STAINS
    density = -torch.log(pixels.clamp_min(1 / 255)).flatten(1)
    density = change.T @ density + shift[:, None]
    return torch.exp(-density).clamp(0, 1).reshape(pixels.shape)


def relight(pixels: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Brightness and contrast of a normalised tile, (C, H, W), band by band alike."""
    shift, stretch = rng.uniform(-1, 1, 2) * (how.brightness, how.contrast)
    if not how.brightness and not how.contrast:
        return pixels
    mean = pixels.mean((1, 2), keepdim=True)
    return (pixels - mean) * float(1 + stretch) + (mean + float(shift))


def centre_crop(places: Tensor, side: int) -> Tensor:
    """The part of a map that a smaller tile of the same centre has."""
    start = (places.shape[0] - side) // 2
    return places[start : start + side, start : start + side]


def identity_window(centre: tuple[int, int], side: int) -> Window:
    """The window of a tile that is not bent."""
    return Window(centre[0] - side // 2, centre[1] - side // 2, side, side)


def as_bands(pixels: NDArray[np.generic]) -> Tensor:
    """(height, width, bands) of an image as float32 (bands, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))
