"""Masks are converted from an object store and to one."""

from __future__ import annotations

from pathlib import Path

import pytest

import tilepipe
from tests.products.making import make_mask, make_spec
from tests.storage.making import objects
from tilepipe.errors import InputError
from tilepipe.products.formats import export


def test_masks_are_converted_to_an_object_store_and_back(tmp_path: Path, folder: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((600, 700)))
    export(mask, tmp_path / "m.tif")
    tilepipe.convert(mask.path, f"{folder}/m.ome.zarr")
    tilepipe.convert(f"{folder}/m.ome.zarr", f"{folder}/m.tif")
    assert objects(folder)["m.tif"] == (tmp_path / "m.tif").read_bytes()
    tilepipe.convert(f"{folder}/m.ome.zarr", tmp_path / "n.tif")
    assert (tmp_path / "n.tif").read_bytes() == (tmp_path / "m.tif").read_bytes()
    with pytest.raises(InputError, match="exists"):
        tilepipe.convert(mask.path, f"{folder}/m.tif")
    tilepipe.convert(mask.path, f"{folder}/m.ome.zarr", overwrite=True)
    with pytest.raises(InputError, match="is the mask, or contains it"):
        tilepipe.convert(f"{folder}/m.ome.zarr", f"{folder}/m.ome.zarr", overwrite=True)
    assert tilepipe.validate(f"{folder}/m.ome.zarr").problems == ()
