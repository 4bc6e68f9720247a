from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture

from tests.products.making import CLASSES, KINDS, SHAPES, MemoryImage, make_mask, make_spec, whole
from tilepipe.drawing import NO_DATA_COLOUR, PAPER, fitted
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.products import thumbnail as thumbnail_module
from tilepipe.products.base import MaskClass
from tilepipe.products.preview import LONGER_SIDE, write_preview
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask
from tilepipe.products.thumbnail import thumbnail


def read_png(path: Path) -> NDArray[np.uint8]:
    with Picture.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def grey(shape: tuple[int, int], value: int = 100) -> MemoryImage:
    return MemoryImage(np.full((*shape, 3), value, np.uint8))


def labelled(path: Path, labels: NDArray[np.uint8]) -> ZarrMask:
    mask = create_mask(path, make_spec((labels.shape[0], labels.shape[1])))
    mask.write(whole(mask.shape), labels)
    build_pyramid(mask)
    return mask


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 1), (1, 1)), ((3000, 1500), (1024, 512)), ((9000, 2), (1024, 1)), ((700, 9), (700, 9))],
)
def test_the_longer_side_is_1024_at_most(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(shape, LONGER_SIDE) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 2100)])
def test_every_mask_has_a_picture(tmp_path: Path, kind: Any, shape: tuple[int, int]) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(shape, kind))
    write_preview(mask, grey(shape), tmp_path / "m.png")
    height, width = fitted(shape, LONGER_SIDE)
    picture = read_png(tmp_path / "m.png")
    stacked = width > 1.5 * height
    assert picture.shape[0] > (2 * height if stacked else height)
    assert picture.shape[1] == max(width if stacked else 2 * width + 10, 320)


def test_classes_are_tinted_background_is_not_and_no_answer_is_hatched(tmp_path: Path) -> None:
    labels = np.zeros((60, 400), np.uint8)
    labels[:, 100:200], labels[:, 200:300], labels[:, 300:] = 1, 2, 255
    write_preview(labelled(tmp_path / "m.ome.zarr", labels), grey((60, 400)), tmp_path / "m.png")
    picture = read_png(tmp_path / "m.png").astype(int)
    assert (picture[:60, :99] == 100).all()
    for column, named in ((150, CLASSES[1]), (250, CLASSES[2])):
        expected = 100 + (np.array(named.rgb) - 100) * 0.4
        np.testing.assert_allclose(picture[30, column], expected, atol=0.5)
    hatched = picture[10:50, 310:390]
    assert (hatched == hatched[..., :1]).all()
    assert len(np.unique(hatched)) == 2


def test_no_answer_is_in_the_legend_only_when_there_is_any(tmp_path: Path) -> None:
    pictures = []
    for name, label in (("a", 0), ("b", 255)):
        labels = np.zeros((60, 400), np.uint8)
        labels[0, 0] = label
        mask = labelled(tmp_path / f"{name}.ome.zarr", labels)
        write_preview(mask, grey((60, 400)), tmp_path / f"{name}.png")
        pictures.append(read_png(tmp_path / f"{name}.png")[60:])
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


def test_the_image_is_there_without_the_mask_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    mask = labelled(tmp_path / "m.ome.zarr", np.ones((300, 200), np.uint8))
    write_preview(mask, MemoryImage(pixels), tmp_path / "m.png")
    picture = read_png(tmp_path / "m.png")
    np.testing.assert_array_equal(picture[:300, 210:410], pixels)
    assert (picture[:300, :200] != pixels).any()


def test_a_scale_bar_needs_a_pixel_size_that_is_a_length(tmp_path: Path) -> None:
    heights = []
    for unit in ("micrometer", "degree"):
        spec = make_spec((100, 100), pixel_size=PixelSize(0.5, 0.5, unit))
        mask = make_mask(tmp_path / f"{unit}.ome.zarr", spec)
        write_preview(mask, grey((100, 100)), tmp_path / f"{unit}.png")
        heights.append(read_png(tmp_path / f"{unit}.png").shape[0])
    assert heights[0] > heights[1]


def test_many_classes_fit_under_a_narrow_picture(tmp_path: Path) -> None:
    classes = tuple(MaskClass(f"class number {i}", f"#0000{i:02x}") for i in range(40))
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((50, 50), classes=classes))
    write_preview(mask, grey((50, 50)), tmp_path / "m.png")
    assert read_png(tmp_path / "m.png").shape[1] == 320


def test_equal_masks_give_equal_bytes(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    for name in ("a.png", "b.png"):
        write_preview(mask, grey(mask.shape), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_image_of_other_proportions_is_refused(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((50, 50)))
    with pytest.raises(InputError, match="whose proportions differ"):
        write_preview(mask, grey((60, 50)), tmp_path / "m.png")


def test_a_mask_of_a_coarser_level_lies_over_the_whole_image(tmp_path: Path) -> None:
    fine = np.zeros((400, 800, 3), np.uint8)
    fine[:, 400:] = 200
    image = MemoryImage(fine, shrunk=(fine[::2, ::2],))
    labels = np.zeros((200, 400), np.uint8)
    mask = labelled(tmp_path / "m.ome.zarr", labels)
    write_preview(mask, image, tmp_path / "m.png")
    picture = read_png(tmp_path / "m.png")[:200]
    assert (picture[:, :200] == 0).all()
    assert (picture[:, 200:] == 200).all()


def test_a_thumbnail_is_the_mean_of_what_it_covers() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 900, 3)).astype(np.uint8)
    image = MemoryImage(pixels, chunk=(64, 96))
    expected = pixels.reshape(60, 10, 90, 10, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(thumbnail(image, (60, 90)), expected, atol=0.51)


@pytest.mark.parametrize("chunk", [(7, 5000), (1, 5000), (3000, 5000), (256, 256), (1000, 3)])
def test_a_huge_level_is_read_once_and_in_pieces(chunk: tuple[int, int]) -> None:
    image = MemoryImage(np.broadcast_to(np.uint8(7), (3000, 5000, 1)), chunk=chunk)
    assert (thumbnail(image, (614, 1024)) == 7).all()
    windows = [window for window, _ in image.reads]
    assert sum(window.area for window in windows) == 3000 * 5000
    assert max(window.area for window in windows) <= max(2048 * 2048, chunk[0] * 2048)


def test_the_coarsest_level_that_is_large_enough_is_read() -> None:
    pixels = np.zeros((800, 800, 3), np.uint8)
    image = MemoryImage(pixels, shrunk=(pixels[::2, ::2], pixels[::4, ::4]))
    thumbnail(image, (300, 300))
    assert {level for _, level in image.reads} == {1}


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_what_is_not_bytes_is_stretched(dtype: str) -> None:
    ramp = np.linspace(-1000 if dtype == "int16" else 0, 5000, 100 * 100).reshape(100, 100, 1)
    small = thumbnail(MemoryImage(ramp.astype(dtype)), (100, 100))
    assert small.shape == (100, 100, 3)
    assert (small.min(), small.max()) == (0, 255)


def test_what_holds_no_data_is_light_and_does_not_count() -> None:
    pixels = np.full((100, 100, 1), 3.0, np.float32)
    pixels[:50] = 1.0
    pixels[:, :10] = np.nan
    valid = np.ones((100, 100), bool)
    valid[:, 90:] = False
    pixels[:, 90:] = -9999
    small = thumbnail(MemoryImage(pixels, valid=valid), (10, 10))
    assert (small[:, [0, 9]] == NO_DATA_COLOUR).all()
    assert (small[:5, 1:9] == 0).all()
    assert (small[5:, 1:9] == 255).all()


def test_what_cannot_be_read_is_light_and_no_failure() -> None:
    image = MemoryImage(np.full((3000, 100, 3), 9, np.uint8), unreadable=Window(0, 0, 1, 1))
    image.chunk = (100, 100)
    small = thumbnail(image, (1000, 33))
    assert (small[0, 0] == NO_DATA_COLOUR).all()


def test_a_real_slide_has_a_picture(tmp_path: Path, data: Path) -> None:
    with tifffile.TiffFile(data / "wsi" / "CMU-1-Small-Region.svs") as file:
        slide = file.pages[0].asarray()[:1300, :900]
    image = MemoryImage(slide)
    labels = (slide[:, :, 1] < 120).astype(np.uint8)
    mask = labelled(tmp_path / "m.ome.zarr", labels)
    write_preview(mask, image, tmp_path / "m.png")
    picture = read_png(tmp_path / "m.png")
    assert max(picture.shape[:2]) > 1024
    assert picture.std() > 10


@pytest.mark.slow
def test_of_a_large_image_without_levels_only_what_has_an_answer_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnail_module, "_QUICKLY_READ", 10**6)
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((5000, 5000)))
    mask.write(Window(2048, 0, 512, 512), np.zeros((512, 512), np.uint8))
    build_pyramid(mask)
    write_preview(mask, grey((5000, 5000)), tmp_path / "m.png")
    picture = read_png(tmp_path / "m.png")
    unread = np.asarray(NO_DATA_COLOUR)
    answered = picture[2100 * 1024 // 5000, 30]
    assert (answered == 100).all()
    hatched = picture[: 2000 * 1024 // 5000, :1024]  # dark and light stripes over what was not read
    lightest = np.rint(unread + (np.array([176] * 3) - unread) * 0.75)
    assert (hatched.reshape(-1, 3).max(0) == lightest).all()


def test_an_image_of_any_scale_lies_under_the_mask(tmp_path: Path) -> None:
    labels = np.zeros((60, 400), np.uint8)
    labels[:, 200:] = 1
    mask = labelled(tmp_path / "m.ome.zarr", labels)
    for name, shape in (("large", (121, 799)), ("small", (15, 100))):
        write_preview(mask, grey(shape), tmp_path / f"{name}.png")
    large, small = (read_png(tmp_path / f"{name}.png") for name in ("large", "small"))
    np.testing.assert_array_equal(large, small)


def test_without_an_image_the_mask_lies_on_paper(tmp_path: Path) -> None:
    mask = labelled(tmp_path / "m.ome.zarr", np.zeros((60, 400), np.uint8))
    write_preview(mask, None, tmp_path / "m.png")
    assert (read_png(tmp_path / "m.png")[:60, :400] == PAPER).all()
