"""Products of a run, the zarr mask that holds them, and the formats of exports."""

from tilepipe.products.base import NO_ANSWER, Mask, MaskClass, MaskSpec
from tilepipe.products.formats import export, open_mask, suffix_kind

__all__ = ["NO_ANSWER", "Mask", "MaskClass", "MaskSpec", "export", "open_mask", "suffix_kind"]
