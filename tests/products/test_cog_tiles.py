"""A COG into which tiles are put is the one that GDAL writes of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile

from tests.products.making import KINDS, make_content, make_spec, whole
from tilepipe.grid import CHUNK, Window
from tilepipe.products import geotiff
from tilepipe.products.cog_tiles import put_tiles
from tilepipe.products.content import Form, content_of
from tilepipe.products.files import deflated_tiles
from tilepipe.products.geotiff import write_cog
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask

SOME = Window(CHUNK, 2 * CHUNK, CHUNK, 2 * CHUNK)


def sparse_mask(path: Path, shape: tuple[int, int], kind: Any) -> ZarrMask:
    mask = create_mask(path, make_spec(shape, kind))
    mask.write(SOME, make_content(make_spec(SOME.shape, kind)))
    build_pyramid(mask)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_structure_and_tiles_are_those_of_gdal(
    tmp_path: Path, kind: Any, bigtiff: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of tiles that reach beyond the mask GDAL leaves undefined what lies there: here none does.
    mask = sparse_mask(tmp_path / "m.ome.zarr", (8 * CHUNK, 8 * CHUNK), kind)
    monkeypatch.setattr(geotiff, "needs_bigtiff", lambda _: bigtiff)
    write_cog(mask, tmp_path / "ours.tif")
    (tmp_path / "levels").mkdir()
    levels = geotiff._write_levels(content_of(mask), tmp_path / "levels")
    for level, size in enumerate(mask.levels):
        file = tmp_path / "levels" / f"{level}.tif"
        with geotiff._without_georeference_warning(), rasterio.open(file, "r+") as dataset:
            dataset.write(mask.read(whole(size), level).reshape(-1, *size))
    with rasterio.Env(**geotiff._ENV), geotiff._without_georeference_warning():
        rasterio.shutil.copy(
            levels, tmp_path / "gdal.tif", strict=True, overviews="AUTO",
            bigtiff="YES" if bigtiff else "NO", **geotiff._layout(Form.of_mask(mask.spec)),
        )  # fmt: skip
    assert taken_apart(tmp_path / "ours.tif") == taken_apart(tmp_path / "gdal.tif")


def taken_apart(path: Path) -> tuple[bytes, list[bytes]]:
    """All that comes before the tiles of a COG, and its tiles as they lie, decompressed.

    Without places and sizes of the tiles, because libraries compress them to different sizes.
    """
    content = bytearray(path.read_bytes())
    tiles: dict[int, bytes] = {}
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                tile = bytes(content[offset : offset + count])
                assert content[offset - 4 : offset] == count.to_bytes(4, "little")
                assert content[offset + count : offset + count + 4] == tile[-4:]
                tiles[offset] = zlib.decompress(tile)
        first = min(tiles) - 4
        for page in file.pages:
            for name in ("TileOffsets", "TileByteCounts"):
                tag = page.tags[name]
                content[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = bytes(
                    tag.valuebytecount
                )
    return bytes(content[:first]), [tiles[offset] for offset in sorted(tiles)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_tile_is_missing_and_every_reader_sees_no_answer(tmp_path: Path, kind: Any) -> None:
    mask = sparse_mask(tmp_path / "m.ome.zarr", (3000, 3500), kind)
    write_cog(mask, tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert len(file.pages) == len(mask.levels)
        for level, page in enumerate(file.pages):
            assert all(page.dataoffsets)
            assert all(page.databytecounts)
            pixels = page.asarray()
            pixels = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
            expected = mask.read(whole(mask.levels[level]), level)
            np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape))
    with geotiff._without_georeference_warning(), rasterio.open(tmp_path / "m.tif") as dataset:
        layout = dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]
        assert layout == "COG"


@pytest.mark.parametrize("damage", ["cut", "empty", "full"])
def test_a_skeleton_that_is_not_as_it_should_be_is_noticed(tmp_path: Path, damage: str) -> None:
    content = content_of(sparse_mask(tmp_path / "m.ome.zarr", (1600, 2100), "labels"))
    skeleton, out = tmp_path / "skeleton.tif", tmp_path / "m.tif"
    geotiff._copy_to_cog(geotiff._write_levels(content, tmp_path), skeleton, content.form)

    def tiles(level: int) -> Iterator[bytes]:
        return deflated_tiles(content, level, [0])

    put_tiles(skeleton, out, len(content.levels), tiles)
    np.testing.assert_array_equal(tifffile.imread(out), content.mask.read(whole((1600, 2100))))
    if damage == "full":
        with pytest.raises(ValueError, match="has tiles"):
            put_tiles(out, tmp_path / "again.tif", len(content.levels), tiles)
        return
    written = skeleton.read_bytes()
    skeleton.write_bytes(written[:-1] if damage == "cut" else b"")
    with pytest.raises(OSError, match="left it incomplete"):
        put_tiles(skeleton, out, len(content.levels), tiles)
