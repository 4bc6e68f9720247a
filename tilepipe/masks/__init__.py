"""The mask: its zarr array and pyramid, and one file for each format it is exported to."""

from tilepipe.masks.base import NO_ANSWER, Mask, MaskClass, MaskSpec
from tilepipe.masks.formats import export, open_mask, suffix_kind

__all__ = [
    "NO_ANSWER",
    "Mask",
    "MaskClass",
    "MaskSpec",
    "export",
    "open_mask",
    "suffix_kind",
]
