"""Small files that come to much: refused, with memory in bounds, each in a process of its own."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from tests.making import make_image

pytestmark = pytest.mark.slow

HUGE = np.zeros((20000, 20000), np.uint8)


def tile_of(path: Path, compression: str, segment: Callable[[], bytes]) -> Path:
    """A TIFF of one sound tile, put in place by another that holds much more than it may."""
    pixels = make_image(64, 64, 3) if compression == "webp" else make_image(64, 64, 1)[..., 0]
    tifffile.imwrite(path, pixels, tile=(64, 64), compression=compression)
    content, added = bytearray(path.read_bytes()), segment()
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["TileOffsets"].overwrite([len(content)])
        file.pages.first.tags["TileByteCounts"].overwrite([len(added)])
    with path.open("r+b") as out:
        out.seek(len(content))
        out.write(added)
    return path


def a_strip(path: Path) -> Path:
    """One strip of 60000 x 60000, deflated to a few bytes."""
    tifffile.imwrite(path, make_image(64, 64, 1)[..., 0], compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages.first.tags[name].overwrite(60000)
    return path


def a_text(path: Path) -> Path:
    """A PNG with a comment of 2 GB."""
    imagecodecs.imwrite(path, make_image(32, 32, 1)[..., 0])
    content = path.read_bytes()
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(128)) + packer.flush()
    data = b"zTXtComment\0\0" + packed
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(content[:33] + chunk + content[33:])
    return path


def a_picture(path: Path) -> Path:
    """A PNG that says it has 60000 x 60000 pixels."""
    imagecodecs.imwrite(path, make_image(32, 32, 1)[..., 0])
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, 16, 60000, 60000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return path


def a_chunk(path: Path, codec: str, data: Callable[[], bytes]) -> Path:
    """An OME-Zarr of one chunk of 64 x 64 that inflates to much more."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    array = root.create_array("0", shape=(64, 64), chunks=(64, 64), dtype=np.uint8)
    array[...] = 1
    scale = [{"type": "scale", "scale": [1, 1]}]
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{
        "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
        "datasets": [{"path": "0", "coordinateTransformations": scale}]}]}  # fmt: skip
    file = path / "0" / "zarr.json"
    document = json.loads(file.read_text())
    bytes_ = {"name": "bytes", "configuration": {"endian": "little"}}
    configuration: dict[str, Any] = {
        "zstd": {"level": 1, "checksum": False}, "gzip": {"level": 1},
        "blosc": {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle",
                  "blocksize": 0},
    }[codec]  # fmt: skip
    document["codecs"] = [bytes_, {"name": codec, "configuration": configuration}]
    file.write_text(json.dumps(document))
    (path / "0" / "c" / "0" / "0").write_bytes(data())
    return path


def claimed(data: bytes, place: int, code: str, size: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, place, size)
    return bytes(changed)


def shape_of(path: Path, **changes: Any) -> Path:
    """The OME-Zarr of `a_chunk`, with its array's metadata changed."""
    a_chunk(path, "zstd", lambda: imagecodecs.zstd_encode(bytes(4096)))
    file = path / "0" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def grid(*sides: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(sides)}}


BOMBS: dict[str, Callable[[Path], Path]] = {
    "deflate.tif": lambda p: tile_of(p, "zlib", lambda: zlib.compress(HUGE.tobytes())),
    "lzw.tif": lambda p: tile_of(p, "lzw", lambda: imagecodecs.lzw_encode(bytes(2**28))),
    "zstd.tif": lambda p: tile_of(p, "zstd", lambda: imagecodecs.zstd_encode(HUGE.tobytes())),
    "jpeg.tif": lambda p: tile_of(p, "jpeg", lambda: imagecodecs.jpeg_encode(HUGE)),
    "jpeg2000.tif": lambda p: tile_of(
        p, "jpeg2000",
        lambda: claimed(claimed(imagecodecs.jpeg2k_encode(HUGE[:64, :64], codecformat="j2k"),
                                8, ">I", 40000), 12, ">I", 40000)),
    "png.tif": lambda p: tile_of(p, "png", lambda: imagecodecs.png_encode(HUGE)),
    "webp.tif": lambda p: tile_of(
        p, "webp", lambda: imagecodecs.webp_encode(np.zeros((5000, 5000, 3), np.uint8))),
    "strip.tif": a_strip,
    "text.png": a_text,
    "sides.png": a_picture,
    "zstd.ome.zarr": lambda p: a_chunk(
        p, "zstd", lambda: imagecodecs.zstd_encode(HUGE.tobytes())),
    "blosc.ome.zarr": lambda p: a_chunk(
        p, "blosc", lambda: claimed(imagecodecs.blosc_encode(bytes(4096)), 4, "<I", 2**31 - 1)),
    "gzip.ome.zarr": lambda p: a_chunk(
        p, "gzip", lambda: imagecodecs.gzip_encode(HUGE.tobytes())),
    "chunks.ome.zarr": lambda p: shape_of(p, chunk_grid=grid(2**20, 2**20)),
    "bands.ome.zarr": lambda p: shape_of(p, shape=[2**40, 2**40]),
    "shards.ome.zarr": lambda p: shape_of(
        p, chunk_grid=grid(2**30, 2**30),
        codecs=[{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [1, 1], "codecs": [{"name": "bytes"}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}}]),
}  # fmt: skip

READ = """
import sys
from tests.fuzz.campaign import prepare
from tests.fuzz.harness import isolated
from tests.fuzz.targets import read_image
prepare()
for path in sys.argv[1:]:
    outcome = isolated(lambda: read_image(path))
    print(outcome.verdict, outcome.growth // 2**20, outcome.reason, sep="|")
"""

SOUND = {"text.png", "lzw.tif"}
"""What may be read: comments are not looked at, and LZW ends where its tile is full."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_bombs_are_refused_within_bounds(tmp_path: Path) -> None:
    paths = [make(tmp_path / name) for name, make in BOMBS.items()]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        check=True, capture_output=True, text=True, cwd=root, env=environment,
    )  # fmt: skip
    found = {}
    for name, line in zip(BOMBS, done.stdout.splitlines(), strict=True):
        verdict = line.partition("|")[0]
        if verdict != "refused" and not (verdict == "read" and name in SOUND):
            found[name] = line
    assert not found, found
