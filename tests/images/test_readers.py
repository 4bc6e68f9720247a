"""The contract of readers; readers of other packages; how often a file is opened."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image as PillowImage

import tilepipe
from tests.images import toy_reader
from tests.images.making import geotiff
from tests.making import digest, make_image, write_tiff
from tilepipe.engine.events import RunCallbacks
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import convert, gdal, ngff, open_image, picture, raster, registry, tiff
from tilepipe.images.probe import Probe
from tilepipe.images.reading import Reading
from tilepipe.images.source import Source
from tilepipe.testing import ReaderContract

PIXELS = make_image(200, 300)


class _Expected(ReaderContract):
    @pytest.fixture
    def expected(self) -> NDArray[Any]:
        return PIXELS


class TestTiff(_Expected):
    reader = tiff

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        return write_tiff(tmp_path / "image.tif", expected)


class TestTiffOfStripsAndLevels(_Expected):
    reader = tiff

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        path = tmp_path / "image.ome.tif"
        with tifffile.TiffWriter(path, ome=True) as file:
            file.write(expected, subifds=1, rowsperstrip=16, photometric="rgb")
            file.write(expected[::2, ::2], subfiletype=1, rowsperstrip=16, photometric="rgb")
        return path


class TestGeoTiff(_Expected):
    reader = raster
    takes_all = True

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        return geotiff(tmp_path / "image.tif", expected, compress="deflate")


class TestGeoTiffWithAlphaAndOverviews(_Expected):
    reader = raster
    takes_all = True

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        alpha = np.full((*expected.shape[:2], 1), 255, np.uint8)
        alpha[:50] = 0
        path = geotiff(
            tmp_path / "image.tif", np.concatenate([expected, alpha], axis=2),
            photometric="rgb", alpha="yes",
        )  # fmt: skip
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4])
        return path


class TestPng(_Expected):
    reader = picture

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        PillowImage.fromarray(expected).save(tmp_path / "image.png")
        return tmp_path / "image.png"


class TestJpeg(ReaderContract):
    reader = picture

    @pytest.fixture
    def expected(self, tmp_path: Path) -> NDArray[Any]:
        PillowImage.fromarray(PIXELS).save(tmp_path / "image.jpg")
        return np.asarray(PillowImage.open(tmp_path / "image.jpg"))

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        return tmp_path / "image.jpg"


class TestOmeZarr(_Expected):
    reader = ngff

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        return convert_to_zarr(write_tiff(tmp_path / "image.tif", expected))


def convert_to_zarr(path: Path) -> Path:
    target = path.with_suffix(".ome.zarr")
    convert.convert(path, target, chunk=64)
    return target


class TestToy(_Expected):
    """A reader that another package has installed."""

    reader = toy_reader

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any], install: Install) -> Path:
        install("toy", toy_reader.__name__)
        with (tmp_path / "image.toy").open("wb") as file:
            np.save(file, expected)
        return tmp_path / "image.toy"


Install = Callable[[str, str], None]
"""Installs a package with an entry point of a name and a module."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    def installed(name: str, module: str) -> None:
        metadata = tmp_path / "site" / "another-1.0.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
        with (metadata / "entry_points.txt").open("a") as file:
            file.write(f"[{registry.GROUP}]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        registry.installed.cache_clear()

    yield installed
    registry.installed.cache_clear()


def test_a_reader_of_another_package_is_tried_on_what_is_not_recognised(
    tmp_path: Path, install: Install
) -> None:
    path = tmp_path / "image.npy"
    np.save(path, PIXELS)
    with pytest.raises(InputError, match="not an image that tilepipe can read"):
        open_image(path)
    install("any", toy_reader.__name__)
    with open_image(path) as image:
        assert image.kind == "toy"


def test_a_reader_named_like_a_suffix_is_tried_before_those_of_tilepipe(
    tmp_path: Path, install: Install
) -> None:
    plain, special = (write_tiff(tmp_path / f"image.{name}", PIXELS) for name in ("tif", "special"))
    install("special", f"{__name__}:TakesAll")
    with open_image(plain) as image:
        assert image.kind == "TIFF"
    with pytest.raises(InputError, match="taken"):
        open_image(special)


class TakesAll:
    """A reader that recognises everything, and opens nothing."""

    @staticmethod
    def recognises(probe: Probe) -> bool:
        return True

    @staticmethod
    def open_source(probe: Probe) -> Source:
        raise InputError("taken")


def test_a_reader_that_cannot_be_loaded_is_named(tmp_path: Path, install: Install) -> None:
    install("toy", "nowhere.to.be.found")
    (tmp_path / "image.toy").write_bytes(b"something")
    with pytest.raises(InputError, match=r"plug-in toy .*upgrade or uninstall another"):
        open_image(tmp_path / "image.toy")
    for path in (
        write_tiff(tmp_path / "plain.tif", PIXELS),
        geotiff(tmp_path / "placed.tif", PIXELS),
        convert_to_zarr(tmp_path / "plain.tif"),
    ):
        open_image(path).close()  # it is not needed for others


@pytest.mark.slow
def test_an_image_of_another_packages_reader_is_run_and_resumed(
    tmp_path: Path, install: Install, model: Path
) -> None:
    install("toy", toy_reader.__name__)
    path = tmp_path / "image.toy"
    with path.open("wb") as file:
        np.save(file, make_image(1100, 700))

    class Stops(RunCallbacks):
        def block(self, report: Any) -> None:
            raise KeyboardInterrupt

    options = {"model": model, "window": 572, "threads": 1, "pixel_size": 0.25}
    for folder in ("whole", "resumed"):
        (tmp_path / folder).mkdir()
    whole, resumed = (tmp_path / name / "mask.ome.zarr" for name in ("whole", "resumed"))
    tilepipe.run(path, outputs=[whole], **options)
    with pytest.raises(KeyboardInterrupt):
        tilepipe.run(path, outputs=[resumed], watch=Stops(), **options)
    summary = tilepipe.run(path, outputs=[resumed], **options)
    assert summary.resumed
    assert digest(resumed) == digest(whole)


class Opens:
    """How often each file is opened, by Python or by GDAL."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.counts = False

    def seen(self, path: object) -> None:
        if self.counts and isinstance(path, str | bytes | os.PathLike):
            self.counted[os.fsdecode(path)] += 1


_opens = Opens()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _opens.seen(arguments[0])


sys.addaudithook(_hook)  # which cannot be taken away again


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    open_dataset = gdal.DatasetReader

    def counted(path: str, *arguments: Any, **options: Any) -> Any:
        _opens.seen(path)
        return open_dataset(path, *arguments, **options)

    monkeypatch.setattr(gdal, "DatasetReader", counted)
    _opens.counted.clear()
    _opens.counts = True
    yield _opens.counted
    _opens.counts = False


def test_opening_an_image_opens_its_file_few_times(tmp_path: Path, opens: Counter[str]) -> None:
    """Once to recognise it and read its structure, twice for GDAL, once to read its pixels."""
    plain = write_tiff(tmp_path / "plain.tif", PIXELS)
    placed = geotiff(tmp_path / "placed.tif", PIXELS)
    opens.clear()
    for path in (plain, placed):
        with open_image(path) as image:
            image.read(Window(0, 0, 10, 10))
            image.read_as(Reading(bands=(2,))).read(Window(0, 0, 10, 10))
    assert (opens[str(plain)], opens[str(placed)]) == (4, 3)


@pytest.mark.slow
def test_the_workers_of_a_process_read_the_file_that_the_run_has_open(
    image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_source = registry.open_source

    def counted(path: str, series: int | str | None, *, streaming: bool) -> Source:
        opened.append(str(path))
        return open_source(path, series, streaming=streaming)

    monkeypatch.setattr("tilepipe.images.opening.open_source", counted)

    class Watch(RunCallbacks):
        def block(self, report: Any) -> None:
            assert opened == [str(image)]

    tilepipe.run(image, model=model, outputs=[tmp_path / "m.ome.zarr"], window=572, watch=Watch())
