"""OME-Zarr 0.4 and 0.5, and masks with coordinates: the same mask, whatever holds it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from pyproj import CRS

from tests.products.making import (
    CLASSES,
    KINDS,
    NO_ANSWER,
    make_content,
    make_mask,
    make_spec,
    tree,
    whole,
)
from tilepipe.errors import DamagedMaskError, InputError
from tilepipe.products.base import MaskSpec
from tilepipe.products.instances import create_instances, open_instances
from tilepipe.products.store import create_mask, metadata_documents, open_zarr_mask
from tilepipe.storage.hashing import read_seal

VERSIONS = ("0.4", "0.5")
UTM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def placed_spec(shape: tuple[int, int] = (1025, 700), kind: str = "labels", **others: Any) -> Any:
    facts = {"transform": UTM, "crs": CRS.from_epsg(32632).to_wkt(), "has_coordinates": True}
    return make_spec(shape, kind, **(facts | others))


@pytest.mark.parametrize("ngff", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [make_spec, placed_spec])
def test_every_version_and_layout_holds_the_same_mask(
    tmp_path: Path, ngff: str, kind: str, make: Any
) -> None:
    spec = make((1025, 700), kind, ngff=ngff)
    extras = "float16" if kind == "planes" else None
    mask = open_zarr_mask(make_mask(tmp_path / "m.ome.zarr", spec, probabilities=extras).path)
    plain = make_mask(tmp_path / "plain.ome.zarr", make_spec((1025, 700), kind))
    assert mask.spec == spec
    assert mask.levels == plain.levels
    for level, shape in enumerate(mask.levels):
        expected = plain.read(whole(shape), level)
        np.testing.assert_array_equal(mask.read(whole(shape), level), expected)
        assert mask.stored_chunks(level) == plain.stored_chunks(level)
    again = make_mask(tmp_path / "again.ome.zarr", spec, probabilities=extras)
    assert tree(again.path) == tree(mask.path)
    assert (mask.path / "zarr.json").exists() == (ngff == "0.5")


@pytest.mark.parametrize("ngff", VERSIONS)
def test_the_seals_are_those_of_the_chunks_on_disk(tmp_path: Path, ngff: str) -> None:
    spec = placed_spec(kind="planes", ngff=ngff)
    create_mask(tmp_path / "m.ome.zarr", spec, ("probabilities:uint8",))
    mask = open_zarr_mask(tmp_path / "m.ome.zarr")
    window = whole(mask.shape)
    content = make_content(spec)
    mask.write(window, content, content)
    keys, seals = list(mask.chunk_keys(window)), mask.take_seals(window).split(" ")
    assert [read_seal(mask.path / key) for key in keys] == seals
    assert mask.stored_bytes() == sum(f.stat().st_size for f in map(mask.path.joinpath, keys))


@pytest.mark.parametrize("ngff", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_chunk_is_never_a_wrong_label(tmp_path: Path, ngff: str, kind: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(kind=kind, ngff=ngff))
    chunk = mask.path / next(iter(mask.chunk_keys()))
    content = chunk.read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        chunk.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DamagedMaskError):
            open_zarr_mask(mask.path).read(whole((512, 512)))


@pytest.mark.parametrize("ngff", VERSIONS)
@pytest.mark.parametrize("make", [make_spec, placed_spec])
def test_the_documents_are_what_a_new_mask_consists_of(
    tmp_path: Path, ngff: str, make: Any
) -> None:
    spec, extras = make(ngff=ngff), ["probabilities:uint8"]
    mask = create_mask(tmp_path / "m.ome.zarr", spec, extras)
    written = {
        file.relative_to(mask.path).as_posix(): file.read_bytes()
        for file in mask.path.rglob("*")
        if file.is_file()
    }
    assert metadata_documents(spec, extras) == written


@pytest.mark.parametrize("ngff", VERSIONS)
def test_what_is_there_is_not_replaced(tmp_path: Path, ngff: str) -> None:
    create_mask(tmp_path / "m.ome.zarr", make_spec(ngff=ngff))
    for other in VERSIONS:
        with pytest.raises(InputError, match="already exists"):
            create_mask(tmp_path / "m.ome.zarr", make_spec(ngff=other))


@pytest.mark.parametrize("ngff", VERSIONS)
@pytest.mark.parametrize("make", [make_spec, placed_spec])
def test_it_follows_the_specification(tmp_path: Path, ngff: str, make: Any) -> None:
    models = pytest.importorskip("ome_zarr_models")
    for kind in KINDS:
        mask = make_mask(tmp_path / f"{kind}.ome.zarr", make(kind=kind, ngff=ngff))
        found = models.open_ome_zarr(zarr.open_group(mask.path, mode="r"), version=ngff)
        assert type(found).__name__ == ("ImageLabel" if kind == "labels" else "Image")
        attributes = found.attributes if ngff == "0.4" else found.ome_attributes
        paths = [each.path for each in attributes.multiscales[0].datasets]
        assert paths == list(mask.spec.level_paths)


def test_masks_that_older_versions_read_are_described_as_by_them() -> None:
    document = make_spec().to_json()
    assert document["format"] == 1
    assert document.keys().isdisjoint({"ngff", "has_coordinates"})
    for newer in (make_spec(ngff="0.4"), placed_spec()):
        document = json.loads(json.dumps(newer.to_json()))
        assert document["format"] == 2
        assert MaskSpec.from_json(document) == newer


def test_a_mask_with_a_place_but_from_an_older_version_is_still_read(tmp_path: Path) -> None:
    spec = placed_spec(has_coordinates=False)
    mask = open_zarr_mask(make_mask(tmp_path / "m.ome.zarr", spec).path)
    assert spec.level_paths == ("0", "1", "2")
    assert not (mask.path / "x").exists()
    np.testing.assert_array_equal(mask.read(whole(mask.shape)), make_content(spec))


@pytest.mark.parametrize("ngff", VERSIONS)
def test_coordinates_are_the_centres_of_the_pixels(tmp_path: Path, ngff: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", placed_spec(ngff=ngff))
    group: Any = zarr.open_group(mask.path, mode="r")
    assert group["x"][:3].tolist() == [500_005.0, 500_015.0, 500_025.0]
    assert group["y"][-1] == 5_000_000 - 10 * 1024.5
    assert group["x"].attrs["standard_name"] == "projection_x_coordinate"
    assert group["x"].attrs["units"] == "m"
    assert CRS.from_wkt(group["spatial_ref"].attrs["crs_wkt"]).to_epsg() == 32632
    assert group["spatial_ref"].attrs["GeoTransform"] == "500000.0 10.0 0.0 5000000.0 0.0 -10.0"
    assert group["0"].attrs["flag_values"] == [0, 1, 2]
    assert group["0"].attrs["flag_meanings"] == "background noyau_ _stroma_more"
    assert len(CLASSES) == 3


def test_degrees_are_longitude_and_latitude(tmp_path: Path) -> None:
    wkt = CRS.from_epsg(4326).to_wkt()
    spec = placed_spec(crs=wkt, transform=(0.01, 0.0, 7.0, 0.0, -0.01, 50.0))
    group: Any = zarr.open_group(create_mask(tmp_path / "m.ome.zarr", spec).path, mode="r")
    names = [group[axis].attrs["standard_name"] for axis in "xy"]
    assert names == ["longitude", "latitude"]
    assert group["x"].attrs["units"] == "degrees_east"


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["a field"]', "nonsense"])
def test_coordinates_without_a_known_crs_are_numbers_only(tmp_path: Path, crs: str | None) -> None:
    spec = placed_spec(crs=crs)
    group: Any = zarr.open_group(create_mask(tmp_path / "m.ome.zarr", spec).path, mode="r")
    assert group["x"][0] == 500_005
    assert group["x"].attrs["axis"] == "X"
    assert ("crs_wkt" in group["spatial_ref"].attrs) == (crs is not None)


def test_a_rotated_grid_has_a_transform_and_no_coordinates(tmp_path: Path) -> None:
    spec = placed_spec(transform=(10.0, 1.0, 5e5, 1.0, -10.0, 5e6))
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    assert sorted(p.name for p in mask.path.iterdir()) == [
        "0", "overviews", "spatial_ref", "zarr.json",
    ]  # fmt: skip


def test_gdal_places_a_mask_of_version_04(tmp_path: Path) -> None:
    import rasterio

    with rasterio.Env() as env:
        if "Zarr" not in env.drivers():
            pytest.skip("this GDAL has no Zarr driver")
    for kind in KINDS:
        spec = placed_spec(kind=kind, ngff="0.4")
        mask = make_mask(tmp_path / f"{kind}.ome.zarr", spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rasterio's own use of affine
            with rasterio.open(f'ZARR:"{mask.path}":/0') as file:
                assert file.crs.to_epsg() == 32632
                assert tuple(file.transform)[:6] == UTM
                if kind != "values":
                    assert file.nodata == NO_ANSWER
                found = file.read()
        np.testing.assert_array_equal(found if kind != "labels" else found[0], make_content(spec))


@pytest.mark.parametrize("ngff", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_xarray_opens_it_in_its_place(tmp_path: Path, ngff: str, kind: str) -> None:
    xarray = pytest.importorskip("xarray")
    spec = placed_spec(kind=kind, ngff=ngff)
    mask = make_mask(tmp_path / "m.ome.zarr", spec, probabilities="float16")
    create_instances(mask.path / "objects", spec)
    dataset = xarray.open_zarr(mask.path, consolidated=False, chunks=None)
    assert float(dataset["0"].x[0]) == 500_005
    content = make_content(spec).astype(np.float32)
    expected = np.where(content == spec.fill, np.nan, content)
    np.testing.assert_array_equal(dataset["0"].values, expected)
    for group in ("probabilities", "objects"):
        inner = xarray.open_zarr(mask.path, group=group, consolidated=False, chunks=None)
        assert float(inner["0"].y[0]) == 4_999_995
    pytest.importorskip("rioxarray")
    assert dataset["0"].rio.crs.to_epsg() == 32632
    assert tuple(dataset["0"].rio.transform())[:6] == UTM


@pytest.mark.parametrize("ngff", VERSIONS)
def test_objects_are_stored_as_their_mask_is(tmp_path: Path, ngff: str) -> None:
    spec = placed_spec(ngff=ngff)
    layer = create_instances(tmp_path / "o.ome.zarr", spec, source="../")
    layer.write(whole(layer.shape), np.full(layer.shape, 7, np.uint32))
    assert (open_instances(layer.path).read(whole(layer.shape)) == 7).all()
    (key,) = layer.chunk_keys(whole((1, 1)))
    assert key == ("0/0/0" if ngff == "0.4" else "0/c/0/0")
    assert sorted(p.name for p in (layer.path / "overviews").iterdir() if p.is_dir()) == ["1", "2"]
