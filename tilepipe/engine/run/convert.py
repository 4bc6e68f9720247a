"""`convert`: any image into a pyramid that is read in pieces, any mask into any format of masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tilepipe.engine.run.run import environment_errors_classified
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.state.progress import Progress
from tilepipe.errors import InputError
from tilepipe.images import open_image
from tilepipe.images.base import Image
from tilepipe.images.convert import MEMORY_LIMIT, check_target
from tilepipe.images.convert import convert as convert_image
from tilepipe.images.reading import Reading
from tilepipe.models.file import load_model
from tilepipe.products.any_mask import mask_at, open_any_mask
from tilepipe.products.base import Mask
from tilepipe.products.class_table import ClassTable, read_class_table
from tilepipe.products.formats import suffix_kind
from tilepipe.products.rewrite import Progress as OnProgress
from tilepipe.products.rewrite import Rewriting, is_ours, names_classes, rewrite, spec_of
from tilepipe.products.store import ZarrMask
from tilepipe.storage import (
    InputRefused,
    StoragePath,
    as_path,
    readable,
    require_writable,
    utf8_path,
    within,
)
from tilepipe.storage.zarr_store import group_attributes
from tilepipe.text import count

InputKind = Literal["auto", "image", "mask"]

LARGEST_PIECE = 4
"""A label image is decoded in pieces of at most one of so many parts of the memory."""


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """What a mask by another program, or of an unfinished run, needs to be converted."""

    classes: str | Path | None = None
    """A table of classes: a file or a text (see `tilepipe.products.class_table`)."""
    model: str | None = None
    """A model, whose classes the mask has."""
    binary: bool = False
    """Every value but 0 is one class, with the label 1."""
    partial: bool = False
    """Take the mask of an unfinished run, whose missing blocks have no answer."""
    image: str | Path | None = None
    """The image that a picture of the mask is drawn on."""

    @property
    def given(self) -> bool:
        """Whether any of them is given, so that the input must be a mask."""
        return self != MaskOptions()


def convert(
    source: Image | str | Path,
    target: str | StoragePath,
    *,
    kind: InputKind = "auto",
    mask: MaskOptions | None = None,
    reading: Reading | None = None,
    chunk: int = 512,
    memory_limit: int = MEMORY_LIMIT,
    overwrite: bool = False,
    progress: OnProgress | None = None,
) -> tuple[str, ...]:
    """Convert an image or a mask; see `tilepipe.convert`. Returns what could not be taken along."""
    mask = mask or MaskOptions()
    target = as_path(target)
    if not isinstance(source, str | Path) or not _is_mask(source, kind, mask):
        _refuse_image(source, target)
        convert_image(
            source, target, reading=reading, chunk=chunk, memory_limit=memory_limit,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
        return ()
    if reading is not None and not reading.is_plain:
        raise InputError(
            f"{source} is a mask, of which no series, bands or values are chosen; leave these "
            "options out, or convert it as an image (--as image)"
        )
    with environment_errors_classified():
        return _convert_mask(str(source), target, mask, memory_limit, overwrite, progress)


def _convert_mask(
    source: str,
    target: StoragePath,
    options: MaskOptions,
    memory: int,
    overwrite: bool,
    progress: OnProgress | None,
) -> tuple[str, ...]:
    with InputRefused():
        _check_mask_target(source, target, overwrite)
    table = _table(options)
    with (
        closing(open_any_mask(source, memory // LARGEST_PIECE)) as mask,
        _image_for(options, target) as image,
    ):
        missing = unfinished(mask)
        if missing is not None and not options.partial:
            raise InputError(
                f"{source}: {missing}; repeat the command that made it, or convert what is "
                "there with --partial"
            )
        spec = spec_of(mask, table, partial=missing is not None)
        whole = isinstance(mask, ZarrMask) and spec == mask.spec and _is_whole(mask)
        rewrite(
            mask, target,
            Rewriting(spec, options.binary, whole, image, memory, progress),
        )  # fmt: skip
        return _left_out(mask, target)


def _is_mask(source: str | Path, kind: InputKind, options: MaskOptions) -> bool:
    """Whether the input is a mask: tilepipe wrote it, it names its classes, or the user says so."""
    if kind == "image" and options.given:
        raise InputError(f"{source}: --as image cannot be combined with options of masks")
    if kind != "auto" or options.given:
        return kind != "image"
    path = readable(source)
    if path.is_dir() and "image-label" in _ome(path):
        return True
    try:
        with closing(mask_at(path)) as mask:
            return is_ours(mask) or (mask.kind == "labels" and names_classes(mask))
    except InputError:
        return False


def _ome(folder: StoragePath) -> dict[str, object]:
    """The OME-NGFF metadata of a folder, of version 0.5 or 0.4."""
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        attributes = group_attributes(folder)
        ome = attributes.get("ome", attributes)
        return ome if isinstance(ome, dict) else {}
    return {}


def _refuse_image(source: Image | str | Path, target: StoragePath) -> None:
    if target.name.lower().endswith(".zarr"):
        return
    suffix_kind(target)  # which names the suffixes that there are, if this is none of them
    path = source if isinstance(source, str | Path) else source.path
    if not readable(path).exists():
        raise InputError(f"{path} does not exist; give the path of an image or a mask")
    if isinstance(source, str | Path):
        open_image(str(source)).close()  # which says what is wrong with a damaged file
    raise InputError(
        f"{path} is an image as far as can be told, and images become .ome.zarr only; if it is a "
        "mask, say what its labels mean: --classes 0=background,1=nucleus, or --model NAME"
    )


def _check_mask_target(source: str, target: StoragePath, overwrite: bool) -> None:
    if within(as_path(source), target):
        raise InputError(f"{target}: is the mask, or contains it; choose another name")
    kind = suffix_kind(target)
    if kind == "ome-zarr":
        check_target(target, overwrite=overwrite)
        return
    if kind == "cog" and isinstance(target, Path):
        utf8_path(target)  # GDAL accepts no other
    if target.is_dir():
        raise InputError(f"{target} is a folder; choose another name")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name, or add --overwrite")
    require_writable(target)


def _table(options: MaskOptions) -> ClassTable | None:
    if options.classes is not None and options.model is not None:
        raise InputError("the classes are given twice: by --classes, and by --model; give one")
    if options.classes is not None:
        return read_class_table(options.classes)
    return None if options.model is None else ClassTable.of(load_model(options.model).output)


@contextmanager
def _image_for(options: MaskOptions, target: StoragePath) -> Iterator[Image | None]:
    """The image that the mask is drawn on, if there is one."""
    if options.image is None:
        yield None
        return
    if suffix_kind(target) != "png":
        raise InputError(f"--image {options.image} is only drawn on by a .png; leave it out")
    with closing(open_image(str(options.image))) as image:
        yield image


def unfinished(mask: Mask) -> str | None:
    """What the run that writes a mask still lacks, in words; None if it is complete."""
    state = RunState(mask.path)
    plan = state.read_plan() if isinstance(mask, ZarrMask) and mask.ours else None
    if plan is None:
        return None
    progress = Progress.from_ledger(state.ledger_file)
    missing = sum(not progress.is_written(number) for number in plan.coverage)
    if not missing:
        return None
    return f"its run is not finished and lacks {missing:,} of {count(plan.blocks, 'block')}"


def _is_whole(mask: ZarrMask) -> bool:
    """Whether a mask of tilepipe has its pyramid, so that it is exported as it is."""
    if not mask.ours:
        return False
    coarser = set(range(1, len(mask.levels)))
    state = RunState(mask.path)
    if state.plan_file.exists():
        return coarser <= Progress.from_ledger(state.ledger_file).levels
    stored = [any(mask.stored_chunks(n, p) for p in range(mask.planes)) for n in (0, *coarser)]
    return all(stored) or not any(stored)


def _left_out(mask: Mask, target: StoragePath) -> tuple[str, ...]:
    extras = mask.extras if isinstance(mask, ZarrMask) else ()
    if not extras or suffix_kind(target) == "ome-zarr":
        return ()
    names = ", ".join(key.partition(":")[0] for key in extras)
    return (f"{names}: left out, as {target.name} cannot hold them; .ome.zarr can",)
