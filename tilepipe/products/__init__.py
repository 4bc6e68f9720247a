"""The mask: its zarr array and pyramid, and one file for each format it is exported to."""

from tilepipe.products.base import NO_ANSWER, Mask, MaskClass, MaskSpec
from tilepipe.products.formats import export, open_mask, suffix_kind

__all__ = [
    "NO_ANSWER",
    "Mask",
    "MaskClass",
    "MaskSpec",
    "export",
    "open_mask",
    "suffix_kind",
]
