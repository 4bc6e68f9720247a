"""A part, overview file or mask that is not what it should be never becomes pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import Resampling

from tests.images.oracle import chart
from tests.making import save_tiny
from tilepipe.cli import call
from tilepipe.engine.work.context import WorkerContext
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images import check_bounded, open_image
from tilepipe.models.unet import UNetArguments

SIDE = 256
LEFT, RIGHT, ALL = (
    Window(0, 0, SIDE, SIDE),
    Window(0, SIDE, SIDE, SIDE),
    Window(0, 0, SIDE, 2 * SIDE),
)
PIXELS = chart(SIDE, 2 * SIDE, bands=3)


def write(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> Path:
    height, width, bands = pixels.shape
    profile = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "LZW", **options}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype,
        crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), **profile,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def mosaic(
    path: Path, parts: list[str], *, stated: bool = True, kind: str = "SimpleSource"
) -> Path:
    """A VRT of parts side by side, with what gdalbuildvrt states of each, or without."""
    bands = ""
    for band in (1, 2, 3):
        sources = ""
        for number, name in enumerate(parts):
            said = f'<SourceProperties RasterXSize="{SIDE}" RasterYSize="{SIDE}" DataType="Byte"/>'
            sources += (
                f'<{kind}><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
                f"<SourceBand>{band}</SourceBand>{said if stated else ''}"
                f'<SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/>'
                f'<DstRect xOff="{number * SIDE}" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/></{kind}>'
            )
        bands += f'<VRTRasterBand dataType="Byte" band="{band}">{sources}</VRTRasterBand>'
    path.write_text(
        f'<VRTDataset rasterXSize="{len(parts) * SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>{bands}</VRTDataset>"
    )
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A mosaic of a.tif and b.tif."""
    write(tmp_path / "a.tif", PIXELS[:, :SIDE])
    write(tmp_path / "b.tif", PIXELS[:, SIDE:])
    return mosaic(tmp_path / "mosaic.vrt", ["a.tif", "b.tif"])


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def smaller(path: Path) -> None:
    write(path, chart(150, 200, bands=3))


def other_type(path: Path) -> None:
    write(path, chart(SIDE, SIDE, bands=3).astype(np.uint16) * 200)


def fewer_bands(path: Path) -> None:
    write(path, chart(SIDE, SIDE, bands=1))


Fault = Callable[[Path], None]
FAULTS: list[Fault] = [gone, empty, garbage, folder, smaller, other_type, fewer_bands]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["SimpleSource", "ComplexSource"])
def test_a_part_that_is_wrong_when_the_mosaic_is_opened_is_named(
    image: Path, fault: Fault, kind: str
) -> None:
    mosaic(image, ["a.tif", "b.tif"], kind=kind)
    fault(image.with_name("b.tif"))
    with pytest.raises(
        InputError, match=r"mosaic\.vrt is a mosaic, and its part b\.tif "
    ) as caught:
        open_image(image)
    assert "\n" not in str(caught.value)


def test_a_part_smaller_than_what_is_used_of_it_is_named(image: Path) -> None:
    mosaic(image, ["a.tif", "b.tif"], stated=False)
    smaller(image.with_name("b.tif"))
    with pytest.raises(InputError, match=r"b\.tif has 200 x 150 .* the mosaic uses 256 x 256"):
        open_image(image)


def test_the_number_of_wrong_parts_is_said(image: Path) -> None:
    mosaic(image, ["x.tif", "a.tif", "y.tif", "b.tif"])
    with pytest.raises(InputError, match=r"its part x\.tif is missing \(2 of its 4 parts have"):
        open_image(image)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_part_of_a_part_is_named(image: Path, fault: Fault) -> None:
    outer = mosaic(image.with_name("outer.vrt"), ["mosaic.vrt"], stated=False)
    fault(image.with_name("b.tif"))
    with pytest.raises(InputError, match=r"mosaic\.vrt is a mosaic, and its part b\.tif "):
        open_image(outer)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seen", [False, True])
def test_a_part_that_changes_after_opening_is_unreadable_each_time(
    image: Path, fault: Fault, seen: bool
) -> None:
    with closing(open_image(image)) as opened:
        opened.read(ALL if seen else Window(0, 0, 10, 10))
        fault(image.with_name("b.tif"))
        for window in (RIGHT, ALL, RIGHT, Window(0, SIDE - 8, 16, 16)):
            with pytest.raises(UnreadableError, match=r"b\.tif (was there|has changed)"):
                opened.read(window)
        np.testing.assert_array_equal(opened.read(Window(0, 0, SIDE, 200)), PIXELS[:, :200])


def test_what_gdal_could_not_open_once_is_unreadable_from_then_on(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for an error that passes: the part is the same file before and after.
    for module in ("file_sets", "survey"):
        monkeypatch.setattr(f"tilepipe.images.{module}.stamp_of", lambda _: (1,))
    part, away = image.with_name("b.tif"), image.with_name("away.tif")
    # GDAL remembers failures as long as any dataset of a mosaic is open.
    with closing(open_image(mosaic(image.with_name("other.vrt"), ["a.tif"]))) as other:
        other.read(LEFT)
        for _ in range(2):
            with closing(open_image(image)) as opened:
                part.rename(away)
                for window in (ALL, RIGHT, ALL):
                    with pytest.raises(UnreadableError, match=r"b\.tif"):
                        opened.read(window)
                np.testing.assert_array_equal(opened.read(LEFT), PIXELS[:, :SIDE])
                away.rename(part)
                with pytest.raises(UnreadableError, match=r"b\.tif"):
                    opened.read(ALL)


def test_a_part_put_back_is_read_by_whoever_opens_the_mosaic_again(image: Path) -> None:
    part = image.with_name("b.tif")
    content = part.read_bytes()
    part.unlink()
    with pytest.raises(InputError):
        open_image(image)
    part.write_bytes(content)
    with closing(open_image(image)) as opened:
        np.testing.assert_array_equal(opened.read(ALL), PIXELS)


def test_a_part_that_ends_early_is_unreadable_where_it_does(image: Path) -> None:
    part = image.with_name("b.tif")
    os.truncate(part, part.stat().st_size * 2 // 3)
    with closing(open_image(image)) as opened:
        for _ in range(2):
            with pytest.raises(UnreadableError, match=r"b\.tif"):
                opened.read(RIGHT)
        np.testing.assert_array_equal(opened.read(LEFT), PIXELS[:, :SIDE])


def test_the_fingerprint_covers_the_parts_of_parts(image: Path) -> None:
    outer = mosaic(image.with_name("outer.vrt"), ["mosaic.vrt"], stated=False)
    with closing(open_image(outer)) as opened:
        before = opened.fingerprint()
    write(image.with_name("a.tif"), PIXELS[::-1, SIDE:].copy())
    with closing(open_image(outer)) as opened:
        assert opened.fingerprint() != before


def test_a_mask_that_a_mosaic_uses_has_to_be_there(image: Path) -> None:
    text = image.read_text()
    band = text[text.index("<VRTRasterBand") : text.index("</VRTRasterBand>")]
    band = band.replace("<SourceBand>1<", "<SourceBand>mask,1<")
    image.write_text(
        text.replace("</VRTDataset>", f"<MaskBand>{band}</VRTRasterBand></MaskBand></VRTDataset>")
    )
    with pytest.raises(InputError, match=r"a\.tif has no mask where its mask is used"):
        open_image(image)


def with_companions(path: Path) -> Path:
    """A GeoTIFF with an external mask, and overviews of it and of the mask."""
    write(path, PIXELS[:, :SIDE])
    mask = np.ones((SIDE, SIDE), bool)
    mask[:100, :100] = False
    with rasterio.Env(TIFF_USE_OVR="YES", GDAL_TIFF_INTERNAL_MASK="NO"):
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2], Resampling.average)
    return path


def flipped(path: Path) -> None:
    """A mask or overviews of another image, of another shape."""
    write(path, chart(90, 200, bands=3 if path.suffix == ".ovr" else 1))


def wide(path: Path) -> None:
    write(path, chart(SIDE // 2, SIDE // 2, bands=3).astype(np.uint16))


COMPANION_FAULTS = [
    (".ovr", fault) for fault in (empty, garbage, folder, flipped, wide, fewer_bands)
] + [(".msk", fault) for fault in (empty, garbage, folder, flipped, wide)]


@pytest.mark.parametrize(("suffix", "fault"), COMPANION_FAULTS)
@pytest.mark.parametrize("part", [False, True])
def test_overviews_or_a_mask_that_are_wrong_are_named(
    tmp_path: Path, suffix: str, fault: Fault, part: bool
) -> None:
    path = with_companions(tmp_path / "a.tif")
    image = mosaic(tmp_path / "mosaic.vrt", ["a.tif"]) if part else path
    fault(tmp_path / f"a.tif{suffix}")
    with pytest.raises(
        InputError, match=rf"a\.tif{suffix} holds the (overviews|mask) of a\.tif but"
    ):
        open_image(image)


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
@pytest.mark.parametrize("fault", [gone, empty, garbage])
def test_a_mask_or_overviews_that_change_after_opening_are_unreadable(
    tmp_path: Path, suffix: str, fault: Fault
) -> None:
    path = with_companions(tmp_path / "a.tif")
    with closing(open_image(path)) as opened:
        fault(tmp_path / f"a.tif{suffix}")
        with pytest.raises(UnreadableError, match=rf"a\.tif{suffix}"):
            opened.read_valid(LEFT)


def test_a_level_that_lacks_the_mask_is_no_level(tmp_path: Path) -> None:
    path = with_companions(tmp_path / "a.tif")
    write(tmp_path / "a.tif.ovr", PIXELS[::2, :SIDE:2].copy())
    (tmp_path / "a.tif.msk.ovr").unlink(missing_ok=True)
    with closing(open_image(path)) as opened:
        assert len(opened.levels) == 1
        valid = opened.read_valid(LEFT)
    assert valid is not None
    assert not valid[:100, :100].any()
    assert valid.sum() == SIDE * SIDE - 100 * 100


@pytest.mark.slow
@pytest.mark.parametrize("fault", [gone, empty, garbage])
def test_no_command_takes_a_hole_for_data(image: Path, tmp_path: Path, fault: Fault) -> None:
    model, mask = tmp_path / "m.safetensors", tmp_path / "mask.tif"
    save_tiny(model, UNetArguments(bands=3, outputs=2, width=2, depth=1), pixel_size_um=None)
    assert call(["run", str(image), "-m", str(model), "-o", str(mask), "-q"]) == 0
    fault(image.with_name("b.tif"))
    assert call(["info", str(image)]) == 2
    assert call(["convert", str(image), str(tmp_path / "c.ome.zarr")]) == 2
    assert call(["run", str(image), "-m", str(model), "-o", str(tmp_path / "n.tif"), "-q"]) == 2
    assert call(["verify", str(mask)]) == 2


def test_a_part_that_goes_during_a_run_has_no_answer(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, whole, mask = (tmp_path / name for name in ("m.safetensors", "whole.tif", "mask.tif"))
    save_tiny(model, UNetArguments(bands=3, outputs=2, width=2, depth=1), pixel_size_um=None)
    assert call(["run", str(image), "-m", str(model), "-o", str(whole), "-q"]) == 0
    open_all = WorkerContext.__init__

    def open_and_remove(*args: Any, **options: Any) -> None:
        open_all(*args, **options)
        image.with_name("b.tif").unlink()

    monkeypatch.setattr(WorkerContext, "__init__", open_and_remove)
    assert call(["run", str(image), "-m", str(model), "-o", str(mask), "-q"]) == 3
    assert "b.tif was there when the image was opened" in capsys.readouterr().err
    with rasterio.open(whole) as file, rasterio.open(mask) as other:
        expected, labels = file.read(1), other.read(1)
    assert (labels[:, SIDE:] == 255).all()
    answered = labels != 255
    assert answered[:, : SIDE - 32].all()
    np.testing.assert_array_equal(labels[answered], expected[answered])


def test_a_raw_band_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64 * 64))
    path = tmp_path / "image.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="1">secret</SourceFilename>'
        "<ImageOffset>0</ImageOffset></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(InputError, match="takes the bytes of any file for pixels"):
        open_image(path)
    inner = path.rename(tmp_path / "inner.vrt")
    mosaic(path, [inner.name], stated=False)
    with pytest.raises(InputError, match="takes the bytes of any file for pixels"):
        open_image(path)


def flip_a_checksum(path: Path, tile: int) -> None:
    """Damage that GDAL decodes without a word."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        last = page.dataoffsets[tile] + page.databytecounts[tile] - 1
    content = bytearray(path.read_bytes())
    content[last] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("nested", [False, True])
def test_damage_that_gdal_passes_over_is_found_in_a_part(image: Path, nested: bool) -> None:
    write(image.with_name("b.tif"), PIXELS[:, SIDE:], compress="DEFLATE", interleave="pixel")
    flip_a_checksum(image.with_name("b.tif"), 5)  # rows and columns 64 to 128
    if nested:
        image = mosaic(image.with_name("outer.vrt"), ["mosaic.vrt"], stated=False)
        image.write_text(image.read_text().replace('xSize="256"', 'xSize="512"'))
        image.write_text(image.read_text().replace('XSize="256"', 'XSize="512"', 1))
    with closing(open_image(image)) as opened:
        assert opened.shape == PIXELS.shape
        for _ in range(2):
            with pytest.raises(
                UnreadableError, match=r"b\.tif: the tile of row 1, column 1: its def"
            ):
                opened.read(Window(70, SIDE + 70, 20, 20))
        sound = Window(140, 0, 100, 2 * SIDE)
        np.testing.assert_array_equal(opened.read(sound), PIXELS[140:240])
        sound = Window(0, SIDE + 140, SIDE, 100)
        np.testing.assert_array_equal(opened.read(sound), PIXELS[:, SIDE + 140 : SIDE + 240])


def test_more_parts_than_are_kept_open_are_checked(tmp_path: Path) -> None:
    names = [f"{number}.tif" for number in range(40)]
    for name in names:
        write(tmp_path / name, PIXELS[:, :SIDE], compress="DEFLATE")
    image = mosaic(tmp_path / "mosaic.vrt", names)
    with closing(open_image(image)) as opened, ThreadPoolExecutor(4) as pool:
        windows = [Window(0, number * SIDE, 64, SIDE) for number in range(40)] * 2
        for pixels in pool.map(opened.read, windows):
            np.testing.assert_array_equal(pixels, PIXELS[:64, :SIDE])


def with_a_hole(path: Path, name: str, *, nodata: str = "") -> Path:
    """A mosaic of 256 x 768 whose middle no part fills."""
    bands = ""
    for band in (1, 2, 3):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="256" ySize="256"/>'
            f'<DstRect xOff="{x}" yOff="0" xSize="256" ySize="256"/></SimpleSource>'
            for x in (0, 512)
        )
        bands += f'<VRTRasterBand dataType="Byte" band="{band}">{nodata}{sources}</VRTRasterBand>'
    path.write_text(
        '<VRTDataset rasterXSize="768" rasterYSize="256"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>{bands}</VRTDataset>"
    )
    return path


HOLE = np.zeros((256, 768), np.bool_)
HOLE[:, 256:512] = True


def test_what_no_part_of_a_mosaic_fills_is_no_data(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", PIXELS[:, :SIDE])
    with closing(open_image(with_a_hole(tmp_path / "m.vrt", "a.tif"))) as found:
        valid = found.read_valid(Window(0, 0, 256, 768))
        assert valid is not None
        np.testing.assert_array_equal(valid, ~HOLE)
        window = Window(10, 200, 90, 100)
        part = found.read_valid(window)
        assert part is not None
        np.testing.assert_array_equal(part, ~HOLE[window.slices()])


def test_a_hole_in_a_part_of_a_mosaic_is_one_of_the_mosaic(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", PIXELS[:, :SIDE])
    inner = with_a_hole(tmp_path / "inner.vrt", "a.tif")
    outer = tmp_path / "outer.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{inner.name}</SourceFilename>'
        f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="768" ySize="256"/>'
        '<DstRect xOff="0" yOff="0" xSize="384" ySize="128"/></SimpleSource></VRTRasterBand>'
        for band in (1, 2, 3)
    )
    outer.write_text(
        '<VRTDataset rasterXSize="384" rasterYSize="128"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000,2,0,5000000,0,-2</GeoTransform>{bands}</VRTDataset>"
    )
    with closing(open_image(outer)) as found:
        valid = found.read_valid(Window(0, 0, 128, 384))
        assert valid is not None
        np.testing.assert_array_equal(valid, ~HOLE[::2, ::2])


def test_a_mosaic_that_its_parts_fill_has_no_holes(image: Path) -> None:
    with closing(open_image(image)) as found:
        assert found.read_valid(ALL) is None


def test_a_hole_for_which_there_is_a_nodata_value_is_told_by_that(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.maximum(PIXELS[:, :SIDE], 1))
    nodata = "<NoDataValue>7</NoDataValue>"
    with closing(open_image(with_a_hole(tmp_path / "m.vrt", "a.tif", nodata=nodata))) as found:
        assert found.nodata == 7
        np.testing.assert_array_equal(found.read(Window(0, 256, 256, 256)), 7)


def test_a_mosaic_of_huge_strips_is_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    strip = tmp_path / "a.tif"
    tifffile.imwrite(
        strip, np.zeros((SIDE, SIDE, 3), np.uint8), rowsperstrip=SIDE, compression="zlib",
        photometric="rgb", metadata=None,
    )  # fmt: skip
    with closing(open_image(mosaic(tmp_path / "m.vrt", ["a.tif", "a.tif"]))) as found:
        assert found.chunks[0] == (SIDE, SIDE)
        with pytest.raises(InputError, match="tilepipe convert"):
            check_bounded(found, 0, 3 * SIDE * SIDE - 1)
        check_bounded(found, 0, 3 * SIDE * SIDE)
