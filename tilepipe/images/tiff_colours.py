"""What the samples of a TIFF stand for: palettes, alpha, YCbCr, and colours that are refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError

ALPHA = frozenset({1, 2})
"""Values of ExtraSamples: associated and unassociated alpha."""

WHITE_IS_ZERO, PALETTE, INKS, YCBCR = 0, 3, 5, 6
"""Values of PhotometricInterpretation."""

OTHER_COLOURS = {
    INKS: "inks (CMYK)",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "the raw pattern of a camera",
    32844: "CIE Log2(L)",
    32845: "CIE Log2(L) (u', v')",
}
"""Values of PhotometricInterpretation that are refused: read as they are, they are no colours."""

APERIO_YCBCR = 33003
"""Aperio's JPEG 2000 of YCbCr, which neither the codestream nor the tags say; 33005 is RGB."""

ONLY_NUMBERS = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
"""Compressions that know nothing of colours: none, LZW, Deflate, PackBits, LZMA, Zstandard."""


def check_colours(path: str, keyframe: Any) -> None:
    """Refuse colours that would be taken for others.

    Raises
    ------
    InputError
        They are neither grey, RGB, a palette, nor YCbCr that can be made RGB.
    """
    if (name := OTHER_COLOURS.get(int(keyframe.photometric))) is not None:
        raise InputError(f"{path} holds its colours as {name}; save it as RGB")
    if keyframe.photometric != YCBCR or int(keyframe.compression) not in ONLY_NUMBERS:
        return
    coefficients = _ratios(keyframe, "YCbCrCoefficients")
    reference = _ratios(keyframe, "ReferenceBlackWhite")
    full = reference in ([], [0, 255, 128, 255, 128, 255])
    usual = coefficients == [] or np.allclose(coefficients, (0.299, 0.587, 0.114), atol=1e-3)
    if keyframe.is_subsampled or not (full and usual) or keyframe.dtype != np.uint8:
        raise InputError(
            f"{path} holds its colours as a kind of YCbCr that tilepipe does not read; save it as "
            "RGB"
        )


def notes_on_colours(keyframe: Any) -> tuple[str, ...]:
    """What its PhotometricInterpretation says that is not applied."""
    if keyframe.photometric == WHITE_IS_ZERO and keyframe.dtype != np.bool_:
        return ("its values are inverted for display (WhiteIsZero), and are read as stored",)
    return ()


def holds_ycbcr(keyframe: Any, *, aperio: bool) -> bool:
    """Whether decoded segments may be YCbCr, which `to_rgb` makes RGB.

    ``aperio`` says that the file is one of Aperio's: others (Bio-Formats, for one) write RGB under
    the same number of compression.
    """
    if keyframe.samplesperpixel < 3 or keyframe.planarconfig == 2:
        return False
    compression = int(keyframe.compression)
    if aperio and compression == APERIO_YCBCR:
        return bool(keyframe.dtype == np.uint8)
    return bool(keyframe.photometric == YCBCR and compression in ONLY_NUMBERS)


def to_rgb(samples: NDArray[np.uint8], data: bytes) -> NDArray[np.uint8]:
    """YCbCr as RGB (JFIF: all 8 bits, BT.601).

    Parameters
    ----------
    samples
        Decoded, shape (..., bands); only the first three bands are colours.
    data
        What they were decoded from: OpenJPEG makes RGB itself of chroma that is subsampled.
    """
    if _subsampled(data):
        return samples
    y, blue, red = (samples[..., band].astype(np.float32) for band in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack((y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue), -1)
    result = samples.copy()
    result[..., :3] = np.rint(rgb).clip(0, 255)
    return result


def _subsampled(data: bytes) -> bool:
    """Whether some component of a JPEG 2000 codestream is coarser than its grid."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(data) < start + 42:
        return False
    (count,) = struct.unpack_from(">H", data, start + 40)
    # ISO 15444-1, A.5.1: for each component its precision, and the steps along x and y.
    steps = data[start + 42 : start + 42 + 3 * count]
    return any(steps[place] > 1 for place in range(len(steps)) if place % 3)


def has_alpha(keyframe: Any) -> bool:
    """Whether the last sample of a page is alpha."""
    return bool(keyframe.extrasamples) and int(keyframe.extrasamples[-1]) in ALPHA


def palette_of(keyframe: Any) -> NDArray[Any] | None:
    """The colours of a palette image, shape (entries, 3); None where there are none."""
    if keyframe.photometric != PALETTE or keyframe.colormap is None:
        return None
    colours: NDArray[Any] = np.ascontiguousarray(keyframe.colormap.T)
    # TIFF 6.0 wants 16 bits; some writers put 8 in.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _ratios(keyframe: Any, tag: str) -> list[float]:
    values = keyframe.tags.valueof(tag) or ()
    pairs = zip(values[::2], values[1::2], strict=True)
    return [numerator / denominator if denominator else 0.0 for numerator, denominator in pairs]
