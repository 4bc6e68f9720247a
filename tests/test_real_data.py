"""The whole way on real slides and scenes; skipped, saying so, where they are absent."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from ome_zarr_models.v05 import Image as NgffImage
from ome_zarr_models.v05.image_label import ImageLabel

import tilepipe
from tests.making import make_model, save_tiny
from tilepipe.grid import Window
from tilepipe.models.file import save_model
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.slow

LANDSAT = "geo/LC08_L1TP_224078_20200518_20200518_01_RT.TIF"


@pytest.fixture(scope="module")
def slide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny(path, UNetArguments(width=2), pixel_size_um=0.5)
    return path


@pytest.fixture(scope="module")
def slide_run(
    data: Path, slide_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tilepipe.engine.report.record.Summary]:  # type: ignore[name-defined]
    folder = tmp_path_factory.mktemp("slide")
    summary = tilepipe.run(
        data / "wsi" / "CMU-1-Small-Region.svs",
        model=slide_model,
        outputs=[folder / "cmu.ome.zarr", folder / "cmu.ome.tif", folder / "cmu.png"],
        window=572,
        verify=6,
    )
    return folder, summary


def test_a_slide_is_segmented_exactly(slide_run: tuple[Path, object]) -> None:
    _, summary = slide_run
    assert summary.verification.exact  # type: ignore[attr-defined]
    assert summary.exit_code == 0  # type: ignore[attr-defined]
    record = json.loads(summary.record.read_text())  # type: ignore[attr-defined]
    areas = [c["area"] for c in record["classes"]]
    # 2220 x 2967 pixels of 0.499 um.
    assert sum(areas) == pytest.approx(2220 * 2967 * 0.499**2 * 1e-6, rel=1e-6)


def test_the_zarr_is_valid_ngff_and_lists_without_a_warning(
    slide_run: tuple[Path, object],
) -> None:
    folder, _ = slide_run
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(folder / "cmu.ome.zarr", mode="r")
        image = NgffImage.from_zarr(group)
        label = ImageLabel.from_zarr(group)
        assert {name for name, _ in group.arrays()} >= {"0", "1", "2", "3"}
    multiscale = image.attributes.ome.multiscales[0]
    scale = multiscale.datasets[0].coordinateTransformations[0].scale
    assert scale == pytest.approx([0.499, 0.499])
    assert [axis.unit for axis in multiscale.axes] == ["micrometer", "micrometer"]
    properties = label.attributes.ome.image_label.properties
    assert [p.model_dump()["name"] for p in properties] == ["background", "nucleus", "no answer"]


def test_the_ome_tiff_opens_with_all_levels_and_the_pixel_size(
    slide_run: tuple[Path, object],
) -> None:
    folder, _ = slide_run
    mask = tilepipe.open_mask(folder / "cmu.ome.zarr")
    with tifffile.TiffFile(folder / "cmu.ome.tif") as tiff:
        assert tiff.is_ome
        series = tiff.series[0]
        assert [level.shape for level in series.levels] == list(mask.levels)
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert float(pixels["PhysicalSizeX"]) == pytest.approx(0.499)
        assert pixels["PhysicalSizeXUnit"] in ("µm", "um")
        for number, (height, width) in enumerate(mask.levels):
            expected = mask.read(Window(0, 0, height, width), number)
            assert (series.levels[number].asarray() == expected).all()


@pytest.mark.parametrize(
    ("name", "window"), [("geo/RGB.byte.tif", "auto"), (LANDSAT, 572), ("geo/OSBS_029.tif", "auto")]
)
def test_the_mask_of_a_scene_lies_where_the_scene_lies(
    name: str, window: int | str, data: Path, tmp_path: Path
) -> None:
    with rasterio.open(data / name) as scene:
        dtype, valid = scene.dtypes[0], scene.dataset_mask() > 0
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2, outputs=3), dtype=dtype, pixel_size_um=None)
    output = tmp_path / "mask.tif"
    tilepipe.run(data / name, model=model, outputs=output, window=window)
    with rasterio.open(data / name) as scene, rasterio.open(output) as mask:
        assert mask.crs == scene.crs
        assert tuple(mask.transform) == tuple(scene.transform), "to the last bit"
        assert mask.shape == scene.shape
        for corner in [(0, 0), (scene.height, scene.width), (0, scene.width), (scene.height, 0)]:
            assert mask.xy(*corner, offset="ul") == scene.xy(*corner, offset="ul")
        assert mask.nodata == 255
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        labels = mask.read(1)
        assert ((labels != 255) == valid).all(), "no answer just where there is no data"
        assert mask.colormap(1)[1][:3] == (0xE6, 0x19, 0x4B)


def test_a_coarser_level_of_a_scene_keeps_its_place(data: Path, tmp_path: Path) -> None:
    source = data / "geo" / "L7_ETMs.tif"
    model = tmp_path / "m.safetensors"
    save_model(model, make_model(UNetArguments(width=2, bands=6), pixel_size_um=None))
    tilepipe.run(source, model=model, outputs=tmp_path / "mask.tif", level=1)
    with rasterio.open(source) as scene, rasterio.open(tmp_path / "mask.tif") as mask:
        level = tilepipe.open_image(source).levels[1]
        assert mask.shape == (level.height, level.width)
        assert mask.transform.c == scene.transform.c
        assert mask.transform.f == scene.transform.f
        assert mask.bounds.right == pytest.approx(scene.bounds.right, rel=1e-12)
        assert mask.bounds.bottom == pytest.approx(scene.bounds.bottom, rel=1e-12)


def test_a_fluorescence_slide_with_a_pyramid_is_resampled_from_the_level_above(
    data: Path, tmp_path: Path
) -> None:
    slide = data / "wsi" / "test3-DAPI-2-387.ndpi"
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2), pixel_size_um=1.0)
    summary = tilepipe.run(slide, model=model, outputs=tmp_path / "mask.ome.zarr")
    # 0.228 um at level 0: level 2, 0.913 um, is just finer than 1 um.
    assert summary.plan.image.level == 2
    # The model knows RGB of 127 in the mean, and this is black with blue nuclei.
    (warning,) = summary.warnings
    assert "unlike" in warning
    mask = tilepipe.open_mask(tmp_path / "mask.ome.zarr")
    assert mask.pixel_size == tilepipe.images.PixelSize(1.0, 1.0, "micrometer")
    micrometres = 10000 / 43826
    assert mask.shape == tuple(math.ceil(n * micrometres) for n in (4864, 3968))
    assert tilepipe.verify(tmp_path / "mask.ome.zarr", windows=3).exact


def dice(model: str, image: Path, truth: Path, output: Path, **options: float) -> float:
    from PIL import Image

    tilepipe.run(image, model=model, outputs=output, **options)
    expected = np.asarray(Image.open(truth)) > 0
    found = tilepipe.open_mask(output).read(Window(0, 0, *expected.shape)) == 1
    return float(2 * (found & expected).sum() / (found.sum() + expected.sum()))


def test_nuclei_he_finds_nuclei(data: Path, tmp_path: Path) -> None:
    # Trained on these in the end; its card has the figures of before.
    tnbc = data / "nuclei" / "tnbc"
    scores = [
        dice("nuclei-he", tnbc / "images" / f"{stem}.png", tnbc / "masks" / f"{stem}.png",
             tmp_path / f"{stem}.ome.zarr", pixel_size=0.25)
        for stem in ("07_1", "08_1", "08_4")
    ]  # fmt: skip
    claimed = tilepipe.load_model("nuclei-he").about["metrics"]["dice"]
    assert np.mean(scores) > claimed - 0.02


def test_nuclei_fluo_finds_nuclei_it_has_not_seen(data: Path, tmp_path: Path) -> None:
    import csv

    from PIL import Image

    with (Path(__file__).parents[1] / "workflows/dsb2018_fields.csv").open(newline="") as file:
        held_back = [
            r["id"] for r in csv.DictReader(file) if (r["kind"], r["split"]) == ("fluo", "test")
        ]
    scores = []
    for name in held_back[::7]:
        image = tmp_path / f"{name}.png"
        Image.open(data / "nuclei/dsb2018/images" / image.name).getchannel(0).save(image)
        truth = data / "nuclei/dsb2018/labels" / image.name
        scores.append(dice("nuclei-fluo", image, truth, tmp_path / f"{name}.ome.zarr"))
    assert np.mean(scores) > 0.9
