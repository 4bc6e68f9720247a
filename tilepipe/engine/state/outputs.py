"""The paths of a run's results: the zarr mask, its exports, and the run record beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.state.folder import FOLDER, RunState
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.engine.state.network import network_beside
from tilepipe.engine.state.run_record import profile_paths, record_path
from tilepipe.errors import InputError
from tilepipe.images.base import Image
from tilepipe.objects.formats.registry import STAC_ITEM, objects_format, require_installed
from tilepipe.products.content import file_dtype
from tilepipe.products.formats import (
    is_mask,
    product_in_name,
    remove_side_files,
    suffix_kind,
)
from tilepipe.products.image_labels import open_image_group, unlist_label
from tilepipe.products.label_path import LabelPath, label_path
from tilepipe.products.product import canonical_keys, main_product, product_named
from tilepipe.storage import (
    StoragePath,
    as_path,
    is_url,
    name_from,
    path_from,
    remove,
    require_writable,
    utf8_path,
    within,
    zarr_around,
)
from tilepipe.storage.zarr_store import group_attributes

OBJECTS = "objects"
"""The folder of a mask's objects within its store."""

if TYPE_CHECKING:
    from tilepipe.models.file import Model


WITH_IMAGE = "mask"
"""The name of the label that is the mask, in an OME-Zarr that holds the image too."""


def mask_with_image(target: StoragePath) -> StoragePath:
    """The mask in an OME-Zarr that a run with ``--with-image`` wrote."""
    return LabelPath(target, WITH_IMAGE).path


@dataclass(frozen=True, slots=True)
class Outputs:
    """The paths that a run writes."""

    store: StoragePath
    """The zarr mask that blocks are written to."""
    keep_store: bool
    """Whether the user wants the store; otherwise it is removed when the exports are complete."""
    exports: tuple[StoragePath, ...]
    """Files made from the mask."""
    record: StoragePath
    """The run record, JSON."""
    resampled_mask: StoragePath | None = None
    """The mask on the image's own grid, made from the store; exports are then made from it."""
    keep_resampled: bool = False
    """Whether the user wants the resampled mask; otherwise it lies within the store."""
    with_image: StoragePath | None = None
    """The OME-Zarr of image and mask together; the resampled mask is then a label in it."""

    def name_of(self, export: StoragePath) -> str:
        """The name of an export in the ledger, relative to the store, so that both can move."""
        return name_from(export, self.store.parent)

    def path_of(self, name: str) -> StoragePath:
        """The file that `name_of` gave a name."""
        return path_from(name, self.store.parent)

    @property
    def object_exports(self) -> tuple[StoragePath, ...]:
        """Files made of the mask's objects."""
        return tuple(path for path in self.exports if objects_format(path) is not None)

    @property
    def mask_exports(self) -> tuple[StoragePath, ...]:
        """Files made of the mask's pixels."""
        others = {*self.object_exports, *self.items}
        return tuple(path for path in self.exports if path not in others)

    @property
    def items(self) -> tuple[StoragePath, ...]:
        """STAC items about all other outputs."""
        return tuple(path for path in self.exports if is_item(path))

    @property
    def has_objects(self) -> bool:
        """Whether an output holds objects."""
        return bool(self.object_exports)

    @property
    def objects(self) -> StoragePath:
        """The numbers and the table of the objects, within the store."""
        return self.store / OBJECTS

    @property
    def state(self) -> RunState:
        """The files that the run keeps inside the store."""
        return RunState(self.store)

    @property
    def all_files(self) -> tuple[StoragePath, ...]:
        """What a run itself makes from the store."""
        resampled = [] if self.on_image_grid is None else [self.on_image_grid]
        return (*resampled, *self.exports, self.objects)

    @property
    def on_image_grid(self) -> StoragePath | None:
        """What the mask on the image's own grid is written as: alone, or with the image."""
        return self.with_image or self.resampled_mask

    @property
    def label(self) -> LabelPath | None:
        """The place of the resampled mask, if that is a label of an OME-Zarr image."""
        return None if self.resampled_mask is None else label_path(self.resampled_mask)

    def masks(self, *, channels: bool) -> tuple[StoragePath, ...]:
        """The outputs that can be opened as masks, without those of the store.

        ``channels`` is as in `tilepipe.products.formats.is_mask`.
        """
        kept = (self.resampled_mask,) if self.resampled_mask and self.keep_resampled else ()
        return (*kept, *(path for path in self.mask_exports if is_mask(path, channels=channels)))

    @property
    def requested(self) -> tuple[StoragePath, ...]:
        """The outputs that the user wants, in the order in which they are made."""
        return ((self.store,) if self.keep_store else ()) + self.derived

    @property
    def derived(self) -> tuple[StoragePath, ...]:
        """The outputs that the user wants, except the store."""
        kept = self.on_image_grid if self.keep_resampled else None
        return ((kept,) if kept is not None else ()) + self.exports


def choose_outputs(options: RunOptions, image: Image, model: Model) -> Outputs:
    """The outputs that the options name, or by default those that suit the image.

    Raises
    ------
    InputError
        For an unknown suffix, a missing folder, two zarr outputs, the image itself, or
        probabilities without an output that can hold them.
    """
    paths = [as_path(path).absolute() for path in _asked(options, image, model)]
    kinds = [kind_of(path) for path in paths]
    new = {Path(f).absolute() for f in options.outputs if f.endswith("/") and not is_url(f)}
    for path, kind in zip(paths, kinds, strict=True):
        # A folder that is named with a final slash may be created, and that of labels.
        require_writable(path, may_make=path.parent in new or label_path(path) is not None)
        if _by_gdal(path, kind) and isinstance(path, Path):
            utf8_path(path)  # GDAL accepts no other
        if kind not in ("objects", "item"):
            _refuse_form(path)
        _check_place(path, image)
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise InputError(f"the output {twice[0]} is named twice")
    stores = [path for path, kind in zip(paths, kinds, strict=True) if kind == "ome-zarr"]
    exports = tuple(path for path, kind in zip(paths, kinds, strict=True) if kind != "ome-zarr")
    if len(stores) > 1:
        raise InputError("one OME-Zarr output is enough: " + ", ".join(map(str, stores)))
    _check_extras(options, model, [product_in_name(path) for path in exports], bool(stores))
    if options.channels:
        _check_channels(exports, model)
    if "objects" in kinds and not main_product(model.output).has_classes:
        raise InputError(
            f"{paths[kinds.index('objects')]}: model {model.name} gives values, not classes, so "
            "there are no objects"
        )
    if "item" in kinds:
        _check_item(paths[kinds.index("item")], kinds, image)
    first = paths[0]
    if stores and options.with_image:
        return _with_image(options, stores[0], exports, image, model)
    if stores and (label := label_path(stores[0])) is not None:
        open_image_group(label, image)
        _check_label(options, stores[0], image, model)
        return _as_label(label, exports)
    if options.with_image:
        raise InputError("with_image: needs an OME-Zarr output; add -o IMAGE_AND_MASK.ome.zarr")
    unfinished = first.with_name(f"{first.name}.unfinished.ome.zarr")
    kept, record = bool(stores), record_path(first)
    if options.like_image:
        resampled = stores[0] if stores else RunState(unfinished).folder / "on_image.ome.zarr"
        return Outputs(unfinished, False, exports, record, resampled, kept)
    return Outputs(stores[0] if stores else unfinished, kept, exports, record)


def _check_place(path: StoragePath, image: Image) -> None:
    """Refuse an output that is the image, contains it, or lies in it and is not its label."""
    source = as_path(image.path)
    if within(source, path):
        raise InputError(f"{path}: is the image, or contains it; choose another output")
    if image.kind == "OME-Zarr" and within(path, source) and label_path(path) is None:
        raise InputError(
            f"{path}: lies inside the image; only labels may, as -o {source / 'labels' / 'NAME'}"
        )
    if label_path(path) is None and (around := zarr_around(path)) is not None:
        raise InputError(f"{path}: lies inside {around}, which is a zarr; choose another output")


def _with_image(
    options: RunOptions,
    target: StoragePath,
    exports: tuple[StoragePath, ...],
    image: Image,
    model: Model,
) -> Outputs:
    """The outputs of a run with ``--with-image``: the mask is a label in ``target``."""
    if label_path(target) is not None:
        raise InputError(
            f"{target}: is in an OME-Zarr that has its image already; leave out --with-image"
        )
    label = LabelPath(target, WITH_IMAGE)
    _check_label(options, label.path, image, model)
    if options.ngff == "0.4":
        raise InputError("with_image: images are converted to OME-Zarr 0.5 only; leave out --ngff")
    return replace(_as_label(label, exports), with_image=target)


def _as_label(label: LabelPath, exports: tuple[StoragePath, ...]) -> Outputs:
    """The outputs of a run whose mask is a label in an image, which holds nothing else of it."""
    beside = label.beside
    require_writable(beside)
    store = beside.with_name(f"{beside.name}.unfinished.ome.zarr")
    return Outputs(store, False, exports, record_path(label.path), label.path, keep_resampled=True)


def _check_label(options: RunOptions, path: StoragePath, image: Image, model: Model) -> None:
    """Refuse what a label cannot be, or hold."""
    product = main_product(model.output)
    if not product.flat:
        raise InputError(
            f"{path}: a label has one number a pixel, and model {model.name} gives {product.name}; "
            "write an OME-Zarr of its own (-o MASK.ome.zarr)"
        )
    if options.extras:
        raise InputError(
            f"{path}: a label cannot hold {', '.join(options.extras)}; write an OME-Zarr of its "
            "own (-o MASK.ome.zarr)"
        )


def _check_channels(exports: Sequence[StoragePath], model: Model) -> None:
    """Refuse ``--channels`` where it makes no difference."""
    if not main_product(model.output).has_classes:
        raise InputError(f"channels: model {model.name} gives values, which are channels already")
    if not any(kind_of(p) == "ome-tiff" and product_in_name(p) is None for p in exports):
        raise InputError("channels: is for OME-TIFF; add -o MASK.ome.tif")


def _refuse_form(path: StoragePath) -> None:
    """Refuse a name that asks for a product in a format that does not hold it."""
    product, kind = product_in_name(path), suffix_kind(path)
    if product is None or kind in ("cog", "ome-tiff"):
        return
    stem = path.name.lower().partition(f".{product}.")[0]
    if kind == "png":
        raise InputError(f"{path}: there are no pictures of {product}; use {stem}.{product}.tif")
    raise InputError(
        f"{path}: an OME-Zarr holds {product} inside the mask; name the mask, {stem}.ome.zarr"
    )


def _check_extras(
    options: RunOptions, model: Model, exported: Sequence[str | None], has_store: bool
) -> None:
    """Refuse products that do not exist, or cannot be written beside the mask."""
    products = [product_named(key) for key in canonical_keys(options.extras)]
    names = [product.name for product in products]
    for product in products:
        reason = product.unavailable(model.output)
        if product.is_main:
            reason = "it can only be the mask itself"
        elif names.count(product.name) > 1:
            reason = "it is named twice"
        if reason is not None:
            raise InputError(f"{product.name} cannot be written with model {model.name}: {reason}")
        if product.name in exported:
            file_dtype(product)  # refuses what a TIFF does not hold
        elif not has_store:
            raise InputError(
                f"{product.name}: needs an output that holds it; add -o MASK.ome.zarr, or "
                f"-o MASK.{product.name}.tif"
            )
    if options.ngff is not None and not has_store:
        raise InputError("ngff: needs an OME-Zarr output; add -o MASK.ome.zarr")


def is_item(path: StoragePath) -> bool:
    """Whether a path is that of a STAC item."""
    return path.name.lower().endswith(STAC_ITEM) and path.name.lower() != STAC_ITEM


def _check_item(path: StoragePath, kinds: Sequence[str], image: Image) -> None:
    """Refuse a STAC item that could not say where the image lies, or of what files it is."""
    if image.crs is None or image.transform is None:
        raise InputError(
            f"{path}: a STAC item says where on the Earth an image lies, and {image.path} has no "
            "CRS and transform; leave this output out"
        )
    if all(kind == "item" for kind in kinds):
        raise InputError(f"{path}: lists the other outputs, and there are none; add -o MASK.tif")


def _by_gdal(path: StoragePath, kind: str) -> bool:
    """Whether GDAL writes an output, as all that is GeoTIFF."""
    name = path.name.lower()
    return kind == "cog" or (kind == "objects" and name.endswith((".objects.tif", ".objects.tiff")))


def kind_of(path: StoragePath) -> str:
    """The format of an output by its suffix: ``objects`` for all formats of objects, ``item``.

    Raises
    ------
    InputError
        For a suffix of none, and where what writes the format is not installed.
    """
    if is_item(path):
        return "item"
    kind = objects_format(path)
    if kind is None:
        return suffix_kind(path)
    require_installed(path, kind)
    return "objects"


def _asked(options: RunOptions, image: Image, model: Model) -> list[str]:
    """The paths that the options name for an image; relative paths stay relative."""
    name = image_stem(image.path)
    placed = image.crs is not None or image.control is not None
    tiff = ".tif" if placed else ".ome.tif"
    asked = []
    for output in options.outputs or ("./",):
        if is_folder(output):
            end = "" if output.endswith("/") else "/"
            stem = f"{output}{end}{name}_mask"
            asked += [f"{stem}.ome.zarr", f"{stem}{tiff}", f"{stem}.png"]
            if options.objects != "none" and (
                model.output.objects is not None or options.objects != "auto"
            ):
                asked.append(f"{output}{end}{name}_objects{objects_suffix(placed)}")
        else:
            asked.append(output.replace("{name}", name))
    return asked


def objects_suffix(placed: bool) -> str:
    """The format of objects of the field: GeoPackage on maps, if it is installed."""
    layer = Path("objects.gpkg")
    kind = objects_format(layer)
    return layer.suffix if placed and kind is not None and not kind.missing else ".geojson"


def is_folder(output: str) -> bool:
    """Whether an output is a folder for masks, not a mask."""
    if not output.endswith("/") and label_path(as_path(output)) is not None:
        return False
    return output.endswith("/") or (not Path(output).suffix and Path(output).is_dir())


def refuse_strangers(outputs: Outputs) -> None:
    """Refuse to overwrite anything that is not an unfinished run of tilepipe."""
    if outputs.store.exists() and not outputs.state.folder.is_dir():
        raise _exists_already(outputs.store)
    if any(record.get("kind") == "block" for record in read_ledger(outputs.state.ledger_file)):
        raise InputError(
            f"{outputs.state.plan_file}: is missing, so {outputs.store.name} can be neither "
            "resumed nor checked; put the file back, or use --overwrite to start over"
        )
    refuse_strange_exports(outputs, set())


def refuse_strange_exports(outputs: Outputs, ours: set[str]) -> None:
    """Refuse to overwrite a file whose name in the ledger is not among ``ours``."""
    for path in outputs.derived:
        if path.exists() and outputs.name_of(path) not in ours:
            raise _exists_already(path)


def _exists_already(path: StoragePath) -> InputError:
    return InputError(f"{path}: exists already; use --overwrite to replace it, or another -o")


def remove_previous(outputs: Outputs) -> None:
    """Remove an earlier mask and its exports, for ``--overwrite``.

    Raises InputError when a folder of that name is not a mask that tilepipe wrote.
    """
    record = outputs.record
    files = (*outputs.exports, record, network_beside(record), *profile_paths(record))
    for path in files:
        if path.is_dir() and not _is_spatialdata(path):
            raise InputError(f"{path}: is a folder; remove it, or choose another -o")
    store = outputs.store
    if outputs.keep_resampled:
        _remove_resampled(outputs)
    if store.is_dir():
        if any(store.iterdir()):
            _require_mask(store)
        with outputs.state.locked():
            # The plan first: after an interruption, the rest must not look like a run to resume.
            outputs.state.forget()
            for entry in store.iterdir():
                if entry.name != FOLDER:
                    remove(entry)
    elif store.exists():
        raise InputError(f"{store}: is a file, not a zarr store; remove it, or choose another -o")
    for path in files:
        remove(path)
        remove_side_files(path)


def _is_spatialdata(path: StoragePath) -> bool:
    """Whether a folder is SpatialData, which is an export, too."""
    try:
        return "spatialdata_attrs" in group_attributes(path)
    except (OSError, TypeError, ValueError):
        return False


def _remove_resampled(outputs: Outputs) -> None:
    """Remove the mask on the image's grid; with its image, where that was converted with it."""
    mask, target = outputs.resampled_mask, outputs.on_image_grid
    if mask is None or target is None or not target.exists():
        return
    _require_mask(mask)
    if outputs.label is not None and outputs.with_image is None:
        unlist_label(outputs.label)  # first, so that the list never names what is not there
    with RunState(mask).locked():
        remove(target)


def _require_mask(store: StoragePath) -> None:
    """Raise InputError unless tilepipe wrote a store: an OME-Zarr may be somebody's image."""
    try:
        is_mask = "kind" in group_attributes(store)["tilepipe"]  # as create_mask writes it
    except (KeyError, TypeError, ValueError):
        is_mask = False
    if not is_mask and not (store / FOLDER).is_dir():
        raise InputError(
            f"{store}: is not a mask that tilepipe wrote; remove it, or choose another -o"
        )
