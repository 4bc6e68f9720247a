"""Chunks that are written without zarr's event loop are, byte for byte, zarr's."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, Delta, Zlib
from numpy.typing import NDArray

from tests.products.making import make_spec
from tilepipe.grid import Window
from tilepipe.products.chunks import ChunkWriter
from tilepipe.products.layer import Layer
from tilepipe.products.store import ZarrMask, create_mask, open_zarr_mask
from tilepipe.storage.zarr_store import SealingStore, zarr_store

SIZE = 1200, 700
"""Two chunks by three, the last ones cut."""
EXTRAS = ("probabilities:uint8", "probabilities:float16", "entropy")


def made(path: Path, version: str, extra: str) -> ZarrMask:
    create_mask(path, make_spec(SIZE, ngff=version), (extra,))
    return open_zarr_mask(path)


def some_pixels(layer: Layer, seed: int) -> NDArray[Any]:
    """Content of a layer: a chunk without any, parts without any, and all the rest."""
    rng = np.random.default_rng(seed)
    shape = (layer.planes, *SIZE)
    product = layer.product
    pixels: NDArray[Any]
    if product.dtype.kind == "f":
        pixels = rng.random(shape).astype(product.dtype)
    else:
        pixels = rng.integers(0, 3, shape).astype(product.dtype)
    pixels[:, :512, 512:] = product.fill
    pixels[:, 600:650, :300] = product.fill
    return pixels[0] if product.flat else pixels


def chunk_files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith((".z", "zarr.json"))
    }


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_chunks_are_those_that_zarr_writes(version: str, extra: str, tmp_path: Path) -> None:
    ours, theirs = (made(tmp_path / f"{name}.zarr", version, extra) for name in ("ours", "theirs"))
    whole = Window(0, 0, *SIZE)
    for layer, other in zip(ours.layers, theirs.layers, strict=True):
        pixels = some_pixels(layer, 1)
        layer.write(whole, pixels)
        assert isinstance(layer._writers[0], ChunkWriter), "nothing is left to zarr"
        array = other._arrays[0]
        array[...] = pixels
        np.testing.assert_array_equal(layer.read(whole), pixels)
        assert layer.take_seals(whole) == other.take_seals(whole)
    found = chunk_files(tmp_path / "ours.zarr")
    assert found == chunk_files(tmp_path / "theirs.zarr")
    assert len(found) > 5


def test_a_chunk_that_has_no_answer_any_more_is_removed(tmp_path: Path) -> None:
    mask = made(tmp_path / "mask.zarr", "0.5", "entropy")
    layer, window = mask.layers[0], Window(0, 0, 512, 512)
    layer.write(window, np.zeros((512, 512), np.uint8))
    assert layer.stored_chunks() == {(0, 0)}
    layer.write(window, np.full((512, 512), 255, np.uint8))
    assert layer.stored_chunks() == set()
    assert layer.take_seals(window) == "-"


V2: dict[str, Any] = {"zarr_format": 2, "compressors": Zlib(3)}


@pytest.mark.parametrize(
    "details",
    [
        {"fill_value": 0.0, "dtype": "float32"},  # of which zarr tells -0.0
        {**V2, "fill_value": None},
        {**V2, "fill_value": None, "dtype": "float32"},
        {**V2, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {**V2, "compressors": Blosc()},
        {**V2, "filters": [Delta("u1")]},
        {"dtype": ">u2"},
        {"serializer": zarr.codecs.BytesCodec(endian="big"), "dtype": "uint16"},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"config": {"write_empty_chunks": True}},
        {"compressors": [zarr.codecs.GzipCodec()]},
        {"compressors": None},
        {"chunks": (1024, 1024)},
        {"shards": (1024, 1024)},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    ],
    ids=str,
)
def test_arrays_that_are_not_stored_as_ours_are_left_to_zarr(
    details: dict[str, Any], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "shape": (1024, 1024), "chunks": (512, 512), "dtype": "uint8", "fill_value": 0,
        "compressors": [zarr.codecs.ZstdCodec(level=3)],
        "config": {"write_empty_chunks": False},
    }  # fmt: skip
    store = SealingStore(zarr_store(tmp_path / "plain"))
    assert ChunkWriter.of(zarr.create_array(store, **settings)) is not None
    other = SealingStore(zarr_store(tmp_path / "other"))
    assert ChunkWriter.of(zarr.create_array(other, **settings | details)) is None
    only_read = SealingStore(zarr_store(tmp_path / "plain", read_only=True))
    assert ChunkWriter.of(zarr.open_array(only_read, mode="r")) is None


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_mask_by_others_without_a_fill_value_is_read(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array(
        "0", shape=(2, 60, 50), chunks=(1, 60, 50), dtype=dtype, fill_value=None,
        compressors=Zlib(3),
    )  # fmt: skip
    array[...] = 1
    axes = [{"name": name} for name in "cyx"]
    group.attrs["multiscales"] = [{"datasets": [{"path": "0"}], "axes": axes, "version": "0.4"}]
    assert (open_zarr_mask(path).read(Window(0, 0, 60, 50)) == 1).all()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_ends_writing_leaves_no_part_behind(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = made(tmp_path / "mask.zarr", "0.5", "entropy")

    def fail(part: str, target: str) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)) as raised:
        mask.layers[0].write(Window(0, 0, 512, 512), np.zeros((512, 512), np.uint8))
    assert not list(tmp_path.rglob("*.partial"))
    if isinstance(raised.value, OSError):
        assert raised.value.filename == str(tmp_path / "mask.zarr/0/c/0/0"), "not that of its part"


def test_a_file_that_takes_little_at_a_time_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.FileIO):
        def write(self, content: Any) -> int:
            return super().write(bytes(content[:7]))

    monkeypatch.setattr("builtins.open", lambda path, *_, **__: Slow(path, "w"))
    store = SealingStore(zarr_store(tmp_path))
    store.write("some/where", bytes(range(100)))
    monkeypatch.undo()
    assert (tmp_path / "some/where").read_bytes() == bytes(range(100))
