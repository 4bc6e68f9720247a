"""The place of a label within an OME-Zarr image: ``IMAGE.ome.zarr/labels/NAME``."""

from __future__ import annotations

from dataclasses import dataclass

from tilepipe.storage import StoragePath

FOLDER = "labels"
"""The group of all labels within that of the image."""


@dataclass(frozen=True, slots=True)
class LabelPath:
    """Where a label lies."""

    image: StoragePath
    """The group of the image."""
    name: str

    @property
    def path(self) -> StoragePath:
        """The group of the label."""
        return self.image / FOLDER / self.name

    @property
    def beside(self) -> StoragePath:
        """A path beside the image, with a name of its own, for what the image must not contain."""
        parts = [self.image]
        while any(parent.name.endswith(".zarr") for parent in parts[0].parents):
            parts.insert(0, parts[0].parent)
        stem = parts[0].name.removesuffix(".zarr").removesuffix(".ome")
        names = (stem, *(part.name for part in parts[1:]), FOLDER, self.name)
        return parts[0].with_name("_".join(names))


def label_path(path: StoragePath) -> LabelPath | None:
    """The place of a label, if a path is one; None for all other paths."""
    image = path.parent.parent
    inside = any(folder.name.endswith(".zarr") for folder in (image, *image.parents))
    return LabelPath(image, path.name) if inside and path.parent.name == FOLDER else None
