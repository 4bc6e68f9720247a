"""OME-TIFF sets: whole ones are read, of others it is said which files are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import PixelSize, open_image

PIXELS = make_image(90, 120, 3)
WHOLE = Window(0, 0, 90, 120)
NAMES = [f"channel_{i}.ome.tif" for i in range(3)]
UUIDS = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(3)]


def document(own: int | None, names: list[str] = NAMES) -> str:
    """The OME-XML of a set of one file for each channel, as file ``own`` has it."""
    blocks = "".join(
        f'<TiffData FirstC="{i}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">{UUIDS[i]}</UUID></TiffData>'
        for i, name in enumerate(names)
    )
    channels = "".join(f'<Channel ID="C:0:{i}" SamplesPerPixel="1"/>' for i in range(len(names)))
    uuid = "" if own is None else f' UUID="{UUIDS[own]}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{uuid}>'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="120" SizeY="90" SizeC="{len(names)}" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="0.25" PhysicalSizeY="0.25">{channels}{blocks}</Pixels></Image></OME>'
    )


def write(path: Path, xml: str, channel: int) -> Path:
    tifffile.imwrite(
        path, PIXELS[..., channel], tile=(64, 64), photometric="minisblack",
        description=xml.encode(), metadata=None,
    )  # fmt: skip
    return path


def write_set(folder: Path) -> None:
    for i, name in enumerate(NAMES):
        write(folder / name, document(i), i)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_set_is_read_by_any_of_its_files(tmp_path: Path, name: str) -> None:
    write_set(tmp_path)
    image = open_image(tmp_path / name)
    np.testing.assert_array_equal(image.read(WHOLE), PIXELS)
    assert image.notes == ()


def test_the_files_that_are_missing_are_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(
        InputError, match=rf"one of the 3 files .* 1 of them is missing: {NAMES[1]}"
    ):
        open_image(tmp_path / NAMES[0])


def test_one_file_of_a_set_that_was_renamed_is_no_broken_file(tmp_path: Path) -> None:
    write(tmp_path / "renamed.ome.tif", document(0), 0)
    with pytest.raises(InputError, match=rf"{NAMES[1]}, {NAMES[2]}; put the whole set"):
        open_image(tmp_path / "renamed.ome.tif")


def test_a_single_file_may_name_itself_by_a_name_that_it_had(tmp_path: Path) -> None:
    write(tmp_path / "new.ome.tif", document(0, ["old.ome.tif"]), 0)
    image = open_image(tmp_path / "new.ome.tif")
    np.testing.assert_array_equal(image.read(WHOLE), PIXELS[..., :1])


def binary_only(folder: Path) -> None:
    """A set whose metadata stand in a companion file."""
    for i, name in enumerate(NAMES):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{UUIDS[i]}"><BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:9"/>'
            "</OME>"
        )
        write(folder / name, xml, i)
    (folder / "set.companion.ome").write_text(document(None))


@pytest.mark.parametrize("name", [*NAMES, "set.companion.ome"])
def test_a_set_is_read_by_its_companion(tmp_path: Path, name: str) -> None:
    binary_only(tmp_path)
    image = open_image(tmp_path / name)
    np.testing.assert_array_equal(image.read(WHOLE), PIXELS)
    assert image.pixel_size == PixelSize(0.25, 0.25, "micrometer")


def test_a_companion_that_is_missing_is_named(tmp_path: Path) -> None:
    binary_only(tmp_path)
    (tmp_path / "set.companion.ome").unlink()
    with pytest.raises(InputError, match=r"metadata stand in 'set\.companion\.ome'; put that file"):
        open_image(tmp_path / NAMES[0])


def test_a_companion_without_its_files_says_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "set.companion.ome").write_text(document(None))
    with pytest.raises(InputError, match=rf"none of its files is there: {NAMES[0]}"):
        open_image(tmp_path / "set.companion.ome")


@pytest.mark.parametrize("name", ["../secret.tif", "/etc/secret.tif", "C:\\secret.tif"])
def test_a_set_does_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / NAMES[0], document(0, [NAMES[0], name, NAMES[2]]), 0)
    with pytest.raises(InputError, match="outside its own folder"):
        open_image(tmp_path / NAMES[0])
