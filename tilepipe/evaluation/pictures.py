"""Where pictures of the errors go, and which image each shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.evaluation.errors_picture import write_differences, write_errors
from tilepipe.evaluation.pairs import Pair
from tilepipe.evaluation.passes import Seen
from tilepipe.storage import local, written_here


class Pictures:
    """Where pictures of the errors go, and which image each shows; checked before any work."""

    def __init__(
        self, pairs: list[Pair], plot: str | Path | None, image: str | Path | None
    ) -> None:
        self._plots: dict[Pair, Path] = {}
        self._images: dict[Pair, Path] = {}
        if plot is None:
            if image is not None:
                raise InputError(f"--image {image} is only shown by --plot; say where that goes")
            return
        plot = written_here(plot)
        if len(pairs) == 1:
            self._plots[pairs[0]] = plot / f"{pairs[0].name}.png" if plot.is_dir() else plot
            if self._plots[pairs[0]].suffix.lower() != ".png":
                raise InputError(f"--plot {plot}: is no .png; name one")
        elif plot.suffix.lower() == ".png" or plot.is_file():
            raise InputError(f"--plot {plot}: there are {len(pairs)} pairs; name a folder for them")
        else:
            self._plots = {pair: plot / f"{pair.name}.png" for pair in pairs}
        if image is not None:
            self._images = _find_images(pairs, local(image))

    def draw_errors(self, seen: Seen, tables: list[tuple[Any, Any]]) -> None:
        """Draw where a mask is right and wrong."""
        if seen.pair in self._plots and seen.sample is not None:
            path = self._path(seen)
            write_errors(seen.sample, tables, path, self._images.get(seen.pair))

    def draw_differences(self, seen: Seen) -> None:
        """Draw by how much values differ."""
        if seen.pair in self._plots and seen.sample is not None:
            write_differences(seen.sample, self._path(seen))

    def _path(self, seen: Seen) -> Path:
        path = self._plots[seen.pair]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--plot {path.parent} cannot be made ({error.strerror}); choose another folder"
            ) from error
        return path


def _find_images(pairs: list[Pair], image: Path) -> dict[Pair, Path]:
    if not image.exists():
        raise InputError(f"--image {image} does not exist; check the path")
    if (len(pairs) == 1 and not image.is_dir()) or image.suffix.lower() == ".zarr":
        return {pairs[0]: image}
    if not image.is_dir():
        raise InputError(f"--image {image}: there are {len(pairs)} pairs; give a folder of images")
    found = {}
    for pair in pairs:
        files = [p for p in sorted(image.iterdir()) if p.name.split(".")[0] == pair.name]
        if not files:
            raise InputError(f"--image {image} holds no image named {pair.name}; add it")
        found[pair] = files[0]
    return found
