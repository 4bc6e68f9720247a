"""The sample of `make run`, and the picture that it ends with."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
from PIL import Image

import tilepipe
from tilepipe.grid import Window
from tilepipe.images import PixelSize
from tilepipe.objects.table import open_table
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.store import create_mask

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def script(name: str) -> ModuleType:
    pytest.importorskip("skimage", reason="workflows draw with scikit-image")
    spec = importlib.util.spec_from_file_location(name, WORKFLOWS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, for which packages lie in ``tmp_path`` alone."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return script("make_sample")


def write_wheel(folder: Path, module: ModuleType) -> str:
    """A wheel with a picture where the real one has it; the requirement that it meets."""
    picture = folder / "histo.png"
    Image.fromarray(np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3)).save(picture)
    wheel = folder / "stardist-0.9.2-cp311-cp311-manylinux_2_28_x86_64.whl"
    about = "stardist-0.9.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as members:
        members.write(picture, module.MEMBER)
        members.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: stardist\n"
                         "Version: 0.9.2\n")  # fmt: skip
        members.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\n")
        members.writestr(f"{about}/RECORD", "")
    return f"stardist==0.9.2 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def write(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["make_sample.py", *map(str, words)])
    module.main()


def test_the_sample_is_the_picture_in_the_wheel(
    make_sample: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(make_sample, "WHEEL", write_wheel(tmp_path, make_sample))
    write(make_sample, monkeypatch, tmp_path / "out" / "sample.tif")
    with tilepipe.open_image(tmp_path / "out" / "sample.tif") as image:
        assert image.shape == (30, 50, 3)
        assert image.pixel_size.metres() == pytest.approx((0.5e-6, 0.5e-6))
    assert (
        tifffile.imread(tmp_path / "out" / "sample.tif").ravel()
        == np.arange(30 * 50 * 3, dtype=np.uint8)
    ).all()


def test_another_wheel_is_not_taken(
    make_sample: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_wheel(tmp_path, make_sample)
    write(make_sample, monkeypatch, tmp_path / "sample.tif")
    assert "immunohistochemistry" in capsys.readouterr().out
    assert tifffile.imread(tmp_path / "sample.tif").shape == (512, 512, 3)


def test_without_a_network_there_is_a_sample_that_says_what_it_is_not(
    make_sample: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(make_sample, monkeypatch, tmp_path / "sample.tif")
    said = capsys.readouterr().out
    assert "could not be downloaded" in said
    assert "not the" in said
    with tilepipe.open_image(tmp_path / "sample.tif") as image:
        assert image.shape == (512, 512, 3)


def test_a_slide_for_benchmarks_has_the_side_asked_for(
    make_sample: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(make_sample, monkeypatch, tmp_path / "slide.tif", "--side", 1200)
    with tilepipe.open_image(tmp_path / "slide.tif") as image:
        assert [level.width for level in image.levels] == [1200, 300]


def spots(folder: Path) -> Path:
    """A mask of 200 x 300 with three nuclei, one of them with a hole, and a speck."""
    labels = np.zeros((200, 300), np.uint8)
    labels[20:60, 30:70] = 1
    labels[30:40, 40:50] = 0
    labels[100:140, 200:240] = labels[150:190, 10:50] = 1
    labels[80:82, 150:152] = 1
    classes = (MaskClass("background", "#000000"), MaskClass("nucleus", "#00a0ff"))
    size = PixelSize(0.25, 0.25, "micrometer")
    path = folder / "mask.ome.zarr"
    mask = create_mask(path, MaskSpec(200, 300, "labels", classes, size, background=0))
    mask.write(Window(0, 0, 200, 300), labels)
    objects = folder / "objects.ome.zarr"
    tilepipe.find_objects(path, outputs=[str(objects)], min_area="60", fill_holes=True)
    objects.rename(path / "objects")
    return path


def test_outlines_enclose_what_is_counted(tmp_path: Path) -> None:
    lines = script("first_picture").outlines(open_table(spots(tmp_path) / "objects/table"), 0.5)
    assert len(lines) == 3
    for line in lines:
        assert (line[0] == line[-1]).all()
        assert np.ptp(line, axis=0).tolist() == [20, 20]


def test_the_picture_shows_the_nuclei_and_says_how_many(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "image.ome.tif",
        np.full((100, 150, 3), 200, np.uint8),
        photometric="rgb",
        metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    target = tmp_path / "nuclei.png"
    module = script("first_picture")
    said = module.picture_of(tmp_path / "image.ome.tif", spots(tmp_path), target)
    assert said == "3 nuclei in 0.00375 mm², 800 per mm²"
    with Image.open(target) as picture:
        ink = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (ink == (255, 242, 0)).all(1).any()
