"""Paths as users give them."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.making import make_image, save_tiny, write_tiff
from tilepipe import load_model, open_image, open_mask
from tilepipe.engine.cluster.cluster_file import read_cluster_file
from tilepipe.engine.planning.region import source_fingerprint
from tilepipe.engine.run.verify import verify
from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import open_label_map
from tilepipe.evaluation.pairs import find_pairs
from tilepipe.grid import Window
from tilepipe.images.convert import convert
from tilepipe.models.unet import UNetArguments
from tilepipe.options import read_yaml
from tilepipe.storage import (
    as_path,
    local,
    local_file,
    make_folder,
    readable,
    utf8_path,
    written_here,
)
from tilepipe.storage.ops import require_room_for_name
from tilepipe.training.pairs import find_pairs as find_training_pairs

READERS: dict[str, Callable[[Path], Any]] = {
    "image": lambda path: open_image(str(path)),
    "model": load_model,
    "mask": lambda path: open_mask(str(path)),
    "verified": lambda path: verify(str(path)),
    "region": lambda path: source_fingerprint(str(path)),
    "configuration": read_yaml,
    "cluster": lambda path: read_cluster_file(str(path)),
    "evaluated": lambda path: find_pairs(path, path),
    "truth": lambda path: open_label_map(path, 10**9),
    "training": lambda path: find_training_pairs([str(path)]),
    "converted": lambda path: convert(str(path), path.with_name("c.ome.zarr")),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["", ".tif", ".csv", ".safetensors", ".onnx", ".ome.zarr"])
def test_no_reader_waits_for_a_pipe(tmp_path: Path, reader: str, suffix: str) -> None:
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"pipe.*: is a pipe, and only files and folders are read"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["", ".tif"])
def test_no_reader_reads_a_device(tmp_path: Path, reader: str, suffix: str) -> None:
    path = tmp_path / f"endless{suffix}"
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is a device"):
        READERS[reader](path)


def test_no_mosaic_is_made_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "part.tif")
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">part.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(InputError, match=r"its part part\.tif is not a file"):
        open_image(str(mosaic))


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        with pytest.raises(InputError, match="is a socket"):
            readable(tmp_path / "s")


def test_what_is_missing_is_for_the_reader_to_say(tmp_path: Path) -> None:
    assert readable(str(tmp_path / "none")) == tmp_path / "none"
    (tmp_path / "file").touch()
    assert readable(str(tmp_path / "file/none")) == tmp_path / "file/none"


def test_paths_that_the_system_does_not_follow(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be read"):
            readable(path)


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_paths_that_are_none(text: str) -> None:
    for take in (as_path, readable, local, written_here):
        with pytest.raises(InputError, match="path"):
            take(text)


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a model file"):
        local_file(tmp_path, "a model file")
    with pytest.raises(InputError, match="is a folder, not a model file"):
        load_model(".")


def test_what_stays_on_a_disk() -> None:
    for take in (local, written_here):
        with pytest.raises(InputError, match="a disk only"):
            take("s3://bucket/name")


@pytest.mark.parametrize("name", ["x" * 224, "é" * 112])
def test_names_leave_room_for_those_beside_them(tmp_path: Path, name: str) -> None:
    require_room_for_name(tmp_path / name[:-1])
    with pytest.raises(InputError, match="its name has 224 bytes, and at most 223 leave room"):
        require_room_for_name(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_in_which_nothing_can_be_made() -> None:
    with pytest.raises(InputError, match="cannot be made there"):
        make_folder(Path("/proc/self/x.ome.zarr"))


def test_a_folder_whose_name_is_not_utf8_holds_images_and_what_lies_beside_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "Pr\udce4parate"
    folder.mkdir()
    pixels = make_image(64, 80)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=64, width=80, count=3, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
    ) as scene:  # fmt: skip
        scene.write(np.moveaxis(pixels, 2, 0))
    shutil.move(tmp_path / "scene.tif", folder)
    write_tiff(tmp_path / "plain.tif", pixels)
    shutil.move(tmp_path / "plain.tif", folder)
    (folder / "plain.tfw").write_text("2\n0\n0\n-2\n100\n200\n")
    with open_image(str(folder / "scene.tif")) as image:
        assert image.crs is not None
        np.testing.assert_array_equal(image.read(Window(3, 4, 20, 30)), pixels[3:23, 4:34])
    with open_image(str(folder / "plain.tif")) as image:
        assert image.transform is not None, "the world file beside it counts"


def test_a_name_that_gdal_cannot_be_given_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Pr\udce4parat.tif"
    write_tiff(tmp_path / "i.tif", make_image(64, 80)).rename(path)
    with pytest.raises(InputError, match=r"Pr\\xe4parat.tif: is not a name in UTF-8.*rename"):
        open_image(str(path))
    with pytest.raises(InputError, match="rename"):
        utf8_path(path)


def test_a_model_whose_name_is_not_utf8(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=1))
    (tmp_path / "m.safetensors").rename(tmp_path / "m\udce4.safetensors")
    assert load_model(tmp_path / "m\udce4.safetensors").name == "m\udce4"
