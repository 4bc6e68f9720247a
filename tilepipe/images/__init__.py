"""Large images of many formats behind one Protocol."""

from tilepipe.images.base import Image, Level, PixelSize
from tilepipe.images.opening import open_image
from tilepipe.images.windowed import check_bounded, read_with_valid

__all__ = ["Image", "Level", "PixelSize", "check_bounded", "open_image", "read_with_valid"]
