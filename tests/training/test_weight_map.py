"""The paper's weight map against its definition, pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from tests.training.making import discs, picture_of, train, write_png
from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import NO_LABEL
from tilepipe.grid import Window
from tilepipe.training.labels import LabelScheme, gap_widths, open_training_mask, seams
from tilepipe.training.losses import GAP_REACH, weight_map
from tilepipe.training.survey import Survey


def d1_plus_d2(objects: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of the distances to the two nearest objects, from all distances there are."""
    numbers = [n for n in np.unique(objects) if n]
    if len(numbers) < 2:
        return np.full(objects.shape, np.inf)
    places = [np.argwhere(objects == n) for n in numbers]
    total = np.empty(objects.shape)
    for pixel in np.ndindex(objects.shape):
        distances = sorted(np.sqrt(((p - pixel) ** 2).sum(1).min()) for p in places)
        total[pixel] = distances[0] + distances[1]
    return total


def draw(name: str) -> NDArray[np.int64]:
    objects = np.zeros((24, 30), np.int64)
    objects[3:10, 4:12] = 1
    if name == "touching":
        objects[3:12, 12:20] = 2
    elif name != "single":
        objects[5:15, 15:22] = 2
    if name == "many":
        objects[16:20, 2:9], objects[20:23, 25:29], objects[0:2, 0:3] = 3, 4, 5
    if name == "numbers far apart":
        objects[objects == 2] = 10**9
    return objects


@pytest.mark.parametrize("name", ["two", "touching", "single", "many", "numbers far apart"])
def test_gap_widths_are_the_distances_to_the_two_nearest_objects(name: str) -> None:
    objects = draw(name)
    gaps = gap_widths(objects, reach=100)
    np.testing.assert_allclose(gaps, d1_plus_d2(objects), rtol=1e-6)


def test_large_numbers_without_any_background_are_all_objects() -> None:
    objects = np.full((4, 6), 10**9)
    objects[:, 3:] += 5
    np.testing.assert_allclose(gap_widths(objects, reach=100), d1_plus_d2(objects), rtol=1e-6)


def test_a_gap_beyond_reach_is_infinite_and_one_within_is_exact() -> None:
    objects = draw("many")
    expected, gaps = d1_plus_d2(objects), gap_widths(objects, reach=6)
    assert np.isfinite(gaps).any()
    assert np.isinf(gaps).any()
    near = np.isfinite(gaps)
    np.testing.assert_allclose(gaps[near], expected[near], rtol=1e-6)
    assert (expected[~near] > 6).all()


def test_weights_are_equation_2_with_its_border_term_on_background() -> None:
    objects = draw("many")
    labels = (objects > 0).astype(np.int64)
    labels[0, 25:] = 255
    w0, sigma, balance = 10.0, 5.0, (0.7, 3.0)
    gaps = gap_widths(objects, reach=GAP_REACH * sigma)
    weights = weight_map(
        torch.from_numpy(labels)[None], torch.from_numpy(gaps)[None], torch.tensor(balance),
        w0, sigma,
    )  # fmt: skip
    border = w0 * np.exp(-(d1_plus_d2(objects) ** 2) / (2 * sigma**2))
    expected = np.where(labels == 1, balance[1], balance[0] + border)
    expected[labels == 255] = 0
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5, atol=1e-4)
    assert weights.max() > 0.5 * w0  # the drawn gap is narrow


def test_without_border_term_weights_are_the_class_balance() -> None:
    labels = torch.tensor([[[0, 1, 255]]])
    weights = weight_map(labels, None, torch.tensor([0.5, 2.0]), 10.0, 5.0)
    assert weights.tolist() == [[[0.5, 2.0, 0.0]]]


def test_balanced_class_weights_give_each_class_the_same_total() -> None:
    scheme = LabelScheme("classes", 3)
    survey = Survey(3, "uint8", 1, (0,), (1,), None, scheme, 3, (60, 30, 10), (100,))
    weights = np.array(survey.class_weights("balanced"))
    totals = weights * survey.counts
    np.testing.assert_allclose(totals, totals[0])
    assert totals.sum() == pytest.approx(sum(survey.counts))


@pytest.mark.parametrize(
    "window",
    [Window(10, 12, 20, 24), Window(-9, -7, 30, 30), Window(30, 28, 25, 30), Window(0, 0, 44, 44)],
)
def test_the_gaps_of_a_window_are_those_of_the_whole_mirrored_mask(
    tmp_path: Path, window: Window
) -> None:
    objects = discs(44, seed=3, count=7, radius=5)
    file = open_training_mask(str(write_png(tmp_path / "mask.png", objects)))
    sigma = 2.0
    scheme = LabelScheme("instances", 2, gap_reach=GAP_REACH * sigma)
    target = scheme.target(file, window)
    pad = 40
    mirrored = np.pad(objects, pad, mode="reflect").astype(np.int64)
    inside = tuple(slice(s.start + pad, s.stop + pad) for s in window.slices())
    # A mirrored copy of an object bears its number: it is the same one in both computations.
    expected = gap_widths(mirrored, GAP_REACH * sigma)[inside]
    assert target.gaps is not None
    near = np.isfinite(target.gaps) | np.isfinite(expected)
    weight = np.exp(-(target.gaps**2) / (2 * sigma**2))
    wanted = np.exp(-(expected**2) / (2 * sigma**2))
    assert near.any()
    np.testing.assert_allclose(weight, wanted, atol=1e-5)


def test_touching_objects_are_told_apart_by_a_line_of_background(tmp_path: Path) -> None:
    objects = draw("touching").astype(np.uint8)
    file = open_training_mask(str(write_png(tmp_path / "mask.png", objects)))
    target = LabelScheme("instances", 2, gap_reach=25.0).target(file, Window(0, 0, 24, 30))
    assert (target.labels[3:10, 11:13] == 0).all()
    assert (target.labels[3:10, 4:11] == 1).all()
    line = seams(objects.astype(np.int64))
    assert line[3:10, 11:13].all()
    assert line.sum() == 14


def test_a_border_class_is_what_lies_between_objects_close_together(tmp_path: Path) -> None:
    objects = draw("two").astype(np.uint8)
    file = open_training_mask(str(write_png(tmp_path / "mask.png", objects)))
    target = LabelScheme("instances", 3, border=4.0).target(file, Window(0, 0, 24, 30))
    expected = np.where(d1_plus_d2(objects.astype(np.int64)) <= 4.0, 2, objects > 0)
    np.testing.assert_array_equal(target.labels, expected)
    assert (target.labels == 2).any()
    assert target.gaps is None


def test_objects_with_one_number_are_told_apart_by_what_hangs_together(tmp_path: Path) -> None:
    objects = np.pad(draw("two"), 40)  # far from their mirrored copies, which are others
    one = (objects > 0).astype(np.uint8) * 7
    file = open_training_mask(str(write_png(tmp_path / "mask.png", one)))
    for kind in ("instances", "binary"):
        target = LabelScheme(kind, 2, gap_reach=30.0).target(file, Window(40, 40, 24, 30))
        np.testing.assert_allclose(target.gaps, d1_plus_d2(draw("two")), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "f4"])
def test_object_numbers_of_any_type_are_read(tmp_path: Path, dtype: str) -> None:
    import tifffile

    objects = draw("two").astype(dtype)
    tifffile.imwrite(tmp_path / "mask.tif", objects, metadata=None)
    scheme = LabelScheme("instances", 3, border=4.0)
    target = scheme.target(open_training_mask(str(tmp_path / "mask.tif")), Window(0, 0, 24, 30))
    assert set(np.unique(target.labels)) == {0, 1, 2}


def negative_scene(folder: Path) -> Path:
    """Images whose masks number their objects, and mark a part with -1."""
    for i in range(3):
        numbers = discs(64, i).astype(np.int32)
        numbers[:8] = -1
        write_png(folder / "images" / f"{i}.png", picture_of(numbers, i))
        (folder / "masks").mkdir(exist_ok=True)
        tifffile.imwrite(folder / "masks" / f"{i}.tif", numbers, metadata=None)
    return folder


@pytest.mark.parametrize("options", [{"border": 3}, {"border_weight": 5.0}, {}])
def test_negative_numbers_of_objects_are_refused_in_one_sentence(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"holds the label -1; .* --ignore -1"):
        train(negative_scene(tmp_path), tmp_path / "m.safetensors", labels="instances", **options)


def test_negative_numbers_that_are_ignored_are_trained_around(tmp_path: Path) -> None:
    folder = negative_scene(tmp_path)
    scheme = LabelScheme("instances", 3, border=3, ignore=(-1,), gap_reach=10)
    mask = open_training_mask(str(folder / "masks" / "0.tif"))
    target = scheme.target(mask, Window(0, 0, 64, 64))
    assert (target.labels[:8] == 255).all()
    assert target.gaps is not None
    numbers = np.maximum(mask.read(Window(0, 0, 64, 64))[0], 0).astype(np.int64)
    np.testing.assert_allclose(target.gaps, gap_widths(numbers, 10))


def test_large_numbers_beside_negative_ones_stay_objects() -> None:
    values = np.array([[-1, 0, 5_000_000, 7_000_000]])
    scheme = LabelScheme("instances", 2, ignore=(-1,))
    np.testing.assert_array_equal(scheme.objects(values) > 0, [[False, False, True, True]])


def test_pixels_that_a_mask_band_leaves_out_do_not_count() -> None:
    values = np.array([[NO_LABEL, 0, 1, 2]])
    for kind, expected in (("classes", [255, 0, 1, 2]), ("instances", [255, 0, 1, 1])):
        scheme = LabelScheme(kind, 3, border=1)
        np.testing.assert_array_equal(scheme.labels(values, Path("m.tif"))[0], expected)
