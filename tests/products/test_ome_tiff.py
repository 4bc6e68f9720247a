from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from tests.products.making import CLASSES, KINDS, SHAPES, make_mask, make_spec, whole
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import PixelSize
from tilepipe.products.base import MaskSpec
from tilepipe.products.content import Form
from tilepipe.products.files import READ_BYTES, needs_bigtiff
from tilepipe.products.geotiff import write_cog
from tilepipe.products.ome_tiff import write_ome_tiff
from tilepipe.products.ome_xml import ome_xml, pixel_size_um, read_spec
from tilepipe.products.store import ZarrMask

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tifffile_reads_every_level(tmp_path: Path, kind: Any, shape: tuple[int, int]) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(shape, kind))
    write_ome_tiff(mask, tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as file:
        series = file.series[0]
        assert series.kind == "ome"
        assert series.axes == ("YX" if kind == "labels" else "CYX")
        assert len(series.levels) == len(mask.levels)
        for level, (read, size) in enumerate(zip(series.levels, mask.levels, strict=True)):
            np.testing.assert_array_equal(read.asarray(), mask.read(whole(size), level))
        page = file.pages[0]
        assert (page.tilelength, page.tilewidth) == (512, 512)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert "DateTime" not in page.tags


def test_the_pixel_size_is_in_the_metadata_and_in_the_tags(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    write_ome_tiff(mask, tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as file:
        pixels = ElementTree.fromstring(file.ome_metadata).find(f".//{OME}Pixels")
        assert pixels is not None
        assert pixels.get("PhysicalSizeY") == "0.25"
        assert pixels.get("PhysicalSizeX") == "0.5"
        assert file.pages[0].get_resolution("MICROMETER") == (1 / 0.5, 1 / 0.25)


def test_the_metadata_is_utf_8_without_character_references(tmp_path: Path) -> None:
    """Bio-Formats strips ``&#``: with ``&#181;m`` in it, it sees a plain TIFF of one level."""
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9), "planes"))
    write_ome_tiff(mask, tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as file:
        tag = file.pages[0].tags["ImageDescription"]
        file.filehandle.seek(tag.valueoffset)
        stored = file.filehandle.read(tag.count)
    assert b"&#" not in stored
    assert 'PhysicalSizeXUnit="µm"'.encode() in stored
    assert 'Name="noyau é"'.encode() in stored


def test_openslide_reads_the_labels(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    write_ome_tiff(mask, tmp_path / "m.ome.tif")
    with openslide.OpenSlide(tmp_path / "m.ome.tif") as slide:
        assert slide.dimensions == (700, 1025)
        read = np.asarray(slide.read_region((0, 0), 0, (700, 1025)))
        np.testing.assert_array_equal(read[:, :, 0], mask.read(whole(mask.shape)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (PixelSize(250, 251, "nanometer"), (0.25, 0.251)),
        (PixelSize(0.1, 0.3, "micrometer"), (0.1, 0.3)),
        (PixelSize(2, 3, "meter"), (2e6, 3e6)),
        (PixelSize(1e-5, 1e-5, "degree"), None),
        (PixelSize(4, 4, "pixel"), None),
        (None, None),
    ],
)
def test_a_size_in_micrometres_is_given_when_it_is_a_length(
    size: PixelSize | None, expected: tuple[float, float] | None
) -> None:
    spec = make_spec(pixel_size=size)
    assert pixel_size_um(spec) == expected
    assert ("PhysicalSizeX" in ome_xml(Form.of_mask(spec))) == (expected is not None)


def test_names_and_colours_of_classes_are_there() -> None:
    spec = make_spec(kind="planes")
    root = ElementTree.fromstring(ome_xml(Form.of_mask(spec)))
    channels = root.findall(f".//{OME}Channel")
    assert [channel.get("Name") for channel in channels] == [named.name for named in CLASSES]
    rgba = int(channels[1].get("Color", "0")).to_bytes(4, "big", signed=True)
    assert tuple(rgba) == (*CLASSES[1].rgb, 255)
    entries = root.findall(f".//{OME}MapAnnotation")[0].findall(f".//{OME}M")
    assert {e.get("K"): e.text for e in entries} == {str(i): c.name for i, c in enumerate(CLASSES)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_survives_the_xml(kind: Any) -> None:
    spec = make_spec(kind=kind, crs='GEOGCS["WGS 84"]', transform=(0.1, 0, 1 / 3, 0, -0.1, 2.5))
    assert read_spec(ome_xml(Form.of_mask(spec))) == spec


@pytest.mark.parametrize("write", [write_ome_tiff, write_cog])
def test_no_more_than_a_few_chunks_are_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[ZarrMask, Path], None]
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((600, 9000)))
    areas = []
    read_plane = ZarrMask.read_plane

    def watched(self: ZarrMask, plane: int, window: Window, level: int = 0) -> Any:
        areas.append(window.area)
        return read_plane(self, plane, window, level)

    monkeypatch.setattr(ZarrMask, "read_plane", watched)
    write(mask, tmp_path / "m.ome.tif")
    assert sum(areas) == sum(height * width for height, width in mask.levels)
    assert max(areas) <= max(READ_BYTES, CHUNK * CHUNK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_equal_masks_give_equal_bytes(tmp_path: Path, kind: Any) -> None:
    written = []
    for name in ("a", "b"):
        mask = make_mask(tmp_path / f"{name}.ome.zarr", make_spec(kind=kind))
        write_ome_tiff(mask, tmp_path / f"{name}.ome.tif")
        written.append((tmp_path / f"{name}.ome.tif").read_bytes())
    assert written[0] == written[1]


def test_a_failed_export_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    target = tmp_path / "m.ome.tif"
    target.write_bytes(b"older")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(mask), "read_plane", full)
    with pytest.raises(OSError, match="No space left"):
        write_ome_tiff(mask, target)
    assert target.read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.ome.tif", "m.ome.zarr"]


def test_bigtiff_is_chosen_by_size_alone() -> None:
    assert not needs_bigtiff(Form.of_mask(make_spec((30_000, 30_000))))
    assert needs_bigtiff(Form.of_mask(make_spec((60_000, 60_000))))
    large = MaskSpec(30_000, 30_000, "values", CLASSES)
    assert needs_bigtiff(Form.of_mask(large))
