"""Slides as scanners write them, small: the structure and metadata by which readers know them."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture

from tests.making import make_image

HEIGHT, WIDTH = 700, 900
"""Of the scan: no multiples of its tiles."""

PIXEL_UM = 0.25


SUBSAMPLED = (
    "/0//UQAvAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAADBwEBBwIBBwIB/1IADAAAAAEABQQEAAH/XA"
    "ATQEBISFBISFBISFBISFBISFD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjD/kAAKAAAAAAF9"
    "AAH/k8fSCAM/w+MEBr/B8AQBf8PpBQfGBgBCBe8AA8HzAgQ/gMHzBIPmCA377h4MBx7noHwBAAuPwfMCAAkcwPjEQf"
    "MJgDhgIWu7zt3HvX8Az/NdaO5sXn0XuCHTtn+gOCADdcD4BAAXK93fwHwqwPjMQB1INJYw70A/9qwyjJjis6aFGvsY"
    "2GcRPmKigUhwkn7viML78OG2t5rASn2yvpSvFSHZf+QTidtMZVHQ6L6dJSk/oB0QKSD/f8B8AYAhcO/AO2kB8NpAC7"
    "MedrwQRfliwIQV9e3wTDcwRwBzaKQxQfxcGGhOG9S795fCyqb3Gj7Ib3U7FHU+g68T+8gZnZao+SYOcDP39jootXt3"
    "cab/Z7fuFdylsg0yDO/QSKz3XBTkprpAcp95bhsewkLZTURWLxUMODKq2YLF1/GDA69g38UwC6ygrSaNy8yqT/wg7M"
    "8ayuN/dIduJBf/MfO5yPmPQPkxf6AIwIQgH8A4QDX1dl//2Q=="
)
"""32 x 32 pixels, half the chroma along x: of opj_compress -F 32,32,3,8,u@1x1:2x1:2x1 -mct 0."""


def scan() -> NDArray[np.uint8]:
    """Blobs in colours, smooth enough that JPEG keeps what they are; shape (700, 900, 3)."""
    return smooth(make_image(HEIGHT, WIDTH, 3))


def smooth(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of 3 x 3."""
    padded = np.pad(pixels.astype(np.uint16), ((1, 1), (1, 1), (0, 0)), mode="edge")
    total = sum(
        padded[y : y + pixels.shape[0], x : x + pixels.shape[1]] for y in range(3) for x in range(3)
    )
    return np.asarray(total // 9).astype(np.uint8)


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The next level: the mean of 2 x 2, its size rounded down as scanners do."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    fours = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return fours.mean((1, 3)).round().astype(np.uint8)


@dataclass
class Page:
    """A directory of a TIFF."""

    pixels: NDArray[Any]
    tile: tuple[int, int] | None = (256, 256)
    compression: str | int = "jpeg"
    photometric: str = "rgb"
    subfiletype: int = 0
    tags: list[tuple[int, str, int, Any, bool]] = field(default_factory=list)
    description: str | bytes = ""
    software: str = ""
    resolution_um: float | None = None
    resolution: float | None = None
    """As it is, where it is no standard one."""
    encode: Callable[[NDArray[Any]], bytes] | None = None
    """Of a tile; tifffile's own where it is left out."""


def write_pages(path: Path, pages: list[Page], *, big: bool = False) -> Path:
    """A TIFF of these pages, in order, and nothing that they do not say."""
    with tifffile.TiffWriter(path, bigtiff=big) as writer:
        for page in pages:
            options: dict[str, Any] = {
                "tile": page.tile,
                "compression": page.compression,
                "photometric": page.photometric,
                "subfiletype": page.subfiletype,
                "extratags": page.tags,
                "description": page.description or None,
                "software": page.software or False,
                "metadata": None,
                "contiguous": False,
            }
            if page.compression == "jpeg":
                options["compressionargs"] = {"level": 95}
            if page.resolution_um is not None:
                options["resolution"] = (1e4 / page.resolution_um,) * 2
                options["resolutionunit"] = "CENTIMETER"
            if page.resolution is not None:
                options["resolution"] = (page.resolution,) * 2
                options["resolutionunit"] = "INCH"
            if page.tile is None:
                options["rowsperstrip"] = page.pixels.shape[0]
            if page.encode is None:
                writer.write(page.pixels, **options)
            else:
                encoded = (page.encode(tile) for tile in tiles_of(page.pixels, page.tile))
                writer.write(encoded, shape=page.pixels.shape, dtype=page.pixels.dtype, **options)
    return path


def tiles_of(pixels: NDArray[Any], tile: tuple[int, int] | None) -> Iterator[NDArray[Any]]:
    """The tiles of an image, those at its borders padded with zeros."""
    assert tile is not None
    rows, columns = tile
    for y in range(0, pixels.shape[0], rows):
        for x in range(0, pixels.shape[1], columns):
            part = pixels[y : y + rows, x : x + columns]
            pad = ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0))
            yield np.ascontiguousarray(np.pad(part, pad))


def jpeg2000(tile: NDArray[Any]) -> bytes:
    """A lossless codestream, without a transform of its colours."""
    encoded = imagecodecs.jpeg2k_encode(
        tile, level=0, reversible=True, mct=False, codecformat="j2k"
    )
    return bytes(encoded)


def ycbcr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB as YCbCr of 8 bits (JFIF)."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    values = np.stack((y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128), -1)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def pyramid(pixels: NDArray[np.uint8], levels: int = 3) -> list[NDArray[np.uint8]]:
    """The image and its halves."""
    found = [pixels]
    while len(found) < levels:
        found.append(halved(found[-1]))
    return found


def aperio(path: Path, compression: str | int = "jpeg") -> Path:
    """SVS: the scan, a thumbnail, coarser levels, label and macro."""
    levels = pyramid(scan())
    text = (
        f"Aperio Image Library v11.2.1 \r\n{WIDTH}x{HEIGHT} (240x240)|AppMag = 40|MPP = {PIXEL_UM}"
    )
    wanted: dict[str, Any] = {"tile": (240, 240), "compression": compression, "description": text}
    if compression in (33003, 33005):
        wanted["encode"] = jpeg2000
    kept = [ycbcr(level) if compression == 33003 else level for level in levels]
    grey = np.full((300, 200, 3), 200, np.uint8)
    return write_pages(
        path,
        [
            Page(kept[0], **wanted),
            Page(levels[2], tile=None, description=text),
            *(Page(level, **wanted) for level in kept[1:]),
            Page(grey, tile=None, description="Aperio label", subfiletype=1),
            Page(grey[:200], tile=None, description="Aperio macro", subfiletype=9),
        ],
    )


def subsampled(path: Path) -> Path:
    """SVS of one tile, JPEG 2000 of YCbCr with half the chroma along x, as Aperio writes it."""
    chroma = Page(
        np.zeros((32, 32, 3), np.uint8),
        tile=(32, 32),
        compression=33003,
        description=f"Aperio Image Library|MPP = {PIXEL_UM}",
        encode=lambda _: base64.b64decode(SUBSAMPLED),
    )
    return write_pages(path, [chroma])


def generic(path: Path, compression: str = "jpeg", photometric: str = "rgb") -> Path:
    """A tiled pyramid of no maker's."""
    levels = pyramid(scan())
    if photometric == "ycbcr":
        levels = [ycbcr(level) for level in levels]
    return write_pages(
        path,
        [
            Page(
                level,
                compression=compression,
                photometric=photometric,
                subfiletype=int(number > 0),
                resolution_um=PIXEL_UM * 2**number,
            )
            for number, level in enumerate(levels)
        ],
    )


def leica(path: Path) -> Path:
    """SCN: a macro of the whole glass first, then the scan and its levels."""
    levels = pyramid(scan())
    macro = np.full((300, 128, 3), 230, np.uint8)
    sizes = [(macro, 16.0), (levels[0], PIXEL_UM)]
    (macro_y, macro_x), (scan_y, scan_x) = (
        tuple(round(side * um * 1000) for side in pixels.shape[:2]) for pixels, um in sizes
    )
    dimensions = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{r}" ifd="{r + 1}"/>'
        for r, level in enumerate(levels)
    )
    lens = (
        "<scanSettings><objectiveSettings><objective>{}</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings>"
    )
    device = '<device model="Leica SCN400;Leica SCN" version="1.4"/>'
    space = "http://www.leica-microsystems.com/scn/2010/10/01"
    xml = (
        f'<?xml version="1.0"?><scn xmlns="{space}" uuid="urn:uuid:1"><collection name="c" '
        f'uuid="urn:uuid:2" sizeX="{macro_x}" sizeY="{macro_y}"><image name="macro" '
        f'uuid="urn:uuid:3">{device}<pixels sizeX="128" sizeY="300"><dimension sizeX="128" '
        f'sizeY="300" r="0" ifd="0"/></pixels><view sizeX="{macro_x}" sizeY="{macro_y}" '
        f'offsetX="0" offsetY="0" spacingZ="0"/>{lens.format(0.6)}</image><image name="scan" '
        f'uuid="urn:uuid:4">{device}<pixels sizeX="{WIDTH}" sizeY="{HEIGHT}">{dimensions}'
        f'</pixels><view sizeX="{scan_x}" sizeY="{scan_y}" offsetX="100000" offsetY="100000" '
        f'spacingZ="0"/>{lens.format(40)}</image></collection></scn>'
    )
    return write_pages(
        path,
        [
            Page(macro, tile=(128, 128), description=xml),
            *(Page(level, resolution_um=PIXEL_UM * 2**r) for r, level in enumerate(levels)),
        ],
        big=True,
    )


def philips(path: Path) -> Path:
    """Philips TIFF: every level is padded to whole tiles, and only its XML has the real scale."""
    tile = 128
    levels = pyramid(scan(), 4)
    rows, columns = (-(-side // tile) * tile for side in levels[0].shape[:2])
    full = np.full((rows, columns, 3), 255, np.uint8)
    full[:HEIGHT, :WIDTH] = levels[0]
    padded = []
    for level in pyramid(full, 4):
        height, width = (-(-side // tile) * tile for side in level.shape[:2])
        page = np.full((height, width, 3), 255, np.uint8)
        page[: level.shape[0], : level.shape[1]] = level
        padded.append(page)
    spacing = "".join(
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" '
        'Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">&quot;{0}&quot; &quot;{0}&quot;'
        '</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" Group="0x301D" '
        'Element="0x1065" PMSVR="IUInt16">{1}</Attribute></DataObject>'.format(
            PIXEL_UM / 1000 * 2**number, number
        )
        for number in range(len(padded))
    )
    whole = (
        '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">&quot;{0}&quot; &quot;{0}&quot;</Attribute>'.format(PIXEL_UM / 1000)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport"><Attribute '
        'Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" '
        'PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage"><Attribute '
        'Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
        f"{whole}"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        f'Element="0x8B01" PMSVR="IDataObjectArray"><Array>{spacing}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    return write_pages(
        path,
        [
            Page(
                page,
                tile=(tile, tile),
                subfiletype=int(number > 0),
                description=xml if number == 0 else f"level={number}",
                software="Philips DP v1.0",
            )
            for number, page in enumerate(padded)
        ],
        big=True,
    )


def ventana(path: Path, overlap: int = 0, joints: bool = True) -> Path:
    """BIF: tiles in a serpentine from the bottom left, which are to be joined as its XML says."""
    side, rows, columns = 256, 2, 3
    slide = scan()[: rows * side, : columns * side]
    joined = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="RIGHT" '
        f'Tile1="{_serpentine(row, column, columns)}" '
        f'Tile2="{_serpentine(row, column + 1, columns)}" OverlapX="{overlap}" OverlapY="0"/>'
        for row in range(rows)
        for column in range(columns - 1)
    ) + "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="UP" '
        f'Tile1="{_serpentine(0, column, columns)}" Tile2="{_serpentine(1, column, columns)}" '
        'OverlapX="0" OverlapY="0"/>'
        for column in range(columns)
    )
    scanner = f'<iScan Magnification="40" ScanRes="{PIXEL_UM}" UnitNumber="1"/>'
    xmp = (
        f'<?xml version="1.0"?><EncodeInfo Ver="2"><SlideInfo>{scanner}</SlideInfo>'
        f'<SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{rows}" '
        f'NumCols="{columns}" Width="{side}" Height="{side}" Pos-X="0" Pos-Y="0">{joined}'
        '</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin>'
        "</EncodeInfo>"
    )
    first = f'<?xml version="1.0"?><Metadata>{scanner}</Metadata>'
    label = np.full((300, 100, 3), 220, np.uint8)
    return write_pages(
        path,
        [
            Page(
                label,
                tile=None,
                description="Label Image",
                software="ScanOutputManager 1.1.0.15854",
                tags=[_bytes(700, first)],
            ),
            Page(
                slide,
                description="level=0 mag=40 quality=95",
                tags=[_bytes(700, xmp)] if joints else [],
            ),
            Page(halved(slide), description="level=1 mag=20 quality=95"),
        ],
        big=True,
    )


def hamamatsu(path: Path) -> Path:
    """NDPI: a strip of JPEG for each level, and offsets of 64 bits in a classic TIFF."""
    pages = []
    whole = scan()[: HEIGHT // 32 * 32, : WIDTH // 32 * 32]  # whole blocks, down to level 2
    for number, level in enumerate(pyramid(whole)):
        stream = io.BytesIO()
        # An interval for each row of its 8 x 8 blocks: readers find their way by these.
        columns = level.shape[1] // 8
        options = {"quality": 95, "subsampling": 0, "restart_marker_blocks": columns}
        Picture.fromarray(level).save(stream, "JPEG", **options)
        height, width = level.shape[:2]
        per_cm = round(1e4 / (PIXEL_UM * 2**number))
        pages.append(
            (
                stream.getvalue(),
                {
                    256: ("I", [width]),
                    257: ("I", [height]),
                    258: ("H", [8, 8, 8]),
                    259: ("H", [7]),
                    262: ("H", [6]),
                    271: ("s", b"Hamamatsu\0"),
                    272: ("s", b"NanoZoomer\0"),
                    277: ("H", [3]),
                    278: ("I", [height]),
                    282: ("R", [per_cm, 1]),
                    283: ("R", [per_cm, 1]),
                    284: ("H", [1]),
                    296: ("H", [3]),
                    65420: ("I", [1]),
                    65421: ("f", [40.0 / 2**number]),
                    65422: ("i", [0]),
                    65423: ("i", [0]),
                    65424: ("i", [0]),
                },
            )
        )
    path.write_bytes(_ndpi(pages))
    return path


def _ndpi(pages: list[tuple[bytes, dict[int, tuple[str, Any]]]]) -> bytes:
    kinds = {"s": 2, "H": 3, "I": 4, "R": 5, "i": 9, "f": 11}
    data = bytearray(b"II*\0" + bytes(8))
    link = 4
    for strip, tags in pages:
        tags = {**tags, 273: ("I", [len(data)]), 279: ("I", [len(strip)])}
        data += strip + bytes(len(strip) % 2)
        values = {}
        for code, (letter, value) in tags.items():
            count = len(value) // (2 if letter == "R" else 1)
            packed = value if letter == "s" else _packed(letter, value)
            if len(packed) > 4:
                values[code] = count, struct.pack("<I", len(data))
                data += packed + bytes(len(packed) % 2)
            else:
                values[code] = count, packed.ljust(4, b"\0")
        struct.pack_into("<Q", data, link, len(data))
        data += struct.pack("<H", len(tags))
        for code in sorted(tags):
            count, value = values[code]
            data += struct.pack("<HHI", code, kinds[tags[code][0]], count) + value
        link = len(data)
        # The next directory, and the upper halves of all values.
        data += bytes(8 + 4 * len(tags))
    return bytes(data)


def _packed(letter: str, values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}{'I' if letter == 'R' else letter}", *values)


def trestle(path: Path, overlap: int = 0) -> Path:
    """Trestle: tiles that may overlap, and micrometres per pixel where TIFF has pixels per unit."""
    levels = pyramid(scan())
    overlaps = " ".join(f"{overlap} {overlap}" for _ in levels)
    text = f"Background Color: 0xE6E6E6;White Balance: 1;Objective Power: 40;OverlapsXY: {overlaps}"
    return write_pages(
        path,
        [
            Page(level, description=text, software="MedScan", resolution=PIXEL_UM * 2**number)
            for number, level in enumerate(levels)
        ],
    )


def _serpentine(row: int, column: int, columns: int) -> int:
    """Ventana's number of a tile: left to right and back again."""
    return row * columns + (column if row % 2 == 0 else columns - 1 - column) + 1


def _bytes(code: int, text: str) -> tuple[int, str, int, bytes, bool]:
    data = text.encode()
    return code, "B", len(data), data, True
