"""Tissue is found whole and glass is not, and what is no slide in colour is refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tests.regions.making import slide
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.models.unet import UNetArguments
from tilepipe.regions.cells import Bools, CellGrid, touched_cells
from tilepipe.regions.tissue import find_tissue, otsu, shrunk


def cells_at(path: Path, pixel_um: float | None = 0.5) -> Bools:
    with closing(open_image(path)) as image:
        found, place, _ = find_tissue(image, pixel_um, 10**9)
        grid = CellGrid.of(image.levels[0], 16)
        return touched_cells(lambda a, b: found[a:b], found.shape, place, grid)


@pytest.mark.slow
@pytest.mark.parametrize("pixel_um", [0.5, 0.25, None])
def test_tissue_is_found_whole_and_glass_is_not(tmp_path: Path, pixel_um: float | None) -> None:
    pixels, inside = slide(1500, 2100)
    cells = cells_at(write_tiff(tmp_path / "slide.tif", pixels), pixel_um)
    found = np.kron(cells, np.ones((16, 16), bool))[:1500, :2100]
    assert found[inside].all(), "no edge is lost"
    assert found.mean() < inside.mean() + 0.1
    assert not found[:40, 690:720].any(), "dust is no tissue"


@pytest.mark.slow
def test_it_is_found_at_a_coarse_level_where_there_is_one(tmp_path: Path) -> None:
    pixels, inside = slide(2048, 4096)
    coarse = pixels.reshape(256, 8, 512, 8, 3).mean((1, 3)).astype(np.uint8)
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb"}
        tiff.write(np.full_like(pixels, 240), subifds=1, **options)  # a level 0 without tissue
        tiff.write(coarse, subfiletype=1, **options)
    cells = cells_at(path, 0.5)
    found = np.kron(cells, np.ones((16, 16), bool))[:2048, :4096]
    assert found[inside].all()


def test_an_image_that_is_all_tissue_is_computed_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.empty((800, 900, 3), np.float32)
    pixels[:] = (214, 172, 200)
    pixels[:, 400:] = (150, 60, 120)  # another stain, more of it: Otsu alone would cut here
    pixels += rng.normal(0, 5, pixels.shape)
    assert cells_at(write_tiff(tmp_path / "i.tif", pixels.astype(np.uint8))).all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((600, 700, 3), (242, 241, 236), np.uint8), "no tissue was found"),
        (make_image(300, 300, 1)[..., 0], "has 1 band of uint8"),
        (make_image(300, 300, 3).astype(np.float32), "3 bands of float32"),
        (make_image(600, 600, 3) // 12, "is mostly dark"),
    ],
    ids=["blank", "grey", "float", "dark"],
)
def test_what_has_no_tissue_to_find_is_refused_with_a_way_out(
    pixels: NDArray[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        cells_at(write_tiff(tmp_path / "i.tif", pixels))
    assert "--tissue none" in str(caught.value)


@pytest.mark.slow
def test_a_run_finds_tissue_and_says_so(tmp_path: Path) -> None:
    pixels, inside = slide(1500, 2100)
    image = write_tiff(tmp_path / "slide.tif", pixels)
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2))
    summary = tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=tmp_path / "m.ome.zarr", tissue="auto",
        verify=3,
    )  # fmt: skip
    labels = tilepipe.open_mask(tmp_path / "m.ome.zarr").read(Window(0, 0, 1500, 2100))
    assert (labels[inside] != 255).all()
    assert (labels == 255).mean() > 0.5
    assert summary.verification is not None
    assert summary.verification.exact
    assert summary.plan.region is not None
    assert "saturation above 0." in summary.plan.region.how
    assert summary.plan.region.share == pytest.approx((labels != 255).mean())


def test_pieces_do_not_show_in_the_small_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = make_image(780, 600)
    with closing(open_image(write_tiff(tmp_path / "i.tif", pixels))) as image:
        whole, _ = shrunk(image, 0, 7)
        monkeypatch.setattr("tilepipe.images.averaging.PIECE", 130)
        pieces, valid = shrunk(image, 0, 7)
    assert (whole == pieces).all()
    assert valid.all()
    assert whole[0, 0] == pytest.approx(pixels[:7, :7].mean((0, 1)), rel=1e-5)
    assert whole[-1, -1] == pytest.approx(pixels[777:, 595:].mean((0, 1)), rel=1e-5)


def test_otsu_is_that_of_scikit_image() -> None:
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 0.03, 5000), rng.normal(0.6, 0.1, 3000)]).clip(0, 1)
    assert otsu(values) == pytest.approx(threshold_otsu(values), abs=0.01)


@pytest.mark.parametrize(
    ("name", "low", "high", "tissue"),
    [
        ("CMU-1-Small-Region.svs", 0.35, 0.5, (1800, 1200)),
        ("HE_example.ome.tif", 0.65, 0.85, (700, 700)),
    ],
)
def test_real_slides(
    name: str, low: float, high: float, tissue: tuple[int, int], data: Path
) -> None:
    cells = cells_at(data / "wsi" / name)
    assert low < cells.mean() < high
    assert cells[tissue[0] // 16, tissue[1] // 16]
    assert not cells[10, 10]
