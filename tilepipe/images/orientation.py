"""The orientation that TIFF and EXIF tags ask viewers for; it is named and not applied.

Pixels are read as they are stored, as GDAL (and so QGIS), Bio-Formats (QuPath, Fiji, OMERO), Pillow
and tifffile (napari) read them: the mask then lies over the image in all of these.
"""

from __future__ import annotations

TAG = 274
"""Of TIFF 6.0 and of EXIF."""

UPRIGHT = 1

_NAMES = {
    2: "mirrored left to right",
    3: "rotated by 180 degrees",
    4: "mirrored top to bottom",
    5: "transposed",
    6: "rotated by 90 degrees clockwise",
    7: "transposed along the other diagonal",
    8: "rotated by 90 degrees counterclockwise",
}


def orientation_notes(value: object) -> tuple[str, ...]:
    """Note an orientation tag, as a number or text, other than that of the stored pixels."""
    name = next((name for number, name in _NAMES.items() if str(value) == str(number)), None)
    if name is None:
        return ()
    return (
        f"its orientation tag ({value}) stands for {name}; it is read as stored, and the mask has "
        "the same rows and columns",
    )
