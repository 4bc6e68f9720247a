"""Random geometry and colour: what they must keep, and how far they may go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.making import make_image
from tilepipe.grid import Window
from tilepipe.training.augment import (
    STAINS,
    Augmentation,
    bounds,
    centre_crop,
    elastic,
    identity_window,
    jitter_light,
    jitter_stains,
    random_map,
    resample,
)


class Fixed:
    """A generator of numbers that are always the same share of the way."""

    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, low: float, high: float, size: int | None = None) -> object:
        value = low + (high - low) * self.share
        return value if size is None else np.full(size, value)


def test_no_displacement_moves_nothing() -> None:
    assert not elastic(torch.zeros(1, 2, 3, 3), 33).any()


def test_a_constant_displacement_is_a_shift() -> None:
    coarse = torch.zeros(1, 2, 3, 3)
    coarse[:, 0], coarse[:, 1] = 4.0, -3.0
    fine = elastic(coarse, 33)
    np.testing.assert_allclose(fine[..., 0], 4.0, rtol=1e-5)
    np.testing.assert_allclose(fine[..., 1], -3.0, rtol=1e-5)


@pytest.mark.parametrize("side", [33, 57])
def test_the_coarse_grid_has_its_corners_on_the_tiles(side: int) -> None:
    coarse = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    fine = elastic(coarse, side)
    half = side // 2
    np.testing.assert_allclose(fine[::half, ::half].permute(2, 0, 1), coarse[0], atol=1e-5)


def test_displacements_are_bicubic() -> None:
    coarse = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.interpolate(
        coarse, size=(40, 40), mode="bicubic", align_corners=True
    )
    np.testing.assert_allclose(elastic(coarse, 40).permute(2, 0, 1), expected[0], atol=1e-5)


def test_displacements_have_the_standard_deviation_asked_for() -> None:
    how, still = Augmentation(elastic=10.0), Augmentation()
    rng = np.random.default_rng(0)
    flat = random_map(17, (50, 60), still, rng)
    moved = torch.stack([random_map(17, (50, 60), how, rng) - flat for _ in range(400)])
    corners = moved[:, ::16, ::16].numpy()
    assert corners.std() == pytest.approx(10, rel=0.05)
    assert abs(corners.mean()) < 0.6
    # Of x and y, and of two corners, each by itself.
    assert abs(np.corrcoef(corners[..., 0].ravel(), corners[..., 1].ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(corners[:, 0, 0, 0], corners[:, 1, 1, 0])[0, 1]) < 0.15


@pytest.mark.parametrize("side", [16, 17])
def test_flips_give_all_eight_symmetries_and_take_pixels_as_they_are(side: int) -> None:
    image = torch.from_numpy(make_image(60, 70).astype(np.float32)).permute(2, 0, 1)
    window = identity_window((30, 35), side)
    crop = image[:, window.y : window.stop_y, window.x : window.stop_x]
    wanted = [
        torch.rot90(flipped, turns, (1, 2))
        for flipped in (crop, crop.flip(1))
        for turns in range(4)
    ]
    met = set()
    for seed in range(60):
        places = random_map(side, (30, 35), Augmentation(flips=True), np.random.default_rng(seed))
        whole = Window(0, 0, 60, 70)
        for mode in ("nearest", "bilinear"):
            tile = resample(image, places, whole, mode)
            near = [i for i, one in enumerate(wanted) if torch.allclose(tile, one, atol=0.05)]
            assert len(near) == 1
            met.add(near[0])
    assert met == set(range(8))


def test_a_map_without_variation_is_the_identity_window() -> None:
    for side in (16, 17):
        places = random_map(side, (30, 35), Augmentation(), np.random.default_rng(0))
        assert bounds(places) == identity_window((30, 35), side)


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(flips=True),
        Augmentation(rotate=True),
        Augmentation(scale=1.5),
        Augmentation(elastic=6.0),
        Augmentation(flips=True, rotate=True, scale=1.5, elastic=6.0),
    ],
)
def test_image_and_labels_stay_aligned_and_labels_stay_labels(how: Augmentation) -> None:
    y, x = (torch.from_numpy(a.astype(np.float32)) for a in np.mgrid[:200, :200])
    rng = np.random.default_rng(5)
    for _ in range(10):
        places = random_map(40, (100, 100), how, rng)
        inside = centre_crop(places, 24)
        window, narrow = bounds(places), bounds(inside)
        coded = torch.stack([y, x])
        pixels = resample(coded[(..., *window.slices())], places, window, "bilinear")[:, 8:-8, 8:-8]
        labels = resample(coded[(..., *narrow.slices())], inside, narrow, "nearest")
        assert (labels == labels.round()).all()
        # The nearest pixel is the one within half a pixel of where the image was read.
        assert (pixels - labels).abs().max() <= 0.5 + 1e-3
        np.testing.assert_allclose(pixels[1], inside[..., 0], atol=1e-3)
        np.testing.assert_allclose(pixels[0], inside[..., 1], atol=1e-3)


def test_scale_enlarges_and_shrinks_by_no_more_than_the_factor() -> None:
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(200):
        places = random_map(21, (50, 50), Augmentation(scale=1.25), rng)
        factors.append(20 / float(places[10, 20, 0] - places[10, 0, 0]))
    assert 0.8 - 1e-4 <= min(factors) < 0.85
    assert 1.2 < max(factors) <= 1.25 + 1e-4


def test_one_option_leaves_the_numbers_of_the_others_as_they_are() -> None:
    both = random_map(21, (0, 0), Augmentation(elastic=5.0, flips=True), np.random.default_rng(7))
    flips = random_map(21, (0, 0), Augmentation(flips=True), np.random.default_rng(7))
    bent = random_map(21, (0, 0), Augmentation(elastic=5.0), np.random.default_rng(7))
    still = random_map(21, (0, 0), Augmentation(), np.random.default_rng(7))
    np.testing.assert_allclose(both - flips, bent - still, atol=1e-4)


def test_stain_jitter_of_nothing_changes_nothing() -> None:
    pixels = torch.from_numpy(make_image(20, 20).astype(np.float32)).permute(2, 0, 1) / 255
    assert torch.equal(jitter_stains(pixels, Augmentation(), np.random.default_rng(0)), pixels)
    # By way of the stains and back, with a gain of 1 and an offset of 0.
    back = jitter_stains(pixels.clamp_min(1 / 255), Augmentation(hed=0.3), Fixed(0.5))  # type: ignore[arg-type]
    np.testing.assert_allclose(back, pixels.clamp_min(1 / 255), atol=1e-5)


def test_stain_jitter_scales_the_amount_of_each_stain() -> None:
    pixels = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.5
    jittered = jitter_stains(pixels, Augmentation(hed=0.2), Fixed(1.0))  # type: ignore[arg-type]

    def amounts(rgb: torch.Tensor) -> torch.Tensor:
        return -torch.log(rgb).flatten(1).T @ torch.linalg.inv(STAINS)

    np.testing.assert_allclose(amounts(jittered), 1.2 * amounts(pixels) + 0.05, atol=1e-3)


def test_relight_shifts_and_stretches_about_each_bands_mean() -> None:
    pixels = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(jitter_light(pixels, Augmentation(), np.random.default_rng(0)), pixels)
    changed = jitter_light(pixels, Augmentation(brightness=0.3, contrast=0.5), Fixed(1.0))  # type: ignore[arg-type]
    mean = pixels.mean((1, 2), keepdim=True)
    np.testing.assert_allclose(changed, (pixels - mean) * 1.5 + mean + 0.3, atol=1e-5)
