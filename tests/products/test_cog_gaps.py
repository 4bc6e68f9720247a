"""A COG with its gaps filled in is the one that GDAL writes without leaving any."""

from __future__ import annotations

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
from tilepipe.products.cog_gaps import fill_gaps
from tilepipe.products.content import Form, content_of
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
def test_the_bytes_are_those_of_gdal(
    tmp_path: Path, kind: Any, bigtiff: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of tiles that reach beyond the mask GDAL leaves undefined what lies there: here none does.
    mask = sparse_mask(tmp_path / "m.ome.zarr", (8 * CHUNK, 8 * CHUNK), kind)
    monkeypatch.setattr(geotiff, "needs_bigtiff", lambda _: bigtiff)
    write_cog(mask, tmp_path / "ours.tif")
    (tmp_path / "levels").mkdir()
    levels = geotiff._write_levels(content_of(mask), tmp_path / "levels")
    with rasterio.Env(**geotiff._ENV), geotiff._without_georeference_warning():
        rasterio.shutil.copy(
            levels, tmp_path / "gdal.tif", strict=True, overviews="AUTO",
            bigtiff="YES" if bigtiff else "NO", **geotiff._layout(Form.of_mask(mask.spec)),
        )  # fmt: skip
    assert (tmp_path / "ours.tif").read_bytes() == (tmp_path / "gdal.tif").read_bytes()


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


def test_tiles_of_anything_else_are_not_filled_in(tmp_path: Path) -> None:
    zeros = np.zeros((4 * CHUNK, 4 * CHUNK), np.uint8)
    zeros[:CHUNK, :CHUNK] = np.arange(CHUNK) % 7
    with (
        rasterio.Env(**geotiff._ENV),
        geotiff._without_georeference_warning(),
        rasterio.open(
            tmp_path / "plain.tif", "w", driver="GTiff", height=zeros.shape[0],
            width=zeros.shape[1], count=1, dtype="uint8",
        ) as plain,
    ):  # fmt: skip
        plain.write(zeros, 1)
    with rasterio.Env(**geotiff._ENV), geotiff._without_georeference_warning():
        rasterio.shutil.copy(
            tmp_path / "plain.tif", tmp_path / "sparse.tif", driver="COG", sparse_ok=True
        )
    with pytest.raises(ValueError, match="are missing, not of 255"):
        fill_gaps(tmp_path / "sparse.tif", tmp_path / "filled.tif", 255, lambda: b"")
