"""What the survey before the first step finds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.making import make_image, write_tiff
from tests.training.making import discs, write_png, write_values
from tilepipe.errors import InputError
from tilepipe.images.base import PixelSize
from tilepipe.training import survey as surveying
from tilepipe.training.options import TrainOptions
from tilepipe.training.pairs import TrainingPair
from tilepipe.training.survey import Survey, check_validation, survey
from tilepipe.training.tiles import PairCache

Surveyed = Callable[..., Survey]


@pytest.fixture
def cache_of(tmp_path: Path) -> Callable[..., PairCache]:
    """A cache of images and masks given as arrays."""

    def make(
        masks: Sequence[NDArray[Any]],
        images: Sequence[NDArray[Any]] | None = None,
        pixel_sizes: Sequence[float | None] = (),
        folder: str = "training",
    ) -> PairCache:
        pairs = []
        (tmp_path / folder).mkdir()
        for i, mask in enumerate(masks):
            given = make_image(*mask.shape[:2], seed=i) if images is None else images[i]
            size = pixel_sizes[i] if pixel_sizes else None
            image = write_tiff(tmp_path / folder / f"image{i}.tif", given, size)
            path = tmp_path / folder / f"mask{i}"
            if mask.dtype.kind == "f":
                path = write_values(path.with_suffix(".tif"), mask)
            else:
                path = write_png(path.with_suffix(".png"), mask)
            pairs.append(TrainingPair(str(image), str(path), f"{i}"))
        return PairCache(pairs)

    return make


@pytest.fixture
def surveyed(cache_of: Callable[..., PairCache]) -> Surveyed:
    """A survey of masks and images given as arrays."""

    def make(
        masks: Sequence[NDArray[Any]],
        images: Sequence[NDArray[Any]] | None = None,
        pixel_sizes: Sequence[float | None] = (),
        **options: Any,
    ) -> Survey:
        cache = cache_of(masks, images, pixel_sizes)
        return survey(cache, TrainOptions(data=("x",), output="y", **options))

    return make


def labelled(*labels: int, side: int = 20) -> NDArray[np.uint8]:
    """A mask with the labels in equal stripes."""
    return np.repeat(np.array(labels, np.uint8), side * side // len(labels)).reshape(side, side)


def test_masks_of_0_and_255_are_binary(surveyed: Surveyed) -> None:
    found = surveyed([labelled(0, 255), labelled(0, 0, 0, 255)])
    assert (found.scheme.kind, found.outputs, found.counts) == ("binary", 2, (500, 300))


def test_small_numbers_are_classes_and_255_says_nothing(surveyed: Surveyed) -> None:
    found = surveyed([labelled(0, 1, 1, 3), labelled(0, 255, 255, 1)])
    assert (found.scheme.kind, found.outputs, found.counts) == ("classes", 4, (200, 300, 0, 100))


def test_many_numbers_are_not_taken_for_classes_unasked(surveyed: Surveyed) -> None:
    with pytest.raises(InputError, match=r"--instances .* --classes"):
        surveyed([discs(60, 0, count=40, radius=4)])


def test_instances_are_background_and_object(surveyed: Surveyed) -> None:
    numbers = discs(60, 0, count=40, radius=4)
    found = surveyed([numbers], labels="instances")
    assert (found.scheme.kind, found.outputs) == ("instances", 2)
    assert found.counts == ((numbers == 0).sum(), (numbers > 0).sum())


def test_a_border_class_is_counted(surveyed: Surveyed) -> None:
    found = surveyed([discs(60, 0, count=12)], labels="instances", border=3.0)
    assert found.outputs == 3
    assert sum(found.counts) == 3600
    assert min(found.counts) > 0


def test_float_masks_are_values_one_output_a_plane(surveyed: Surveyed) -> None:
    values = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    values[3, 4] = np.nan
    found = surveyed([values, values])
    assert (found.scheme.kind, found.outputs, found.counts) == ("values", 1, ())


def test_whole_numbers_are_values_where_asked_so(surveyed: Surveyed) -> None:
    assert surveyed([labelled(0, 1, 5, 9)], labels="values").scheme.kind == "values"


def test_values_may_be_absent_in_part_of_a_mask_but_not_in_all_of_it(
    surveyed: Surveyed, cache_of: Callable[..., PairCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "WINDOW", 16)
    values = np.full((48, 48), np.nan, np.float32)
    values[40:, 40:] = 1.0  # the first windows hold nothing
    assert surveyed([values]).outputs == 1
    cache = cache_of([values, np.full((48, 48), np.nan, np.float32)], folder="other")
    with pytest.raises(InputError, match=r"mask1\.tif: holds no values at all"):
        survey(cache, TrainOptions(data=("x",), output="y"))


def test_mean_and_deviation_are_those_of_all_pixels(surveyed: Surveyed) -> None:
    images = [make_image(20, 20, seed=0), make_image(20, 20, seed=1) // 2]
    found = surveyed([labelled(0, 1)] * 2, images)
    pixels = np.concatenate([i.reshape(-1, 3) for i in images]) / 255
    assert found.scale == 1 / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.std, pixels.std(0), atol=1e-6)


def test_a_large_image_is_looked_at_in_part(
    surveyed: Surveyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "WINDOW", 16)
    monkeypatch.setattr(surveying, "LARGEST", 160 * 160 // 8)
    mask = (make_image(160, 160)[..., 0] > 127).astype(np.uint8)
    found = surveyed([mask])
    assert 0.1 < sum(found.counts) / 160**2 < 0.15
    assert found.pixels == (160**2,)
    assert found.counts[1] / sum(found.counts) == pytest.approx(mask.mean(), abs=0.1)


@pytest.mark.parametrize(
    ("how", "weights"),
    [("none", (1, 1, 1)), ("1,2,0.5", (1, 2, 0.5)), ("balanced", (4 / 6, 4 / 3, 4 / 3))],
)
def test_class_weights(surveyed: Surveyed, how: str, weights: tuple[float, ...]) -> None:
    found = surveyed([labelled(0, 0, 1, 2)])
    np.testing.assert_allclose(found.class_weights(how), weights)


@pytest.mark.parametrize("how", ["1,2", "a,b,c", "", "-1,1,1", "0,0,0", "nan,1,1", "inf,1,1"])
def test_class_weights_that_fit_no_classes_are_refused(surveyed: Surveyed, how: str) -> None:
    found = surveyed([labelled(0, 0, 1, 2)])
    with pytest.raises(InputError, match="class_weights"):
        found.class_weights(how)


def test_a_class_that_was_not_met_weighs_as_much_as_the_rarest(surveyed: Surveyed) -> None:
    found = surveyed([labelled(0, 0, 0, 1)], classes=("a", "b", "c"))
    assert found.class_weights("balanced")[2] == found.class_weights("balanced")[1]


def test_labels_beyond_the_class_list_are_refused(surveyed: Surveyed) -> None:
    with pytest.raises(InputError, match="hold the label 7, but there are 2 classes"):
        surveyed([labelled(0, 1), labelled(0, 7)], classes=("a", "b"))


def test_labels_beyond_the_class_list_may_be_ignored(surveyed: Surveyed) -> None:
    found = surveyed([labelled(0, 1), labelled(0, 7)], classes=("a", "b"), ignore=(7,))
    assert found.counts == (400, 200)


@pytest.mark.parametrize(
    ("label", "complaint"), [(0, "nothing but label 0"), (1, "nothing but label 1")]
)
def test_masks_of_one_class_only_are_refused(
    surveyed: Surveyed, label: int, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        surveyed([labelled(label), labelled(label)])


def test_masks_that_say_nothing_are_refused(surveyed: Surveyed) -> None:
    with pytest.raises(InputError, match="hold no labels to learn"):
        surveyed([labelled(255)], labels="classes")


def test_a_colour_picture_is_no_mask(surveyed: Surveyed) -> None:
    with pytest.raises(InputError, match="bands that differ"):
        surveyed([make_image(20, 20)])


def test_a_grey_picture_saved_with_three_bands_is_a_mask(surveyed: Surveyed) -> None:
    assert surveyed([np.stack([labelled(0, 1)] * 3, -1)]).counts == (200, 200)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_told_by_file_and_draw_centre(
    surveyed: Surveyed, value: float
) -> None:
    images = [make_image(20, 20, seed=i).astype(np.float32) for i in range(2)]
    images[1][7, 11] = value
    with pytest.raises(InputError, match=r"image1\.tif: is NaN or infinite at row 7, column 11"):
        surveyed([labelled(0, 1)] * 2, images)


def test_a_mask_of_another_size_than_its_image_is_named(surveyed: Surveyed) -> None:
    images = [make_image(20, 20), make_image(20, 21)]
    with pytest.raises(InputError, match=r"mask1\.png: is 20 x 20 .*image1\.tif 21 x 20"):
        surveyed([labelled(0, 1)] * 2, images)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (make_image(20, 20)[..., 0], r"image1\.tif: has 1 bands, but .*image0\.tif has 3"),
        (make_image(20, 20).astype("u2"), r"image1\.tif: has uint16 pixels, but .* has uint8"),
    ],
)
def test_images_of_unlike_bands_or_dtypes_are_named(
    surveyed: Surveyed, other: NDArray[Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        surveyed([labelled(0, 1)] * 2, [make_image(20, 20), other])


@pytest.mark.parametrize("sizes", [(0.25, 0.5), (0.5, 0.25)])
def test_images_of_unlike_pixel_sizes_are_refused_both_ways(
    surveyed: Surveyed, sizes: tuple[float, float]
) -> None:
    with pytest.raises(InputError, match=r"image1\.tif: its pixels are .* --pixel-size"):
        surveyed([labelled(0, 1)] * 2, pixel_sizes=sizes)


def test_the_pixel_size_is_the_images_or_the_one_told(surveyed: Surveyed) -> None:
    found = surveyed([labelled(0, 1)] * 2, pixel_sizes=(0.25, 0.252))
    assert found.pixel_size is not None
    assert found.pixel_size.x == found.pixel_size.y == pytest.approx(0.25)


def test_the_pixel_size_told_wins(surveyed: Surveyed) -> None:
    found = surveyed([labelled(0, 1)] * 2, pixel_sizes=(0.25, 0.5), pixel_size=0.4)
    assert found.pixel_size is not None
    assert (found.pixel_size.x, found.pixel_size.unit) == (0.4, "micrometer")


@pytest.mark.parametrize(("y", "x", "square"), [(0.2500, 0.2504, True), (0.25, 0.5, False)])
def test_pixels_that_are_nearly_square_become_square(
    cache_of: Callable[..., PairCache], y: float, x: float, square: bool
) -> None:
    sizes = [PixelSize(y, x, "micrometer")]
    options = TrainOptions(data=("x",), output="y")
    size = surveying._pixel_size(cache_of([labelled(0, 1)]), sizes, options)
    assert (size is not None and size.y == size.x) == square


@pytest.mark.parametrize(
    ("mask", "image", "complaint"),
    [
        (labelled(0, 2), make_image(20, 20), r"mask0\.png: holds the label 2"),
        (labelled(0, 1), make_image(20, 20)[..., 0], r"image0\.tif: has 1 bands"),
        (labelled(0, 1), make_image(20, 22), r"mask0\.png: is 20 x 20"),
    ],
)
def test_validation_pairs_are_looked_at_before_the_first_step(
    cache_of: Callable[..., PairCache], mask: NDArray[Any], image: NDArray[Any], complaint: str
) -> None:
    cache = cache_of([labelled(0, 1)])
    found = survey(cache, TrainOptions(data=("x",), output="y"))
    judged = cache_of([mask], [image], folder="validation")
    with pytest.raises(InputError, match=complaint):
        check_validation(cache, judged, found)


def test_the_names_that_all_images_give_their_bands_are_the_models(surveyed: Surveyed) -> None:
    assert surveyed([labelled(0, 1)] * 2).band_names == ("red", "green", "blue")


def test_bands_without_names_stay_without(surveyed: Surveyed) -> None:
    assert surveyed([labelled(0, 1)], [make_image(20, 20, 1)[..., 0]]).band_names == ()


def test_bands_in_another_order_are_refused(tmp_path: Path) -> None:
    from tests.images.making import geotiff

    pairs = []
    for i, names in enumerate((["red", "green", "blue"], ["blue", "green", "red"])):
        image = geotiff(tmp_path / f"{i}.tif", make_image(20, 20), names)
        mask = write_png(tmp_path / f"{i}.png", labelled(0, 1))
        pairs.append(TrainingPair(str(image), str(mask), f"{i}"))
    with pytest.raises(InputError, match=r"another order \(1 blue, 2 green, 3 red\)"):
        survey(PairCache(pairs), TrainOptions(data=("x",), output="y"))
