"""OME-Zarr, 0.4 and 0.5, as others write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.images.oracle import chart, mirrored, windows_of
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images import PixelSize, open_image

UNITS = {"y": "micrometer", "x": "micrometer", "z": "micrometer", "t": "second", "c": None}
TYPES = {"y": "space", "x": "space", "z": "space", "t": "time", "c": "channel"}


def write(
    folder: Path, axes: str, version: str = "0.5", unit: bool = True, **options: Any
) -> list[np.ndarray[Any, Any]]:
    """An image of two levels; returns each as (height, width, bands)."""
    group = zarr.create_group(folder, zarr_format=3 if version == "0.5" else 2)
    full = chart(300, 200, bands=3 if "c" in axes else 1, dtype="uint16")
    levels = [full, full[::2, ::2]]
    for number, pixels in enumerate(levels):
        order = [{"y": 0, "x": 1, "c": 2}[axis] for axis in axes if axis in "yxc"]
        data = pixels.transpose(order) if "c" in axes else pixels[..., 0].transpose(order)
        for place, axis in enumerate(axes):
            if axis in "tz":
                data = np.expand_dims(data, place)
        chunks = tuple(1 if axis in "tzc" else 64 for axis in axes)
        group.create_array(f"s{number}", data=data, chunks=chunks, **options)
    multiscale = {
        "axes": [
            {"name": a, "type": TYPES[a], **({"unit": UNITS[a]} if unit and UNITS[a] else {})}
            for a in axes
        ],
        "datasets": [
            {
                "path": f"s{number}",
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [{"y": 0.5, "x": 0.25}.get(a, 1.0) * 2**number for a in axes],
                    }
                ],
            }
            for number in range(2)
        ],
        "version": version,
    }
    key = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    group.attrs.update(key if version == "0.5" else {"multiscales": [multiscale]})
    return levels


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "yxc", "tczyx", "zyx", "xy"])
def test_axes_of_any_order(tmp_path: Path, axes: str, version: str) -> None:
    levels = write(tmp_path / "image.zarr", axes, version)
    image = open_image(tmp_path / "image.zarr")
    assert image.kind == "OME-Zarr"
    assert image.pixel_size == PixelSize(0.5, 0.25, "micrometer")
    assert [level.scale_y for level in image.levels] == [1, 2]
    for number, pixels in enumerate(levels):
        for window in windows_of(*pixels.shape[:2]):
            np.testing.assert_array_equal(image.read(window, number), mirrored(pixels, window))


def test_without_a_unit_there_is_no_pixel_size(tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", "yx", unit=False)
    assert open_image(tmp_path / "image.zarr").pixel_size is None


def test_shards_are_read_by_their_chunks(tmp_path: Path) -> None:
    levels = write(tmp_path / "image.zarr", "yx", shards=(128, 128))
    image = open_image(tmp_path / "image.zarr")
    assert image.chunks[0] == (64, 64)
    window = Window(50, 60, 100, 90)
    np.testing.assert_array_equal(image.read(window), mirrored(levels[0], window))


@pytest.mark.parametrize("folder", ["series.zarr", "series.zarr/0"])
def test_an_image_within_a_folder_of_images(tmp_path: Path, folder: str) -> None:
    zarr.create_group(tmp_path / "series.zarr", attributes={"bioformats2raw.layout": 3})
    levels = write(tmp_path / "series.zarr" / "0", "yx")
    window = Window(50, 60, 100, 90)
    np.testing.assert_array_equal(
        open_image(tmp_path / folder).read(window), mirrored(levels[0], window)
    )


def test_a_stack_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", "zyx")
    zarr.create_array(tmp_path / "image.zarr" / "s0", shape=(4, 9, 9), dtype="u2", overwrite=True)
    with pytest.raises(InputError, match=r"4 planes along axis z.*save the plane you want"):
        open_image(tmp_path / "image.zarr")


def test_a_bare_array_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "array.zarr", shape=(9, 9), dtype="u1")
    with pytest.raises(InputError, match=r"bare zarr array.*give the folder above"):
        open_image(tmp_path / "array.zarr")


def test_broken_metadata_is_named(tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", "yx")
    (tmp_path / "image.zarr" / "s0" / "zarr.json").write_text('{"zarr_format": 3, "node')
    with pytest.raises(InputError, match="cannot be read as OME-Zarr"):
        open_image(tmp_path / "image.zarr")


def test_a_missing_chunk_is_the_fill_value(tmp_path: Path) -> None:
    levels = write(tmp_path / "image.zarr", "yx", fill_value=7)
    (tmp_path / "image.zarr/s0/c/1/1").unlink()
    pixels = open_image(tmp_path / "image.zarr").read(Window(0, 0, 300, 200))
    assert (pixels[64:128, 64:128] == 7).all()
    np.testing.assert_array_equal(pixels[:64], levels[0][:64])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("content", [b"", b"noise in place of a chunk" * 9])
def test_a_broken_chunk_is_named(tmp_path: Path, version: str, content: bytes) -> None:
    write(tmp_path / "image.zarr", "yx", version)
    chunk = "s0/c/1/1" if version == "0.5" else "s0/1.1"
    (tmp_path / "image.zarr" / chunk).write_bytes(content)
    image = open_image(tmp_path / "image.zarr")
    with pytest.raises(UnreadableError, match=r"image\.zarr.*row 70.*s0 is broken"):
        image.read(Window(70, 70, 5, 5))
    image.read(Window(0, 0, 60, 60))


@pytest.mark.parametrize("change", [[5, 32, 32], [0, 32, 32], [32, 32]])
def test_a_level_that_does_not_fit_its_pyramid(tmp_path: Path, change: list[int]) -> None:
    import json

    path = tmp_path / "image.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    for level in (0, 1):
        side = 64 >> level
        root.create_array(str(level), shape=(3, side, side), chunks=(3, 32, 32), dtype=np.uint8)
    axes = [{"name": name} for name in "cyx"]
    steps = [[{"type": "scale", "scale": [1, 2**level, 2**level]}] for level in (0, 1)]
    datasets = [{"path": str(i), "coordinateTransformations": steps[i]} for i in (0, 1)]
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    assert open_image(path).shape == (64, 64, 3)
    file = path / "1" / "zarr.json"
    document = json.loads(file.read_text())
    grid = {"name": "regular", "configuration": {"chunk_shape": [3, 32, 32][-len(change) :]}}
    file.write_text(json.dumps({**document, "shape": change, "chunk_grid": grid}))
    with pytest.raises(InputError, match=r"image\.ome\.zarr"):
        open_image(path)
