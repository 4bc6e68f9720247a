"""A mask of any format, written again in any format: streamed, complete or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import CHUNK, Window, WindowGrid, round_down
from tilepipe.images.base import Image
from tilepipe.products.base import NO_ANSWER, Mask, MaskSpec
from tilepipe.products.class_table import ClassTable
from tilepipe.products.formats import export, suffix_kind
from tilepipe.products.label_image import LabelImage
from tilepipe.products.mask_file import MaskFile
from tilepipe.products.pyramid import downsample_block, pyramid_blocks
from tilepipe.products.store import ZarrMask, create_mask
from tilepipe.storage import StoragePath, complete_or_absent, staged_locally
from tilepipe.storage.whole import temporary_folder
from tilepipe.text import count, first_line

MEMORY_SHARE = 16
"""Pixels that are copied at a time take one of so many parts of the memory; what is made of them,
and what readers hold, takes the rest."""

LARGEST_STEP_ROWS = 4096
"""Rows copied in one step, so that progress is seen."""

Progress = Callable[[int, int], None]
"""Called with the steps that are done, and all of them."""


def spec_of(mask: Mask, table: ClassTable | None, *, partial: bool = False) -> MaskSpec:
    """The description with which a mask is written again.

    Parameters
    ----------
    mask
        The mask.
    table
        Its classes; None: those that it names itself.
    partial
        Whether it is of an unfinished run.

    Raises
    ------
    InputError
        It does not name its classes, and no table does; or the table is of another number.
    """
    said = mask.spec if isinstance(mask, MaskFile | ZarrMask) else None
    if table is None:
        if said is None or not names_classes(mask):
            raise InputError(
                f"{mask.path} does not say what its labels mean; give their names, such as "
                "--classes 0=background,1=nucleus, or a model of these classes (--model NAME)"
            )
        table = ClassTable(said.classes, said.background)
    elif mask.kind != "labels":
        table = table._replace(background=None)
    grid = mask.grid
    if grid.pixel_size is not None and not grid.pixel_size.is_sound:
        raise InputError(
            f"{mask.path} has a pixel size of {grid.pixel_size.x:g} x {grid.pixel_size.y:g} "
            f"{grid.pixel_size.unit}, so its metadata are damaged; copy it again"
        )
    if mask.kind != "labels" and len(table.classes) != mask.planes:
        raise InputError(
            f"{mask.path} has {count(mask.planes, 'plane')}, and there are "
            f"{len(table.classes)} classes; give a class for each plane (--classes)"
        )
    name = Path(mask.path.name).stem.removesuffix(".ome") if said is None else said.name
    partial = partial or (said is not None and said.partial)
    try:
        return MaskSpec(
            *mask.shape, mask.kind, table.classes, grid.pixel_size, grid.crs, grid.transform,
            grid.origin, name, table.background, grid.control, partial,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{mask.path} cannot be a mask: {first_line(error)}") from error


def names_classes(mask: Mask) -> bool:
    """Whether a mask names its classes, and does not only number them."""
    if mask.classes is None or is_ours(mask):
        return mask.classes is not None
    return not all(c.name.isdecimal() for c in mask.classes)


def declares_gaps(mask: Mask) -> bool:
    """Whether a file by another program says which of its pixels have no answer."""
    return isinstance(mask, MaskFile | LabelImage) and mask.declares_gaps


def is_ours(mask: Mask) -> bool:
    """Whether tilepipe wrote a mask, so that 255 in it certainly is "no answer"."""
    if isinstance(mask, ZarrMask):
        return mask.ours
    return isinstance(mask, MaskFile) and mask.spec is not None


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a mask becomes, and what may be spent on it."""

    spec: MaskSpec
    binary: bool = False
    """Whether every value but 0 is one class, 1."""
    whole: bool = False
    """Whether the mask is a complete `ZarrMask` that `spec` describes, pyramid included."""
    image: Image | None = None
    """What a picture of the mask is drawn on; None: on blank paper."""
    memory: int = 2**30
    """Bytes that pixels may take."""
    progress: Progress | None = None


def rewrite(mask: Mask, target: StoragePath, how: Rewriting) -> None:
    """Write a mask in the format of the suffix of ``target``.

    Pixels are copied as they are, products beside the mask too where the target can hold them; the
    pyramid is made anew. A file is made from a temporary OME-Zarr beside it, unless the mask is
    one already. What is there is replaced once the new mask is complete.

    Raises
    ------
    InputError
        The mask holds a label that is none of its classes; or planes that are not 0 and 1.
    UnreadableError
        Part of the mask cannot be decoded.
    OSError
        The target cannot be written, because the disk is full for example.
    """
    with staged_locally(target) as local:
        if suffix_kind(target) == "ome-zarr":
            with complete_or_absent(local) as part:
                _Copy(mask, part, how, later=0).run()
        elif how.whole and isinstance(mask, ZarrMask):
            export(mask, local, how.image)
            _advance(how.progress, 1, 1)
        else:
            with temporary_folder(local, ".mask.part") as folder:
                copy = _Copy(mask, folder, how, later=1)
                export(copy.run(), local, how.image)
                copy.advance()


@dataclass(slots=True)
class _Copy:
    """A mask being copied into an OME-Zarr, with a pyramid."""

    mask: Mask
    folder: Path
    how: Rewriting
    later: int
    """Steps of the rewriting that come after the copy."""
    found: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))
    """Which labels the mask holds."""
    done: int = 0
    total: int = 0

    def run(self) -> ZarrMask:
        if self.how.binary and declares_gaps(self.mask):
            raise InputError(
                f"{self.mask.path} says which of its pixels have no answer, which --binary would "
                "make a class; leave it out"
            )
        extras = self.mask.extras if isinstance(self.mask, ZarrMask) else ()
        result = create_mask(self.folder, self.how.spec, extras)
        steps = list(self._steps())
        units = pyramid_blocks(result)
        self.total = len(steps) + sum(map(len, units.values())) + self.later
        answered = []
        for window in steps:
            pixels = self._read(window)
            if not result.spec.product.unanswered(pixels[0]).all():
                answered.append(window)
                result.write(window, *pixels)
            self.advance()
        self._check_found()
        computed = pyramid_blocks(result, answered)
        for level, windows in units.items():
            for window in windows:
                if window in computed[level]:
                    downsample_block(result, level, window)
                self.advance()
        for level in range(len(result.levels)):
            result.flush(level=level)  # before it takes its name
        return result

    def advance(self) -> None:
        self.done += 1
        _advance(self.how.progress, self.done, self.total)

    def _steps(self) -> Iterator[Window]:
        """Windows of whole chunks, as wide as memory allows: a strip is then decoded once."""
        height, width = self.mask.shape
        pixel = max(1, self.mask.planes * self.mask.dtype.itemsize) * 4
        if isinstance(self.mask, ZarrMask):
            pixel = sum(
                4 * layer.planes * layer.product.dtype.itemsize for layer in self.mask.layers
            )
        budget = self.how.memory // MEMORY_SHARE // pixel
        columns = max(CHUNK, min(round_down(budget // CHUNK, CHUNK), width))
        rows = max(CHUNK, min(round_down(budget // columns, CHUNK), LARGEST_STEP_ROWS))
        yield from WindowGrid(Window(0, 0, height, width), (rows, columns))

    def _read(self, window: Window) -> Sequence[NDArray[Any]]:
        """The pixels of the mask, and of the products beside it."""
        if isinstance(self.mask, ZarrMask):
            main, *others = (layer.read(window) for layer in self.mask.layers)
        else:
            main, others = self.mask.read(window), []
        if not self.how.spec.product.has_classes:
            return [main, *others]
        if self.how.binary:
            main = np.asarray(main != 0, np.uint8)
        self._check(main, window)
        return [main, *others]

    def _check(self, pixels: NDArray[np.uint8], window: Window) -> None:
        """Refuse labels that are no classes, and planes that hold more than 0 and 1."""
        counts = np.bincount(pixels.ravel(), minlength=256)
        self.found |= counts > 0
        flat = self.how.spec.product.flat
        known = len(self.how.spec.classes) if flat else 2
        beyond = np.flatnonzero(counts[known:NO_ANSWER]) + known
        if not beyond.size:
            return
        label = int(beyond[0])
        *_, row, column = np.argwhere(pixels == label)[0]
        where = f"at row {window.y + row:,}, column {window.x + column:,}"
        if flat:
            raise InputError(
                f"{self.mask.path} holds the label {label} {where}, and the classes end with "
                f"{known - 1}; add it to them (--classes)"
            )
        raise InputError(
            f"{self.mask.path} holds {label} in one of its {self.mask.planes} planes {where}, and "
            "planes of a mask hold 0 and 1; if every value but 0 is inside, add --binary"
        )

    def _check_found(self) -> None:
        """Refuse a mask of 0 and 255 by another program: 255 is hardly "no answer" in it."""
        if is_ours(self.mask):
            return
        if set(np.flatnonzero(self.found).tolist()) == {0, NO_ANSWER}:
            raise InputError(
                f"{self.mask.path} holds only 0 and {NO_ANSWER}, and {NO_ANSWER} stands for no "
                "answer; if it is a class, add --binary, which makes it label 1"
            )


def _advance(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
