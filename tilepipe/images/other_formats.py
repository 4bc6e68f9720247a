"""Formats that are not read, and files that are only a part of one: refused by name.

A few of them are worse than unreadable: what is named by its user is a TIFF or a JPEG, and opens,
but holds only an overview of the slide that lies in the folder beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tilepipe.errors import InputError
from tilepipe.images.files import open_bytes
from tilepipe.storage import StoragePath, as_path, is_url

HEAD_BYTES = 512
"""Bytes of a file by which these are recognised."""

LOOKED_AT = 20
"""Files of a folder that are looked at."""

CONVERT = "convert it to OME-TIFF or OME-Zarr with QuPath or bioformats2raw"

_JP2 = b"\x00\x00\x00\x0cjP  "
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "a DICOM file"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file"),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file"),
    (0, b"OLYMPUSRAWFORMAT", "an Olympus OIR file"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Olympus OIB or Zeiss ZVI file"),
    (0, b"SIS\x00", "a part (ETS) of an Olympus VSI slide"),
    (0, b"[Virtual Microscope Specimen]", "a Hamamatsu VMS slide"),
    (0, b"[Uncompressed Virtual Microscope Specimen]", "a Hamamatsu VMU slide"),
)
"""Offset, bytes there, and what they are of."""

SUFFIXES = {
    ".czi": "a Zeiss CZI file",
    ".dcm": "a DICOM file",
    ".ets": "a part (ETS) of an Olympus VSI slide",
    ".ims": "an Imaris file",
    ".isyntax": "a Philips iSyntax slide",
    ".kfb": "a KFBio slide",
    ".lif": "a Leica LIF file",
    ".lof": "a Leica LOF file",
    ".mrxs": "a MIRAX slide",
    ".nd2": "a Nikon ND2 file",
    ".oib": "an Olympus OIB file",
    ".oif": "an Olympus OIF file",
    ".oir": "an Olympus OIR file",
    ".sdpc": "an SDPC slide",
    ".svslide": "a Sakura slide",
    ".vms": "a Hamamatsu VMS slide",
    ".vmu": "a Hamamatsu VMU slide",
    ".vsi": "an Olympus VSI slide",
    ".zvi": "a Zeiss ZVI file",
}
"""For what has no signature, or more than one."""

LISTS = {b"<ImageList": "SVS", b"[NanoZoomer Digital Pathology Image Set]": "NDPI"}
"""What is found in documents that name the files of a set (AFI, NDPIS), and of which kind."""

ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ")
"""ZIP, gzip, 7z, RAR, bzip2 and xz."""


def refuse_other(path: str, head: bytes) -> None:
    """Refuse a file of a format that is not read, or that is not the image that it belongs to.

    Parameters
    ----------
    path
        Of the file.
    head
        Its first `HEAD_BYTES`.

    Raises
    ------
    InputError
        Naming the format, and what to do.
    """
    where = as_path(path)
    _refuse_overview(path, where, head)
    if head.startswith(_TIFF):
        return
    for offset, signature, what in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            raise InputError(f"{path} is {what}, which tilepipe does not read; {CONVERT}")
    if head[:4] == b"\x70\x00\x00\x00" and head[8:9] == b"\x2a":
        raise InputError(f"{path} is a Leica LIF file, which tilepipe does not read; {CONVERT}")
    if b'ObjectType="DPUfsImport"' in head:
        raise InputError(
            f"{path} is a Philips iSyntax slide, which tilepipe does not read; export it as TIFF "
            "with Philips' own software, or convert it with isyntax2raw"
        )
    for text, one in (
        (b"<ImageList", "SVS"),
        (b"[NanoZoomer Digital Pathology Image Set]", "NDPI"),
    ):
        if text in head:
            raise InputError(
                f"{path} is a list of {one} files, one for each channel; give one of them"
            )
    if head.startswith(_JP2) and where.suffix.lower() == ".nd2":
        raise InputError(f"{path} is a Nikon ND2 file, which tilepipe does not read; {CONVERT}")


def name_other(path: str, head: bytes) -> None:
    """Say what a file is that no reader knows.

    Raises
    ------
    InputError
        Where its name or its content tells.
    """
    if head.startswith(ARCHIVES) or head[257:262] == b"ustar":
        raise InputError(f"{path} is an archive; unpack it, and give the image in it")
    if (what := SUFFIXES.get(as_path(path).suffix.lower())) is not None:
        raise InputError(f"{path} is {what}, which tilepipe does not read; {CONVERT}")


def refuse_folder(path: str, folder: StoragePath) -> None:
    """Refuse a folder that is a slide, or a part of one, of a format that is not read.

    Raises
    ------
    InputError
        Naming the format, and what to do.
    """
    if (folder / "Slidedat.ini").is_file():
        raise InputError(
            f"{path} holds the pixels of a MIRAX slide, which tilepipe does not read; {CONVERT}"
        )
    if (folder / "stack1").is_dir() and folder.name.startswith("_"):
        raise InputError(
            f"{path} holds the pixels of an Olympus VSI slide, which tilepipe does not read; "
            f"{CONVERT}"
        )
    for document in (".zarray", "zarr.json"):
        if _is_array(folder / document):
            raise InputError(
                f"{path} is a bare zarr array without OME-Zarr metadata; if it is one level of an "
                "image, give the folder above"
            )
    files: Iterator[StoragePath] = iter(folder.iterdir())
    for file in islice(files, LOOKED_AT):
        if file.is_file() and _reads(file, 128, b"DICM"):
            raise InputError(
                f"{path} is a folder of DICOM files, which tilepipe does not read; {CONVERT}"
            )


def _refuse_overview(path: str, where: StoragePath, head: bytes) -> None:
    """Refuse the small picture that stands for a slide in the folder beside it."""
    suffix, stem = where.suffix.lower(), where.name[: len(where.name) - len(where.suffix)]
    beside = not is_url(path)  # on an object store, to look for a folder is a request
    index = where.parent / stem / "Slidedat.ini"
    if head.startswith(_JPEG) and (suffix == ".mrxs" or (beside and index.is_file())):
        raise InputError(
            f"{path} is the overview of a MIRAX slide, whose pixels lie in the folder {stem!r} "
            f"beside it and which tilepipe does not read; {CONVERT}"
        )
    pixels = where.parent / f"_{stem}_"
    if head.startswith(_TIFF) and (suffix == ".vsi" or (beside and (pixels / "stack1").is_dir())):
        raise InputError(
            f"{path} is the overview of an Olympus VSI slide, whose pixels lie in the folder "
            f"{pixels.name!r} beside it and which tilepipe does not read; {CONVERT}"
        )


def _is_array(document: StoragePath) -> bool:
    if not document.is_file():
        return False
    return document.name == ".zarray" or b'"array"' in document.read_bytes()[: 2**20]


def _reads(file: StoragePath, offset: int, expected: bytes) -> bool:
    opened = open_bytes(file)
    try:
        return opened.read(offset, len(expected)) == expected
    except OSError:
        return False
    finally:
        opened.close()
