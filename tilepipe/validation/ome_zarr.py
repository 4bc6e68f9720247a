"""OME-Zarr 0.4 and 0.5 held against OME-NGFF: multiscales, image-label, omero, labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tilepipe.errors import DamagedMaskError, InputError
from tilepipe.objects.table import open_table
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath
from tilepipe.storage.zarr_store import zarr_store
from tilepipe.text import first_line, some
from tilepipe.validation.installed import installed, named, verdict
from tilepipe.validation.result import NUMBERS, Checked, Fact

_AXES = {"time": 0, "channel": 1, "space": 2}
"""The order of types of axes (OME-NGFF 0.5, section 2.3)."""

_COORDINATES = ("spatial_ref", "x", "y")
"""The arrays that place a group on a map, by the CF conventions."""

_BROKEN = (
    ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What metadata of unknown origin raise on the way through them."""


def check(path: StoragePath) -> Checked:
    """Hold a folder against OME-NGFF 0.4 or 0.5.

    Raises
    ------
    InputError
        It is no zarr group with OME-NGFF metadata.
    """
    document, zarr_format = _document(path)
    attributes = document.get("attributes", {}) if zarr_format == 3 else document
    attributes = attributes if isinstance(attributes, dict) else {}
    ome = attributes.get("ome") if zarr_format == 3 else attributes
    spatialdata = "spatialdata_attrs" in attributes
    if not isinstance(ome, dict) or not ({"multiscales", "plate", "labels"} & set(ome)):
        if spatialdata:
            raise InputError(f"{path} is a SpatialData folder; give one of its images or labels")
        raise InputError(f"{path} has no OME-NGFF metadata; give an OME-Zarr image or its labels")
    problems: list[str] = []
    facts: dict[str, Fact] = {"zarr": zarr_format, "spatialdata": spatialdata}
    if "multiscales" in ome:
        facts["content"] = _content(ome, attributes)
        try:
            problems += _multiscales(path, ome, zarr_format, facts)
        except _BROKEN as error:
            problems.append(f"multiscales cannot be understood: {_told(error)}")
    problems += _labels_folder(path)
    problems += _within_labels(path, facts)
    problems += _objects(path, attributes)
    own = ["tilepipe's own checks of OME-NGFF"]
    models = installed("ome_zarr_models")
    if models is not None and isinstance(path, Path):
        own.append(named("ome-zarr-models"))
        problems += verdict("ome-zarr-models", lambda: models.open_ome_zarr(path))
    return Checked("OME-Zarr", tuple(dict.fromkeys(problems)), facts, tuple(own))


def _document(path: StoragePath) -> tuple[dict[str, Any], int]:
    """The metadata of a group, and the version of zarr."""
    for name, zarr_format in (("zarr.json", 3), (".zattrs", 2)):
        try:
            document = load_json((path / name).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise InputError(f"{path / name} cannot be read ({first_line(error)})") from error
        if isinstance(document, dict):
            return document, zarr_format
    raise InputError(f"{path} is no zarr group: it has neither zarr.json nor .zattrs")


def _content(ome: dict[str, Any], attributes: dict[str, Any]) -> str:
    """What it holds: labels, planes, values, probabilities, numbers of objects, or an image."""
    own = attributes.get("tilepipe")
    if isinstance(own, dict) and "objects" in own:
        return NUMBERS
    if "image-label" in ome:
        return "labels"
    if isinstance(own, dict) and "probability" in own:
        return "probabilities"
    return str(own["kind"]) if isinstance(own, dict) and "kind" in own else "image"


def _multiscales(
    path: StoragePath, ome: dict[str, Any], zarr_format: int, facts: dict[str, Fact]
) -> Iterator[str]:
    import zarr

    expected = "0.5" if zarr_format == 3 else "0.4"
    multiscale = ome["multiscales"][0]
    stated = ome.get("version") if zarr_format == 3 else multiscale.get("version")
    if stated != expected:
        yield f"its version is {stated!r}, and in zarr {zarr_format} it must be {expected!r}"
    axes = multiscale["axes"]
    yield from _axes(axes)
    names = [str(axis["name"]) for axis in axes]
    root = zarr.open_group(zarr_store(path, read_only=True), mode="r")
    arrays: list[tuple[str, Any]] = []
    for dataset in multiscale["datasets"]:
        found = root.get(str(dataset["path"]))
        if not isinstance(found, zarr.Array):
            yield f"there is no array {dataset['path']}, which multiscales list"
            continue
        arrays.append((str(dataset["path"]), found))
        yield from _transformations(dataset, len(axes))
        if found.ndim != len(axes):
            yield f"array {dataset['path']} has {found.ndim} dimensions, and there are {names}"
        given = found.metadata.dimension_names if zarr_format == 3 else None  # type: ignore[union-attr]
        if zarr_format == 3 and list(given or ()) != names:
            yield f"array {dataset['path']} has the dimension_names {given}, not {names}"
    yield from _levels(arrays)
    _note(root, arrays, facts)
    if "image-label" in ome:
        yield from _image_label(path, ome["image-label"], arrays)
    if "omero" in ome:
        yield from _omero(ome["omero"], names, arrays)
    facts["top"] = _top(ome)


def _axes(axes: list[dict[str, Any]]) -> Iterator[str]:
    names = [axis["name"] for axis in axes]
    if not 2 <= len(axes) <= 5:
        yield f"it has {len(axes)} axes, and there must be 2 to 5"
    if len(set(names)) != len(names):
        yield f"its axes {names} have a name twice"
    places = [_AXES[axis["type"]] for axis in axes if axis.get("type") in _AXES]
    if places != sorted(places):
        yield f"its axes {names} are not in the order time, channel, space"
    if places.count(2) not in (2, 3):
        yield f"{places.count(2)} of its axes {names} are of space, and 2 or 3 must be"


def _transformations(dataset: dict[str, Any], axes: int) -> Iterator[str]:
    steps = dataset.get("coordinateTransformations", [])
    kinds = [step["type"] for step in steps]
    if kinds not in (["scale"], ["scale", "translation"]):
        yield f"level {dataset['path']} has the transformations {kinds}, not a scale first"
    for step in steps:
        values = step.get(step["type"])
        if isinstance(values, list) and len(values) != axes:
            yield f"the {step['type']} of level {dataset['path']} has {len(values)} values"
        if step["type"] == "scale" and not all(value > 0 for value in values):
            yield f"the scale of level {dataset['path']} is {values}; all must be above 0"


def _levels(arrays: list[tuple[str, Any]]) -> Iterator[str]:
    for (above, large), (name, small) in pairwise(arrays):
        if any(a < b for a, b in zip(large.shape, small.shape, strict=False)):
            yield f"level {name} is larger than {above}; the largest must come first"
        if large.dtype != small.dtype:
            yield f"level {name} is {small.dtype}, and {above} is {large.dtype}"


def _image_label(
    path: StoragePath, label: dict[str, Any], arrays: list[tuple[str, Any]]
) -> Iterator[str]:
    for name, array in arrays:
        if array.dtype.kind not in "ui":
            yield f"level {name} is {array.dtype}, and labels must be whole numbers"
    for key in ("colors", "properties"):
        values = [entry["label-value"] for entry in label.get(key, [])]
        if len(set(values)) != len(values):
            yield f"{key} of image-label name a label twice"
    for colour in label.get("colors", []):
        rgba = colour.get("rgba")
        if rgba is not None and (len(rgba) != 4 or not all(0 <= v <= 255 for v in rgba)):
            yield f"the colour {rgba} of label {colour['label-value']} is not four of 0 .. 255"
    source = label.get("source", {}).get("image")
    if source is not None and isinstance(path, Path):
        image = (path / source).resolve()
        if not any((image / name).exists() for name in ("zarr.json", ".zattrs")):
            yield f"its source image {source!r} is not there"


def _omero(omero: dict[str, Any], names: list[str], arrays: list[tuple[str, Any]]) -> Iterator[str]:
    channels = omero.get("channels", [])
    there = arrays[0][1].shape[names.index("c")] if arrays and "c" in names else 1
    if len(channels) != there:
        yield f"omero has {len(channels)} channels, and the array {there}"
    for channel in channels:
        if "window" in channel and not {"start", "end", "min", "max"} <= set(channel["window"]):
            yield f"the window of channel {channel.get('label')!r} lacks start, end, min or max"


def _note(root: Any, arrays: list[tuple[str, Any]], facts: dict[str, Fact]) -> None:
    """Note the properties of the arrays that readers care about."""
    if not arrays:
        return
    first = arrays[0][1]
    facts["dtype"], facts["levels"] = str(first.dtype), len(arrays)
    facts["coordinates"] = all(name in root for name in _COORDINATES)
    # Arrays of one group share the sizes of their dimensions, as xarray reads it.
    beside = [name for name, _ in arrays if "/" not in name]
    facts["levels_conflict"] = len(beside) > 1
    facts["coarser"] = ", ".join(repr(name) for name in beside[1:])
    if facts.get("content") == "probabilities":
        facts["no_answer"] = (
            str(first.fill_value) if first.dtype.kind == "f" else int(first.fill_value)
        )


def _top(ome: dict[str, Any]) -> int:
    """The highest label of a class."""
    named = ome.get("image-label", {}).get("properties", [])
    values = [p["label-value"] for p in named if p.get("name") != "no answer"]
    return max((v for v in values if isinstance(v, int)), default=1)


def _labels_folder(path: StoragePath) -> list[str]:
    """Whether ``labels/`` lists what lies in it."""
    folder = path / "labels"
    if not folder.is_dir():
        return []
    try:
        document, zarr_format = _document(folder)
        attributes = document["attributes"]["ome"] if zarr_format == 3 else document
        listed = [str(name) for name in attributes["labels"]]
    except (InputError, *_BROKEN):
        return ["labels/ does not list the labels in it, so readers do not find them"]
    missing = [name for name in listed if not (folder / name).is_dir()]
    there = [child.name for child in folder.iterdir() if child.is_dir()]
    hidden = sorted(set(there) - {name.split("/")[0] for name in listed})
    return [
        *([f"labels/ lists {some(missing)}, which are not there"] if missing else []),
        *([f"labels/ does not list {some(hidden)}, so readers do not find them"] if hidden else []),
    ]


def _objects(path: StoragePath, attributes: dict[str, Any]) -> list[str]:
    """Whether the objects of a mask are whole: numbers as OME-Zarr, and a row for each of them."""
    own = attributes.get("tilepipe")
    if not isinstance(own, dict):
        return []
    if "objects" in own:
        try:
            rows = open_table(path / "table")
            for _ in rows.batches():
                pass
        except _BROKEN as error:
            return [f"its table of objects cannot be read: {_told(error)}"]
        except (DamagedMaskError, InputError) as error:
            return [first_line(error)]
        return []
    if not (path / "objects" / "zarr.json").exists():
        return []
    return [f"objects: {problem}" for problem in check(path / "objects").problems]


def _within_labels(path: StoragePath, facts: dict[str, Fact]) -> list[str]:
    """Whether labels that lie in an image are listed there, and have as many levels."""
    parent = path.parent
    facts["in_image"] = False
    if parent.name != "labels":
        return []
    try:
        document, zarr_format = _document(parent.parent)
        ome = document["attributes"]["ome"] if zarr_format == 3 else document
        levels = len(ome["multiscales"][0]["datasets"])
    except (InputError, *_BROKEN):
        return []
    facts["in_image"] = True
    problems = _labels_folder(parent.parent)
    if "levels" in facts and facts["levels"] != levels:
        problems.append(f"it has {facts['levels']} levels, and its image has {levels}")
    return problems


def _told(error: BaseException) -> str:
    text = first_line(error)
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__} {text}"
