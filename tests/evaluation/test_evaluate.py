"""`evaluate` on files of every form: what is counted, what labels mean, what is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp

import tilepipe
from tests.evaluation.making import brute_force, discs
from tests.making import make_image
from tests.products.making import whole
from tilepipe.errors import InputError
from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.evaluation.results import Evaluation
from tilepipe.images.base import PixelSize
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.rules import BORDER
from tilepipe.objects.whole import number_parts
from tilepipe.products import MaskClass, MaskSpec
from tilepipe.products.base import Transform
from tilepipe.products.geotiff import write_cog
from tilepipe.products.ome_tiff import write_ome_tiff
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask

TWO = (MaskClass("background", "#000000"), MaskClass("nucleus", "#ff0000"))
THREE = (*TWO, MaskClass("border", "#00ff00"))
UTM = "EPSG:32633"


def patches(seed: int, shape: tuple[int, int] = (600, 700), top: int = 2) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, top, (-(-shape[0] // 9), -(-shape[1] // 9)))
    return small.repeat(9, 0).repeat(9, 1)[: shape[0], : shape[1]].astype(np.uint8)


def write_mask(
    path: Path,
    labels: NDArray[Any],
    classes: tuple[MaskClass, ...] = TWO,
    kind: Any = "labels",
    **others: Any,
) -> ZarrMask:
    height, width = labels.shape[-2:]
    mask = create_mask(path, MaskSpec(height, width, kind, classes, **others))
    mask.write(whole((height, width)), labels)
    build_pyramid(mask)
    return mask


def write_png(path: Path, labels: NDArray[Any]) -> Path:
    Image.fromarray(labels).save(path)
    return path


def write_geotiff(
    path: Path,
    pixels: NDArray[Any],
    transform: Transform,
    crs: str = UTM,
    nodata: float | None = None,
) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype,
        crs=crs, transform=rasterio.Affine(*transform), nodata=nodata,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def matrix(result: Evaluation) -> list[list[int]]:
    found: list[list[int]] = result.pooled.confusions[0].matrix.tolist()
    return found


def expected(said: NDArray[Any], true: NDArray[Any], classes: int = 2) -> list[list[int]]:
    return [
        [int(((true == row) & (said == column)).sum()) for column in range(classes)]
        for row in range(classes)
    ]


@pytest.fixture
def said() -> NDArray[np.uint8]:
    labels = patches(0)
    labels[:50] = 255
    return labels


@pytest.mark.parametrize("form", ["zarr", "ome-tiff", "cog"])
@pytest.mark.parametrize(
    "truth", ["png", "png-255", "png-bit", "palette", "tif-16", "strips", "zarr"]
)
def test_masks_and_truths_of_every_form(
    tmp_path: Path, said: NDArray[np.uint8], form: str, truth: str
) -> None:
    mask = write_mask(tmp_path / "mask.ome.zarr", said)
    path = tmp_path / "mask.ome.zarr"
    if form == "ome-tiff":
        write_ome_tiff(mask, path := tmp_path / "mask.ome.tif")
    elif form == "cog":
        write_cog(mask, path := tmp_path / "mask.tif")
    true = patches(1)
    target = tmp_path / "truth.png"
    if truth == "png":
        write_png(target, true)
    elif truth == "png-255":
        write_png(target, true * 255)
    elif truth == "png-bit":
        write_png(target, true.astype(bool))
    elif truth == "palette":
        picture = Image.fromarray(true)
        picture.putpalette([200, 10, 30, 10, 20, 250])
        picture.save(target)
    elif truth == "tif-16":
        tifffile.imwrite(target := tmp_path / "t.tif", true.astype(np.uint16), tile=(64, 64))
    elif truth == "strips":
        tifffile.imwrite(target := tmp_path / "t.tif", true.astype(np.int32), rowsperstrip=7)
    else:
        write_mask(target := tmp_path / "truth.zarr", true)
    result = tilepipe.evaluate(path, target)
    assert matrix(result) == expected(said, true)
    assert result.classes == ("background", "nucleus")
    assert result.pooled.no_answer == 50 * 700
    assert result.pooled.answered == pytest.approx(550 / 600)


def test_windows_of_any_memory_count_the_same(tmp_path: Path, said: NDArray[np.uint8]) -> None:
    write_mask(tmp_path / "m.zarr", said)
    truth = write_png(tmp_path / "t.png", patches(1))
    one, other = (
        tilepipe.evaluate(tmp_path / "m.zarr", truth, instances=True, memory=memory)
        for memory in ("1GB", "16MB")
    )
    assert one.to_dict() == other.to_dict()


def test_no_answer_can_count_as_a_class(tmp_path: Path, said: NDArray[np.uint8]) -> None:
    write_mask(tmp_path / "m.zarr", said)
    true = patches(1)
    truth = write_png(tmp_path / "t.png", true)
    result = tilepipe.evaluate(tmp_path / "m.zarr", truth, no_answer_as="background")
    assert matrix(result) == expected(np.where(said == 255, 0, said), true)
    assert result.pooled.answered == pytest.approx(550 / 600)


def test_labels_to_ignore_are_left_out(tmp_path: Path) -> None:
    said, true = patches(0), patches(1, top=5)
    write_mask(tmp_path / "m.zarr", said)
    true[true == 4] = 255
    truth = write_png(tmp_path / "t.png", true)
    result = tilepipe.evaluate(tmp_path / "m.zarr", truth, ignore=(2, 3))
    assert matrix(result) == expected(said, true)
    assert result.pooled.confusions[0].ignored == int((true > 1).sum())


def test_foreground_of_255_is_told_from_ignore_by_all_truths_together(tmp_path: Path) -> None:
    # One truth happens to hold 0 and 255 only; another shows that 255 is no foreground.
    masks, truths = tmp_path / "m", tmp_path / "t"
    masks.mkdir()
    truths.mkdir()
    for name, top in (("a", 1), ("b", 2)):
        write_mask(masks / f"{name}.zarr", patches(0, (40, 40)))
        true = patches(1, (40, 40), top)
        true[:9] = 255
        write_png(truths / f"{name}.png", true)
    result = tilepipe.evaluate(masks, truths)
    assert result.pooled.confusions[0].ignored == 2 * 9 * 40
    forced = tilepipe.evaluate(masks, truths, binary_truth=True)
    assert forced.pooled.confusions[0].ignored == 0
    alone = tilepipe.evaluate(masks / "a.zarr", truths / "a.png", binary_truth=False)
    assert alone.pooled.confusions[0].ignored == 9 * 40


def test_a_binary_prediction_of_another_program(tmp_path: Path) -> None:
    said, true = patches(0), patches(1)
    mask, truth = write_png(tmp_path / "m.png", said * 255), write_png(tmp_path / "t.png", true)
    result = tilepipe.evaluate(mask, truth)
    assert matrix(result) == expected(said, true)
    assert result.classes == ("background", "foreground")


def test_a_truth_of_one_class_against_a_mask_of_three(tmp_path: Path) -> None:
    said = patches(0, top=3)
    write_mask(tmp_path / "m.zarr", said, THREE)
    true = patches(1)
    truth = write_png(tmp_path / "t.png", true * 255)
    result = tilepipe.evaluate(tmp_path / "m.zarr", truth)
    # The border belongs to the nuclei that it keeps apart.
    assert matrix(result) == expected(said > 0, true)
    assert result.classes == ("background", "nucleus")
    result = tilepipe.evaluate(tmp_path / "m.zarr", truth, border_class="none")
    assert matrix(result) == expected(said == 1, true)


def test_which_class_a_binary_truth_stands_for_has_to_be_known(tmp_path: Path) -> None:
    classes = (TWO[0], MaskClass("road", "#ff0000"), MaskClass("water", "#0000ff"))
    said, true = patches(0, top=3), patches(1)
    write_mask(tmp_path / "m.zarr", said, classes)
    truth = write_png(tmp_path / "t.png", true * 255)
    with pytest.raises(
        InputError, match="which of the classes background, road, water are the objects"
    ):
        tilepipe.evaluate(tmp_path / "m.zarr", truth)
    for wanted in ("water", 2, "2"):
        result = tilepipe.evaluate(tmp_path / "m.zarr", truth, object_class=wanted)
        assert matrix(result) == expected(said == 2, true)
    with pytest.raises(InputError, match="no such class"):
        tilepipe.evaluate(tmp_path / "m.zarr", truth, object_class="air")


def test_a_label_that_is_no_class_is_one_sentence(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.zarr", patches(0))
    truth = write_png(tmp_path / "t.png", patches(1, top=8))
    with pytest.raises(
        InputError, match=r"t.png, or another file with it, has the label 2, .* 2 classes"
    ):
        tilepipe.evaluate(tmp_path / "m.zarr", truth)
    tifffile.imwrite(tmp_path / "t.tif", patches(1).astype(np.uint16) * 1000)
    with pytest.raises(InputError, match="labels above 255"):
        tilepipe.evaluate(tmp_path / "m.zarr", tmp_path / "t.tif")


@pytest.mark.parametrize("form", ["png-16", "tif-32", "zarr-16"])
def test_objects_against_numbered_ones(tmp_path: Path, form: str) -> None:
    truth = discs(1, side=300, count=60) * 7
    said = (discs(2, side=300, count=40) > 0).astype(np.uint8)
    said[:20] = 255
    write_mask(tmp_path / "m.zarr", said)
    path = tmp_path / "t.png"
    if form == "png-16":
        write_png(path, truth.astype(np.uint16))
    elif form == "tif-32":
        tifffile.imwrite(path := tmp_path / "t.tif", truth.astype(np.int32))
    else:
        group = zarr.open_group(path := tmp_path / "t.zarr", mode="w", zarr_format=2)
        group.create_array("0", data=truth.astype(np.uint16), chunks=(128, 128))
        axes = [{"name": n, "type": "space"} for n in "yx"]
        scale = [{"type": "scale", "scale": [1, 1]}]
        group.attrs["multiscales"] = [
            {
                "version": "0.4",
                "axes": axes,
                "datasets": [{"path": "0", "coordinateTransformations": scale}],
            }
        ]
    result = tilepipe.evaluate(tmp_path / "m.zarr", path, instances=True)
    known = said != 255
    objects = result.pooled.objects
    assert objects is not None
    found = (
        objects.true_positives, objects.false_positives, objects.false_negatives,
        objects.common, objects.union,
    )  # fmt: skip
    cut = np.where(
        known, number_parts((said == 1).astype(np.uint8), ObjectRule(), corners=False), 0
    )
    assert found == brute_force(cut, np.where(known, truth, 0))
    assert matrix(result) == expected(said, np.where(known, truth > 0, 255))
    filled = tilepipe.evaluate(tmp_path / "m.zarr", path, instances=True, no_answer_as=0)
    assert filled.pooled.objects is not None
    assert filled.pooled.objects.common == found[3]
    assert filled.pooled.objects.union > found[4]


def test_objects_of_three_classes_on_both_sides(tmp_path: Path) -> None:
    labels = [patches(seed, (90, 90), 3) for seed in (0, 1)]
    write_mask(tmp_path / "m.zarr", labels[0], THREE)
    write_mask(tmp_path / "t.zarr", labels[1], THREE)
    result = tilepipe.evaluate(tmp_path / "m.zarr", tmp_path / "t.zarr", instances=True)
    rule = ObjectRule("seeded", border="border")
    parts = [np.where(side == 2, BORDER, side).astype(np.uint8) for side in labels]
    said, true = (number_parts(side, rule, corners=False) for side in parts)
    objects = result.pooled.objects
    assert objects is not None
    assert (objects.true_positives, objects.false_positives) == brute_force(said, true)[:2]
    assert matrix(result) == expected(*labels, classes=3)


def test_objects_that_another_program_numbered(tmp_path: Path) -> None:
    said, true = discs(1).astype(np.uint16), discs(2).astype(np.uint16)
    mask, truth = write_png(tmp_path / "m.png", said), write_png(tmp_path / "t.png", true)
    objects = tilepipe.evaluate(mask, truth, instances=True).pooled.objects
    assert objects is not None
    assert (objects.true_positives, objects.false_positives) == brute_force(said, true)[:2]


@pytest.mark.parametrize("options", [{}, {"fill_holes": True, "min_size": 60}])
def test_split_objects_are_those_of_the_rule(tmp_path: Path, options: dict[str, Any]) -> None:
    said, true = (discs(2, side=300, count=90) > 0).astype(np.uint8), discs(1, side=300, count=60)
    said[np.random.default_rng(0).random(said.shape) < 0.005] = 0
    write_mask(tmp_path / "m.zarr", said)
    truth = write_png(tmp_path / "t.png", true.astype(np.uint16))
    result = tilepipe.evaluate(tmp_path / "m.zarr", truth, instances=True, split=True, **options)
    rule = ObjectRule(
        "split",
        fill_holes=options.get("fill_holes", False),
        min_area=options.get("min_size", 0),
    )
    assert result.pooled.objects == ObjectCounts.of(number_parts(said, rule), true)


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.zarr", patches(0, (90, 90), 3), THREE)
    numbers = write_png(tmp_path / "n.png", discs(1, side=90).astype(np.uint16))
    truth = write_png(tmp_path / "t.png", patches(1, (90, 90)))
    for mask, complaint in ((tmp_path / "m.zarr", "--border-class none"), (numbers, "numbers its")):
        with pytest.raises(InputError, match=complaint):
            tilepipe.evaluate(mask, truth, instances=True, split=True)


def test_planes_are_classes_of_their_own(tmp_path: Path) -> None:
    said = np.stack([patches(seed) for seed in (0, 1)])
    said[1, :60] = 255
    true = np.stack([patches(seed) for seed in (2, 3)])
    write_mask(tmp_path / "m.zarr", said, TWO, "planes")
    write_mask(tmp_path / "t.zarr", true, TWO, "planes")
    tifffile.imwrite(
        tmp_path / "t.tif", true * 255, photometric="minisblack", metadata={"axes": "CYX"}
    )
    for truth in ("t.zarr", "t.tif"):
        result = tilepipe.evaluate(tmp_path / "m.zarr", tmp_path / truth)
        for plane, name in enumerate(("background", "nucleus")):
            (_, wrong), (missed, right) = expected(said[plane], true[plane])
            dice = 2 * right / (2 * right + wrong + missed)
            assert result.to_dict()["pooled"]["classes"][name]["dice"] == pytest.approx(dice)
    with pytest.raises(InputError, match="plane for each class"):
        tilepipe.evaluate(tmp_path / "m.zarr", tmp_path / "t.zarr", instances=True)


def test_values_have_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    said, true = rng.normal(size=(2, 1, 300, 200)).astype(np.float32)
    said[:, :20], true[:, :, :10] = np.nan, np.nan
    height = (MaskClass("height", "#ffffff"),)
    write_mask(tmp_path / "m.zarr", said, height, "values")
    tifffile.imwrite(tmp_path / "t.tif", true[0])
    plot = tmp_path / "d.png"
    result = tilepipe.evaluate(tmp_path / "m.zarr", tmp_path / "t.tif", plot=plot)
    difference = (said.astype(float) - true)[0, 20:, 10:]
    scores = result.to_dict()["pooled"]["values"]["height"]
    assert scores["mae"] == pytest.approx(np.abs(difference).mean())
    assert scores["rmse"] == pytest.approx(np.sqrt((difference**2).mean()))
    assert scores["bias"] == pytest.approx(difference.mean())
    assert plot.exists()
    truth = write_png(tmp_path / "t.png", patches(0, (300, 200)))
    with pytest.raises(InputError, match=r"holds values, and .* labels"):
        tilepipe.evaluate(tmp_path / "m.zarr", truth)


PLACE: Transform = (2.0, 0.0, 500_000.0, 0.0, -2.0, 5_000_000.0)


def geo_mask(path: Path, labels: NDArray[np.uint8]) -> Path:
    wkt = rasterio.CRS.from_string(UTM).to_wkt()
    size = PixelSize(2.0, 2.0, "meter")
    write_mask(path, labels, pixel_size=size, crs=wkt, transform=PLACE)
    return path


def test_a_truth_on_the_same_grid(tmp_path: Path, said: NDArray[np.uint8]) -> None:
    mask, true = geo_mask(tmp_path / "m.zarr", said), patches(1)
    true[-30:] = 9
    truth = write_geotiff(tmp_path / "t.tif", true, PLACE, nodata=9)
    assert matrix(tilepipe.evaluate(mask, truth)) == expected(said, true)
    # A background that is declared "no data" is a class all the same.
    truth = write_geotiff(tmp_path / "u.tif", np.minimum(true, 1), PLACE, nodata=0)
    assert matrix(tilepipe.evaluate(mask, truth)) == expected(said, np.minimum(true, 1))


@pytest.mark.parametrize(
    ("shape", "transform", "crs", "difference"),
    [
        ((600, 700), PLACE, "EPSG:32634", "is in EPSG:32634, and .* in EPSG:32633"),
        ((500, 700), PLACE, UTM, "is 700 x 500 pixels, and .* 700 x 600"),
        ((600, 700), (2.0, 0.0, 500_001.0, 0.0, -2.0, 5e6), UTM, "is shifted by up to 0.5 pixels"),
        ((600, 700), (2.1, 0.0, 500_000.0, 0.0, -2.0, 5e6), UTM, "is shifted by up to 35 pixels"),
    ],
)
def test_other_grids_are_refused_and_warped_on_request(
    tmp_path: Path, shape: tuple[int, int], transform: Transform, crs: str, difference: str
) -> None:
    mask = geo_mask(tmp_path / "m.zarr", patches(0))
    truth = write_geotiff(tmp_path / "t.tif", patches(1, shape), transform, crs)
    with pytest.raises(InputError, match=f"{difference}.*--warp"):
        tilepipe.evaluate(mask, truth)
    if crs == UTM:
        assert tilepipe.evaluate(mask, truth, warp=True).pooled.confusions[0].pixels > 290_000


def test_a_warped_truth_is_the_nearest_label_and_none_outside(tmp_path: Path) -> None:
    said, true = patches(0), patches(1)
    mask = geo_mask(tmp_path / "m.zarr", said)
    # Half the pixel size, 20 pixels of the mask further right and 10 further down.
    finer = true[10:, 20:].repeat(2, 0).repeat(2, 1)
    place = (1.0, 0.0, PLACE[2] + 40, 0.0, -1.0, PLACE[5] - 20)
    truth = write_geotiff(tmp_path / "t.tif", finer.astype(np.uint16), place, nodata=0)
    known = true.copy()
    known[:10] = known[:, :20] = 255
    result = tilepipe.evaluate(mask, truth, warp=True)
    assert matrix(result) == expected(said, known)
    assert result.pooled.confusions[0].ignored == int((known == 255).sum())


def test_only_what_is_georeferenced_is_warped(tmp_path: Path) -> None:
    mask = geo_mask(tmp_path / "m.zarr", patches(0))
    with pytest.raises(InputError, match=r"t.png is not georeferenced"):
        tilepipe.evaluate(mask, write_png(tmp_path / "t.png", patches(1)), warp=True)


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.zarr", patches(0), pixel_size=PixelSize(0.5, 0.5, "micrometer"))
    truth = write_png(tmp_path / "t.png", patches(1, (1200, 1400)))
    with pytest.raises(InputError, match=r"1400 x 1200 pixels, and .* 700 x 600"):
        tilepipe.evaluate(tmp_path / "m.zarr", truth)
    size = PixelSize(0.25, 0.25, "micrometer")
    write_mask(tmp_path / "t.zarr", patches(1), pixel_size=size)
    with pytest.raises(InputError, match=r"pixels of 0.25 µm, and .* of 0.5 µm"):
        tilepipe.evaluate(tmp_path / "m.zarr", tmp_path / "t.zarr")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t.jpg", "JPEG"),
        ("rgb.png", "has 1 band, and .* has 3; compare"),
        ("text.png", "text.png"),
        ("cut.png", "broken|cut"),
    ],
)
def test_what_holds_no_labels_is_refused(tmp_path: Path, name: str, said: str) -> None:
    write_mask(tmp_path / "m.zarr", patches(0))
    path = tmp_path / name
    if name == "text.png":
        path.write_text("no picture")
    elif name == "cut.png":
        write_png(path, np.random.default_rng(0).integers(0, 2, (600, 700)).astype(np.uint8))
        path.write_bytes(path.read_bytes()[:5000])
    else:
        write_png(path, make_image(600, 700))
    with pytest.raises(InputError, match=said):
        tilepipe.evaluate(tmp_path / "m.zarr", path)


def test_masks_of_other_classes_are_not_evaluated_together(tmp_path: Path) -> None:
    masks, truths = tmp_path / "m", tmp_path / "t"
    masks.mkdir()
    truths.mkdir()
    for name, classes in (("a", TWO), ("b", THREE)):
        write_mask(masks / f"{name}.zarr", patches(0, (20, 20)), classes)
        write_png(truths / f"{name}.png", patches(1, (20, 20)))
    with pytest.raises(InputError, match="evaluate them separately"):
        tilepipe.evaluate(masks, truths)
    write_mask(tmp_path / "c.zarr", patches(0, (20, 20)), THREE)
    with pytest.raises(InputError, match="masks with the same classes"):
        tilepipe.evaluate(masks / "a.zarr", tmp_path / "c.zarr")


def test_values_in_other_numbers_of_planes_are_not_evaluated_together(tmp_path: Path) -> None:
    masks, truths = tmp_path / "m", tmp_path / "t"
    masks.mkdir()
    truths.mkdir()
    for name, planes in (("a", 1), ("b", 2)):
        values = np.zeros((planes, 20, 20), np.float32)
        for folder in (masks, truths):
            tifffile.imwrite(
                folder / f"{name}.tif", values, photometric="minisblack", metadata={"axes": "CYX"}
            )
    with pytest.raises(InputError, match=r"has values, 1 per pixel, .* has values, 2 per pixel"):
        tilepipe.evaluate(masks, truths)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"min_size": -1}, "min_size must be at least 0"),
        ({"memory": 0}, "memory must be at least 1"),
        ({"mask_objects": "cells"}, "mask_objects must be one of auto, classes"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        tilepipe.evaluate("m.zarr", "t.png", **options)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    masks, truths = tmp_path / "m", tmp_path / "t"
    masks.mkdir()
    truths.mkdir()
    for seed in range(5):
        write_mask(masks / f"{seed}_mask.ome.zarr", patches(seed, (60, 80)))
        write_png(truths / f"{seed}.png", patches(seed, (60, 80)) | patches(seed + 9, (60, 80)))
    # A class that does not occur has no score here, and takes no part in the mean.
    write_png(truths / "0.png", np.zeros((60, 80), np.uint8))
    return masks, truths


def test_the_mean_over_images_and_its_interval(folders: tuple[Path, Path]) -> None:
    result = tilepipe.evaluate(*folders, seed=3)
    recalls = [image.counts.of_classes("recall")[1] for image in result.images]
    summary = result.over_images()["classes"]["nucleus"]["recall"]
    assert np.isnan(recalls[0])
    assert summary["images"] == 4
    assert summary["mean"] == pytest.approx(np.nanmean(recalls))
    rng = np.random.default_rng(0)
    drawn = np.array(recalls)[rng.integers(0, 5, (20_000, 5))]
    means = np.nanmean(drawn[~np.isnan(drawn).all(1)], axis=1)
    expected_ends = np.percentile(means, (2.5, 97.5))
    np.testing.assert_allclose([summary["low"], summary["high"]], expected_ends, atol=0.01)
    assert tilepipe.evaluate(*folders, seed=3).to_dict() == result.to_dict()
    assert tilepipe.evaluate(*folders, seed=4).over_images() != result.over_images()


def test_results_are_plain_json_and_a_table(folders: tuple[Path, Path], tmp_path: Path) -> None:
    result = tilepipe.evaluate(*folders, instances=True)
    document = json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert document["images"] == len(document["per_image"]) == 5
    assert document["per_image"][0]["scores"]["classes"]["nucleus"]["recall"] is None
    result.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (5 + 1)
    last = rows[-1]
    assert (last["image"], last["class"]) == ("(all)", "nucleus")
    assert float(last["dice"]) == pytest.approx(document["pooled"]["classes"]["nucleus"]["dice"])
    assert float(last["object_aji"]) == pytest.approx(document["pooled"]["objects"]["aji"])


def test_the_package_can_be_called_by_its_name(folders: tuple[Path, Path]) -> None:
    import tilepipe.evaluation.metrics

    assert tilepipe.evaluate(*folders).kind == "labels"


@pytest.mark.slow
def test_the_picture_shows_what_is_right_and_wrong(tmp_path: Path) -> None:
    said, true = patches(0), patches(1)
    said[:60] = 255
    write_mask(tmp_path / "m.zarr", said)
    truth = write_png(tmp_path / "t.png", true)
    image = write_png(tmp_path / "i.png", np.full((600, 700, 3), 200, np.uint8))
    for beneath in (None, image):
        plot = tmp_path / "errors.png"
        tilepipe.evaluate(tmp_path / "m.zarr", truth, plot=plot, image=beneath)
        with Image.open(plot) as picture:
            pixels = np.asarray(picture).astype(int)[:600, :700]
        shown = {
            kind: np.unique(pixels[where], axis=0)
            for kind, where in {
                "found": (said == 1) & (true == 1),
                "wrong": (said == 1) & (true == 0),
                "missed": (said == 0) & (true == 1),
                "nothing": (said == 0) & (true == 0),
                "unknown": said == 255,
            }.items()
        }
        stripes = shown.pop("unknown")
        assert len(stripes) == 2
        assert (np.ptp(stripes, axis=1) <= 1).all()
        assert all(len(colours) == 1 for colours in shown.values())
        red, green, blue = shown["wrong"][0]
        assert red > green > blue
        red, green, blue = shown["missed"][0]
        assert blue > green > red


def test_the_image_of_a_picture_has_any_scale(tmp_path: Path) -> None:
    """The mask at the model's scale, the image at its own; in a folder it has the mask's name."""
    write_mask(tmp_path / "slide_mask.zarr", patches(0))
    truth = write_png(tmp_path / "t.png", patches(1))
    (tmp_path / "images").mkdir()
    drawn = []
    for shape in ((600, 700, 3), (1201, 1399, 3), (150, 175, 3)):
        image = write_png(tmp_path / "images" / "slide.png", np.full(shape, 200, np.uint8))
        for given in (image, image.parent):
            plot = tmp_path / "e.png"
            tilepipe.evaluate(tmp_path / "slide_mask.zarr", truth, plot=plot, image=given)
            drawn.append(plot.read_bytes())
    assert len(set(drawn)) == 1


@pytest.mark.parametrize("kind", ["mask band", "alpha"])
def test_what_a_file_leaves_out_is_no_answer(tmp_path: Path, kind: str) -> None:
    """Also in files of other programs, by GDAL's mask band or an alpha band."""
    labels = patches(0)
    path = tmp_path / "m.tif"
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)}
    shape = {"height": 600, "width": 700, "count": 1 + (kind == "alpha"), "dtype": "uint8"}
    there = np.full(labels.shape, 255, np.uint8)
    there[:60] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset,
    ):
        dataset.write(labels, 1)
        if kind == "alpha":
            dataset.write(there, 2)
            dataset.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        else:
            dataset.write_mask(there)
    truth = write_png(tmp_path / "t.png", labels)
    result = tilepipe.evaluate(path, truth)
    assert result.pooled.no_answer == 60 * 700
    assert result.pooled.scores()["accuracy"] == 1.0
    # As a truth, the same pixels do not count.
    swapped = tilepipe.evaluate(truth, path).pooled
    assert swapped.no_answer == 0
    assert swapped.to_dict()["ignored"] == 60 * 700


def test_a_picture_needs_an_image_of_the_same_proportions(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.zarr", patches(0))
    truth = write_png(tmp_path / "t.png", patches(1))
    image = write_png(tmp_path / "i.png", make_image(300, 700))
    options: dict[str, Any] = {"plot": tmp_path / "e.png", "image": image}
    with pytest.raises(InputError, match="give the image that the mask is of"):
        tilepipe.evaluate(tmp_path / "m.zarr", truth, **options)
    with pytest.raises(InputError, match="only used by --plot"):
        tilepipe.evaluate(tmp_path / "m.zarr", truth, image=image)
    with pytest.raises(InputError, match=r"is not a .png"):
        tilepipe.evaluate(tmp_path / "m.zarr", truth, plot=tmp_path / "e.pdf")


def test_many_pairs_have_a_folder_of_pictures(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tilepipe.evaluate(*folders, plot=tmp_path / "errors")
    assert sorted(p.name for p in (tmp_path / "errors").iterdir()) == [f"{n}.png" for n in range(5)]
    with pytest.raises(InputError, match="name a folder"):
        tilepipe.evaluate(*folders, plot=tmp_path / "e.png")


# VmHWM, not ru_maxrss: that begins with what the process was started from, which is pytest.
HUGE = """
import re, sys, tilepipe
from pathlib import Path
mask, truth, plot, instances = sys.argv[1:]
result = tilepipe.evaluate(
    mask, truth, instances=instances == "yes", memory="256MB", plot=plot
)
print(result.pooled.confusions[0].pixels, result.pooled.objects)
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) >> 10)
"""


def write_sparse(path: Path, side: int, step: int, *, every: int) -> None:
    """A map of class 0, almost none of it stored, with a patch of class 1 at every so many steps.

    A patch lies across the corner of four windows wherever these start at multiples of a step.
    """
    create_mask(path, MaskSpec(side, side, "labels", TWO)).close()
    metadata = path / "0" / "zarr.json"
    document = json.loads(metadata.read_text())
    document["fill_value"] = 0
    metadata.write_text(json.dumps(document))
    array = zarr.open_array(path / "0", mode="r+")
    for number, (y, x) in enumerate(np.ndindex(side // step, side // step)):
        if number % every == 0:
            array[y * step + step - 20 : y * step + step + 30, x * step : x * step + 40] = 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("side", "instances"), [(20_480, "no"), (8192, "yes")])
def test_memory_does_not_grow_with_the_mask(tmp_path: Path, side: int, instances: str) -> None:
    write_sparse(tmp_path / "t.zarr", side, 1024, every=1)
    write_sparse(tmp_path / "m.zarr", side, 1024, every=2)
    words = [str(tmp_path / name) for name in ("m.zarr", "t.zarr", "e.png")]
    done = subprocess.run(
        [sys.executable, "-c", HUGE, *words, instances], capture_output=True, text=True, check=True
    )
    counted, peak = done.stdout.splitlines()
    assert counted.startswith(str(side * side))
    if instances == "yes":
        assert "true_positives=32, false_positives=0, false_negatives=32" in counted
    # The libraries alone take some 200 MB; two masks held whole would be 840 more.
    assert int(peak) < 600
