"""An image unlike those that a model was made for is warned of, with figures; others are not."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tests.products.making import MemoryImage
from tests.regions.making import slide
from tilepipe.engine.planning.likeness import Likeness, compare, unlike_warning
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.images.reading import Reading
from tilepipe.models.file import load_model
from tilepipe.models.specs import InputSpec
from tilepipe.models.unet import UNetArguments

GREY = InputSpec(1, "uint8", 1 / 255, (0.2,), (0.1,))


def noise(mean: float, std: float, side: int = 200, bands: int = 1) -> NDArray[np.uint8]:
    values = np.random.default_rng(1).normal(mean, std, (side, side, bands))
    return values.round().clip(0, 255).astype(np.uint8)


def distance(pixels: NDArray[Any], spec: InputSpec = GREY, **more: Any) -> float:
    found = compare(MemoryImage(pixels, **more), spec)
    assert found is not None
    return max(found.distances)


def test_the_models_own_images_lie_at_a_distance_of_1() -> None:
    assert distance(noise(51, 25.5)) == pytest.approx(1, abs=0.05)


def test_a_mean_that_is_far_and_a_spread_that_is_wide_both_count() -> None:
    assert distance(noise(51 + 3 * 25.5, 1)) == pytest.approx(3, abs=0.02)
    assert distance(noise(127, 10), replace(GREY, mean=(127 / 255,), std=(2 / 255,))) == (
        pytest.approx(5, abs=0.05)
    )


def test_an_image_of_almost_nothing_is_not_unlike_ones_with_something() -> None:
    assert distance(noise(40, 1)) < 1


def test_the_worst_band_counts() -> None:
    likeness = Likeness((0, 9), (1, 1), (0, 0), (1, 3), "it")
    assert likeness.distances == pytest.approx((1, np.hypot(9, 1) / 3))
    assert likeness.is_far


def test_glass_around_tissue_counts_for_nothing() -> None:
    pixels, inside = slide(768, 1024)
    own = pixels[inside]
    spec = InputSpec(3, "uint8", 1.0, tuple(own.mean(0)), tuple(own.std(0)))
    assert distance(pixels, spec) == pytest.approx(1, abs=0.2)
    found = compare(MemoryImage(pixels), spec)
    assert found is not None
    assert found.what == "its tissue"


def test_of_a_scene_all_pixels_count() -> None:
    pixels, _ = slide(768, 1024)
    spec = InputSpec(3, "uint8", 1.0, (128,) * 3, (50,) * 3)
    found = compare(MemoryImage(pixels, crs="EPSG:32633"), spec)
    assert found is not None
    assert found.mean == pytest.approx(pixels.mean((0, 1)))


def test_pixels_without_data_count_for_nothing() -> None:
    pixels = noise(51, 25.5)
    pixels[:, :100] = 255
    valid = np.ones((200, 200), bool)
    valid[:, :100] = False
    assert distance(pixels, valid=valid) == pytest.approx(1, abs=0.03)


def test_what_cannot_be_read_is_passed_over() -> None:
    image = MemoryImage(noise(51, 25.5, 2600), unreadable=Window(0, 0, 10, 10))
    found = compare(image, GREY)
    assert found is not None
    assert max(found.distances) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(3, "uint8", 1.0, (0, 0, 0), (1, 1, 1)),
        InputSpec(3, "uint8", 1 / 255, (0.5,) * 3, (0.5,) * 3),
        InputSpec(3, "uint8", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_normalisations_that_say_nothing_of_a_models_images_are_not_compared(
    spec: InputSpec,
) -> None:
    assert compare(MemoryImage(noise(0, 0, bands=3)), spec) is None


def test_too_few_pixels_say_nothing() -> None:
    assert compare(MemoryImage(noise(255, 0, 20)), GREY) is None


def test_a_look_is_bounded_whatever_the_size() -> None:
    large = MemoryImage(np.broadcast_to(np.uint8(9), (40_000, 50_000, 1)))
    assert compare(large, GREY) is not None
    read = sum(window.area for window, _ in large.reads)
    assert read <= 3 << 22
    rows = {window.y // 10_000 for window, _ in large.reads}
    columns = {window.x // 10_000 for window, _ in large.reads}
    assert (rows, columns) == (set(range(4)), set(range(5))), "from all over it"


def test_an_image_that_is_decoded_in_one_huge_piece_is_not_looked_at() -> None:
    huge = MemoryImage(np.broadcast_to(np.uint8(9), (40_000, 50_000, 1)), chunk=(40_000, 50_000))
    assert compare(huge, GREY) is None
    assert not huge.reads


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny(path, UNetArguments(width=2, depth=2), pixel_size_um=None)
    return path


def test_the_plan_and_the_summary_warn_with_the_figures(model: Path, tmp_path: Path) -> None:
    pixels = (make_image(300, 280) // 16).astype(np.uint8)
    image = write_tiff(tmp_path / "dark.tif", pixels)
    means = ", ".join(f"{mean:.3g}" for mean in pixels.mean((0, 1)))
    for _ in range(2):  # also when there is nothing left to do
        summary = tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr")
        (warning,) = summary.warnings
        assert f"has a mean of {means}" in warning
        assert "those have a mean of 127, 127, 127" in warning


def test_an_image_of_the_models_own_kind_is_not_warned_of(model: Path, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "image.tif", make_image(300, 280))
    assert tilepipe.plan(image, model=model, outputs="x.ome.zarr")[1].warnings == ()


def test_of_many_bands_the_worst_is_named() -> None:
    spec = InputSpec(8, "uint8", 1.0, (100,) * 8, (20,) * 8)
    pixels = noise(100, 20, bands=8)
    pixels[..., 5] = 250
    loaded = replace(load_model("nuclei-fluo"), input=spec)
    warning = unlike_warning(MemoryImage(pixels), loaded, 0)
    assert warning is not None
    assert "in band 6" in warning
    assert "a mean of 250 " in warning


def paths_of(data: Path, kind: str) -> list[Path]:
    rows = (data / "nuclei/dsb2018/index.tsv").read_text().splitlines()[1:]
    names = [row.split("\t")[0] for row in rows if row.split("\t")[2] == kind]
    return [data / "nuclei/dsb2018/images" / f"{name}.png" for name in names[:: len(names) // 30]]


def share_far(paths: list[Path], model: str) -> float:
    spec = load_model(model).input
    far = []
    for path in paths:
        reading = None if spec.bands == 3 else Reading(bands=(1,))
        with closing(open_image(str(path), reading)) as image:
            found = compare(image, spec)
            assert found is not None
            far.append(found.is_far)
    return float(np.mean(far))


@pytest.mark.slow
def test_the_shipped_models_own_kinds_of_images_do_not_warn(data: Path) -> None:
    assert share_far(sorted((data / "nuclei/tnbc/images").iterdir()), "nuclei-he") == 0
    assert share_far(paths_of(data, "stained_purple_white"), "nuclei-he") == 0
    assert share_far(paths_of(data, "fluo"), "nuclei-fluo") < 0.05


@pytest.mark.slow
def test_foreign_images_do(data: Path) -> None:
    others = sorted((data / "nuclei/dsb2018_test/stained/images").iterdir())
    assert share_far(others, "nuclei-he") > 0.5
    assert share_far([data / "wsi/CMU-1-Small-Region.svs"], "nuclei-he") == 1
    assert share_far(paths_of(data, "fluo"), "nuclei-he") == 1
    assert share_far(sorted((data / "nuclei/tnbc/images").iterdir()), "nuclei-fluo") == 1
