"""Where the results of a run go: the zarr mask, its exports, and the run record beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.state.folder import FOLDER, RunState
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.errors import InputError
from tilepipe.images.base import Image
from tilepipe.products.formats import suffix_kind
from tilepipe.products.product import product_named
from tilepipe.schema import load_json
from tilepipe.storage import (
    StoragePath,
    as_path,
    is_url,
    name_from,
    remove,
    require_writable,
    utf8_path,
    within,
)

if TYPE_CHECKING:
    from tilepipe.models.file import Model


@dataclass(frozen=True, slots=True)
class Outputs:
    """The paths a run writes."""

    store: StoragePath
    """The zarr mask that blocks are written to."""
    keep_store: bool
    """Whether the user asked for it; else it is removed when the exports are complete."""
    exports: tuple[StoragePath, ...]
    """Files made from it."""
    record: StoragePath
    """The run record, JSON."""
    resampled_mask: StoragePath | None = None
    """The mask on the image's own grid, made from the store, of which the exports are made."""
    keep_resampled: bool = False
    """Whether the user asked for it; else it lies within the store."""

    def name_of(self, export: StoragePath) -> str:
        """An export as the ledger names it: from the store, so that both may move together."""
        return name_from(export, self.store.parent)

    @property
    def state(self) -> RunState:
        """What the run keeps inside the store."""
        return RunState(self.store)

    @property
    def requested(self) -> tuple[StoragePath, ...]:
        """What the user asked for, in the order of making."""
        return ((self.store,) if self.keep_store else ()) + self.derived

    @property
    def derived(self) -> tuple[StoragePath, ...]:
        """What the user asked for that is made from the store."""
        asked = self.resampled_mask is not None and self.keep_resampled
        return ((self.resampled_mask,) if asked and self.resampled_mask else ()) + self.exports


def choose_outputs(options: RunOptions, image: Image, model: Model) -> Outputs:
    """The outputs asked for, or those that the image's field opens at once.

    Raises
    ------
    InputError
        For a suffix that names no format, a missing folder, two zarr outputs, the image itself, or
        probabilities that no output can hold.
    """
    paths = [as_path(path).absolute() for path in _asked(options, image)]
    kinds = [suffix_kind(path) for path in paths]
    new = {Path(f).absolute() for f in options.outputs if f.endswith("/") and not is_url(f)}
    for path in paths:
        # A folder that is asked for as such is made, if it can be.
        require_writable(path, may_make=path.parent in new)
        if suffix_kind(path) == "cog" and isinstance(path, Path):
            utf8_path(path)  # GDAL takes no other
        if within(as_path(image.path), path):
            raise InputError(f"{path}: is the image itself, or holds it; choose another output")
    if len(set(paths)) < len(paths):
        raise InputError(
            f"the output {next(p for p in paths if paths.count(p) > 1)} is named twice"
        )
    stores = [path for path, kind in zip(paths, kinds, strict=True) if kind == "ome-zarr"]
    exports = tuple(path for path, kind in zip(paths, kinds, strict=True) if kind != "ome-zarr")
    if len(stores) > 1:
        raise InputError("one OME-Zarr output is enough: " + ", ".join(map(str, stores)))
    _check_extras(options, model, has_store=bool(stores))
    first = paths[0]
    unfinished = first.with_name(f"{first.name}.unfinished.ome.zarr")
    if options.like_image:
        return Outputs(
            store=unfinished,
            keep_store=False,
            exports=exports,
            record=record_path(first),
            resampled_mask=stores[0]
            if stores
            else RunState(unfinished).folder / "on_image.ome.zarr",
            keep_resampled=bool(stores),
        )
    return Outputs(
        store=stores[0] if stores else unfinished,
        keep_store=bool(stores),
        exports=exports,
        record=record_path(first),
    )


def _check_extras(options: RunOptions, model: Model, *, has_store: bool) -> None:
    """Refuse products that do not exist, or cannot lie beside the mask."""
    try:
        products = [product_named(key) for key in options.extras]
    except ValueError as error:
        raise InputError(f"product: {error}") from error
    names = [product.name for product in products]
    for product in products:
        reason = product.unavailable(model.output)
        if product.is_main:
            reason = "it can only be the mask itself"
        elif names.count(product.name) > 1:
            reason = "it is asked for twice"
        if reason is not None:
            raise InputError(f"{product.name} cannot be written with model {model.name}: {reason}")
        if not has_store:
            raise InputError(f"{product.name}: kept in OME-Zarr only; add -o MASK.ome.zarr")


def _asked(options: RunOptions, image: Image) -> list[str]:
    """The paths that the options name for an image, relative ones as they are."""
    name = image_stem(image.path)
    placed = image.crs is not None or image.control is not None
    tiff = ".tif" if placed else ".ome.tif"
    asked = []
    for output in options.outputs or ("./",):
        if is_folder(output):
            end = "" if output.endswith("/") else "/"
            stem = f"{output}{end}{name}_mask"
            asked += [f"{stem}.ome.zarr", f"{stem}{tiff}", f"{stem}.png"]
        else:
            asked.append(output.replace("{name}", name))
    return asked


def is_folder(output: str) -> bool:
    """Whether an output is a folder for masks, and not a mask itself."""
    return output.endswith("/") or (not Path(output).suffix and Path(output).is_dir())


def record_path(output: StoragePath) -> StoragePath:
    """The run record that lies beside an output: ``slide_mask.run.json`` for its every format.

    Where another run, of an output that differs by its suffix alone, has that one:
    ``slide_mask.tif.run.json``.
    """
    record = output.with_name(image_stem(str(output)) + ".run.json")
    try:
        names = [Path(path).name for path in load_json(record.read_text())["outputs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return record
    others = output.name not in names and any(output.with_name(n).exists() for n in names)
    return output.with_name(output.name + ".run.json") if others else record


def profile_paths(record: StoragePath) -> tuple[StoragePath, StoragePath]:
    """Table and plot of `--profile`, beside the run record ``NAME.run.json``."""
    stem = record.name.removesuffix(".run.json")
    return record.with_name(f"{stem}.profile.csv"), record.with_name(f"{stem}.profile.png")


def refuse_strangers(outputs: Outputs) -> None:
    """Refuse to write over what no run of tilepipe left to be resumed."""
    store = outputs.store
    if store.exists() and not outputs.state.folder.is_dir():
        raise InputError(f"{store}: exists already; use --overwrite to replace it, or another -o")
    if any(record.get("kind") == "block" for record in read_ledger(outputs.state.ledger_file)):
        raise InputError(
            f"{outputs.state.plan_file}: is gone, so what is in {store.name} can be neither "
            "resumed nor checked; put the file back, or use --overwrite to compute the mask anew"
        )
    refuse_strange_exports(outputs, set())


def refuse_strange_exports(outputs: Outputs, ours: set[str]) -> None:
    """Refuse to write over a file that is none of ``ours``, by the names of the ledger."""
    for path in outputs.derived:
        if path.exists() and outputs.name_of(path) not in ours:
            raise InputError(
                f"{path}: exists already; use --overwrite to replace it, or another -o"
            )


def remove_previous(outputs: Outputs) -> None:
    """Remove an earlier mask and its exports, on the user's word (``--overwrite``).

    Raises
    ------
    InputError
        Where a folder of that name is no zarr store, and so nothing tilepipe may remove.
    """
    for path in (*outputs.exports, outputs.record, *profile_paths(outputs.record)):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; remove it, or choose another -o")
    store = outputs.store
    if (
        outputs.resampled_mask is not None
        and outputs.keep_resampled
        and outputs.resampled_mask.exists()
    ):
        _remove_zarr(outputs.resampled_mask)
    if store.is_dir():
        if not _is_mask(store) and any(store.iterdir()):
            raise InputError(
                f"{store}: is no mask of tilepipe's, and is left alone; remove it, or choose "
                "another -o"
            )
        with outputs.state.locked():
            # The plan first: stopped half-way, what is left must not pass for a run to resume.
            outputs.state.forget()
            for entry in store.iterdir():
                if entry.name != FOLDER:
                    remove(entry)
    elif store.exists():
        raise InputError(f"{store}: is a file, not a zarr store; remove it, or choose another -o")
    for path in (*outputs.exports, outputs.record, *profile_paths(outputs.record)):
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)


def _is_mask(store: StoragePath) -> bool:
    """Whether a run wrote a store: an OME-Zarr may as well be somebody's image."""
    if (store / FOLDER).is_dir():
        return True
    try:
        attributes = load_json((store / "zarr.json").read_text())["attributes"]
        return "kind" in attributes["tilepipe"]  # as create_mask writes it
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remove_zarr(path: StoragePath) -> None:
    """Remove a mask that is not the store of this run, but may be that of another."""
    if not _is_mask(path):
        raise InputError(
            f"{path}: is no mask of tilepipe's, and is left alone; remove it, or choose another -o"
        )
    with RunState(path).locked():
        remove(path)
