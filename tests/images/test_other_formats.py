"""Formats that are not read are refused by name, and so is what is only a part of a slide."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Picture

from tests.making import make_image, write_tiff
from tilepipe.errors import InputError
from tilepipe.images import open_image

PIXELS = make_image(60, 70)


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("a.dcm", bytes(128) + b"DICM" + bytes(99), "DICOM"),
        ("renamed.bin", bytes(128) + b"DICM" + bytes(99), "DICOM"),
        ("a.czi", b"ZISRAWFILE" + bytes(99), "CZI"),
        ("a.lif", b"\x70\0\0\0\x20\0\0\0\x2a" + bytes(99), "LIF"),
        ("a.nd2", b"\xda\xce\xbe\x0a" + bytes(99), "ND2"),
        ("old.nd2", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(99), "ND2"),
        ("a.oir", b"OLYMPUSRAWFORMAT" + bytes(99), "OIR"),
        ("a.zvi", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "ZVI"),
        ("frame_t.ets", b"SIS\0" + bytes(99), "VSI"),
        ("a.vms", b"[Virtual Microscope Specimen]\nNoLayers=1\n", "VMS"),
        ("a.vmu", b"[Uncompressed Virtual Microscope Specimen]\n", "VMU"),
        ("a.isyntax", b'<DataObject ObjectType="DPUfsImport">' + bytes(99), "iSyntax"),
        ("a.ndpis", b"[NanoZoomer Digital Pathology Image Set]\nNoImages=3\n", "NDPI"),
        ("a.afi", b"<ImageList><Image><Path>a.svs</Path></Image></ImageList>", "SVS"),
        ("a.sdpc", b"no signature that is known", "SDPC"),
        ("a.ozx", b"PK\x03\x04" + bytes(99), "archive; unpack it"),
        ("a.tar.gz", b"\x1f\x8b" + bytes(99), "archive; unpack it"),
    ],
)
def test_a_format_that_is_not_read_is_named(
    tmp_path: Path, name: str, content: bytes, format_: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is .*{format_}") as caught:
        open_image(tmp_path / name)
    assert "again" not in str(caught.value)


@pytest.mark.parametrize("name", ["slide.vsi", "renamed.tif"])
def test_the_overview_of_a_vsi_slide_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    path = write_tiff(tmp_path / name, PIXELS)
    if name == "slide.vsi":
        with pytest.raises(InputError, match="overview of an Olympus VSI"):
            open_image(path)  # whether or not its folder came along
    (tmp_path / f"_{path.stem}_" / "stack1").mkdir(parents=True)
    with pytest.raises(InputError, match=rf"overview of an Olympus VSI.*'_{path.stem}_' beside"):
        open_image(path)


@pytest.mark.parametrize("name", ["slide.mrxs", "renamed.jpg"])
def test_the_overview_of_a_mirax_slide_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Picture.fromarray(PIXELS).save(path, "JPEG")
    (tmp_path / path.stem).mkdir()
    (tmp_path / path.stem / "Slidedat.ini").write_text("[GENERAL]\n")
    with pytest.raises(InputError, match=rf"overview of a MIRAX.*'{path.stem}' beside"):
        open_image(path)


def test_folders_of_other_formats_are_named(tmp_path: Path) -> None:
    for name in ("mirax", "dicom", "_vsi_", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "mirax" / "Slidedat.ini").write_text("[GENERAL]\n")
    (tmp_path / "dicom" / "1.2.3").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "_vsi_" / "stack1").mkdir()
    for name, said in (
        ("mirax", "MIRAX"), ("dicom", "DICOM"), ("_vsi_", "VSI"), ("empty", "no `multiscales`"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            open_image(tmp_path / name)


def test_the_folder_of_a_real_dicom_slide_is_named(data: Path) -> None:
    folder = data / "wsi" / "cmu1_dicom"
    for path in (folder, next(folder.iterdir())):
        with pytest.raises(InputError, match="DICOM"):
            open_image(path)
