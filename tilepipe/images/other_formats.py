"""Formats that are not read: refused by name, with the way to convert them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tilepipe.errors import InputError
from tilepipe.images.byte_ranges import open_bytes
from tilepipe.images.probe import Probe
from tilepipe.images.source import Source
from tilepipe.storage import StoragePath

LOOKED_AT = 20
"""Files of a folder that are looked at."""

CONVERT = "convert it to OME-TIFF or OME-Zarr with QuPath or bioformats2raw"

_JP2 = b"\x00\x00\x00\x0cjP  "

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


def recognises(probe: Probe) -> bool:
    """Tell whether a file is of a format that is named here."""
    return _refusal(probe) is not None


def open_source(probe: Probe) -> Source:
    """Refuse it, naming the format and what to do."""
    raise InputError(f"{probe.path} is {_refusal(probe)}")


def _refusal(probe: Probe) -> str | None:
    head = probe.head
    for offset, signature, what in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return f"{what}, which tilepipe does not read; {CONVERT}"
    if head[:4] == b"\x70\x00\x00\x00" and head[8:9] == b"\x2a":
        return f"a Leica LIF file, which tilepipe does not read; {CONVERT}"
    if head.startswith(_JP2) and probe.suffix == ".nd2":
        return f"a Nikon ND2 file, which tilepipe does not read; {CONVERT}"
    if b'ObjectType="DPUfsImport"' in head:
        return (
            "a Philips iSyntax slide, which tilepipe does not read; export it as TIFF with "
            "Philips' own software, or convert it with isyntax2raw"
        )
    for text, one in LISTS.items():
        if text in head:
            return f"a list of {one} files, one for each channel; give one of them"
    return None


def name_other(probe: Probe) -> None:
    """Name the format of a file that no reader could open.

    Raises
    ------
    InputError
        Where the file's name or content tells its format.
    """
    if probe.head.startswith(ARCHIVES) or probe.head[257:262] == b"ustar":
        raise InputError(f"{probe.path} is an archive; unpack it, and give the image in it")
    if (what := SUFFIXES.get(probe.suffix)) is not None:
        raise InputError(f"{probe.path} is {what}, which tilepipe does not read; {CONVERT}")


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
