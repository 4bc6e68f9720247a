"""Masks of any format become masks of any format: the same pixels, classes and place."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture

import tilepipe
from tests.making import make_image, write_tiff
from tests.products.making import KINDS, make_content, make_mask, make_spec, tree, whole
from tilepipe.cli import call
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.products import rewrite as rewrite_module
from tilepipe.products.base import MaskSpec
from tilepipe.products.formats import export, open_mask
from tilepipe.products.store import create_mask, open_zarr_mask

SUFFIXES = (".ome.zarr", ".ome.tif", ".tif")
CLASSES_GIVEN = "0=background,1=nucleus:#ff0000"

UTM = rasterio.crs.CRS.from_epsg(32633).to_wkt()


def content_of(path: Path) -> bytes | dict[str, str]:
    return tree(path) if path.is_dir() else path.read_bytes()


def labels_of(path: Path) -> NDArray[Any]:
    mask = open_mask(path)
    try:
        return mask.read(whole(mask.shape))
    finally:
        mask.close()


def some_labels(shape: tuple[int, int] = (700, 1100)) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[100:300, 200:600] = 1
    return labels


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_becomes_every_other(tmp_path: Path, kind: str) -> None:
    spec = make_spec((700, 1100), kind, origin=(1.5, 2.5), name="slide")
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    for suffix in SUFFIXES[1:]:
        export(mask, tmp_path / f"m{suffix}")
    for source in SUFFIXES:
        for target in SUFFIXES:
            path = tmp_path / f"{source[1:]}_to{target}"
            assert tilepipe.convert(tmp_path / f"m{source}", path) == ()
            assert content_of(path) == content_of(tmp_path / f"m{target}")


def test_a_place_on_the_earth_stays(tmp_path: Path) -> None:
    place = (10.0, 0.0, 5e5, 0.0, -10.0, 4e6)
    spec = make_spec((600, 700), crs=UTM, transform=place, pixel_size=None)
    make_mask(tmp_path / "m.ome.zarr", spec)
    tilepipe.convert(tmp_path / "m.ome.zarr", tmp_path / "m.tif")
    tilepipe.convert(tmp_path / "m.tif", tmp_path / "n.ome.zarr")
    again = open_zarr_mask(tmp_path / "n.ome.zarr")
    assert again.transform == place
    assert rasterio.crs.CRS.from_wkt(str(again.crs)) == rasterio.crs.CRS.from_wkt(UTM)


def test_what_lies_beside_a_mask_goes_where_it_can(tmp_path: Path) -> None:
    source = tmp_path / "m.ome.zarr"
    make_mask(source, make_spec((600, 700)), probabilities="uint8")
    assert tilepipe.convert(source, tmp_path / "n.ome.zarr") == ()
    assert tree(tmp_path / "n.ome.zarr") == tree(source)
    (sentence,) = tilepipe.convert(source, tmp_path / "n.tif")
    assert sentence.startswith("probabilities: left out")


@pytest.mark.parametrize("levels", ["missing", "stale"])
def test_a_mask_without_its_levels_gets_them(tmp_path: Path, levels: str) -> None:
    spec = make_spec((700, 1100))
    bare = create_mask(tmp_path / "bare.ome.zarr", spec)
    bare.write(whole(bare.shape), make_content(spec))
    whole_mask = make_mask(tmp_path / "m.ome.zarr", spec)
    if levels == "stale":
        export(bare, tmp_path / "bare.ome.tif")  # whose levels are without an answer
        source = tmp_path / "bare.ome.tif"
    else:
        source = tmp_path / "bare.ome.zarr"
    tilepipe.convert(source, tmp_path / "n.tif")
    export(whole_mask, tmp_path / "m.tif")
    assert content_of(tmp_path / "n.tif") == content_of(tmp_path / "m.tif")


def test_memory_does_not_change_the_result(tmp_path: Path) -> None:
    make_mask(tmp_path / "m.ome.zarr", make_spec((1700, 2100)))
    for name, memory in (("a", 1), ("b", 2**30)):
        tilepipe.convert(
            tmp_path / "m.ome.zarr", tmp_path / f"{name}.ome.zarr", memory_limit=memory
        )
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


def write_geotiff(path: Path, labels: NDArray[np.uint8], nodata: int) -> None:
    height, width = labels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8",
        nodata=nodata, crs=UTM, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)


def other_labels(folder: Path, form: str) -> Path:
    """Labels by another program: values 0 and 1, or 0 and 255."""
    labels = some_labels()
    path = folder / f"{form}.{'png' if 'png' in form else 'tif'}"
    if form == "png":
        Picture.fromarray(labels).save(path)
    elif form == "uint16":
        tifffile.imwrite(path, labels.astype(np.uint16))
    elif form == "one strip":
        tifffile.imwrite(path, labels, rowsperstrip=len(labels), compression="zlib")
    else:
        tifffile.imwrite(path, labels, tile=(128, 128))
    return path


@pytest.mark.parametrize("form", ["tiled", "one strip", "uint16", "png"])
def test_labels_of_other_programs_get_the_classes_given(tmp_path: Path, form: str) -> None:
    source = other_labels(tmp_path, form)
    tilepipe.convert(source, tmp_path / "m.ome.tif", classes=CLASSES_GIVEN)
    mask = open_mask(tmp_path / "m.ome.tif")
    assert mask.classes is not None
    assert [(c.name, c.colour) for c in mask.classes] == [
        ("background", "#000000"), ("nucleus", "#ff0000"),
    ]  # fmt: skip
    np.testing.assert_array_equal(mask.read(whole(mask.shape)), some_labels())
    assert mask.levels == ((700, 1100), (350, 550), (175, 275))


def test_the_classes_may_be_those_of_a_model(tmp_path: Path) -> None:
    source = other_labels(tmp_path, "tiled")
    tilepipe.convert(source, tmp_path / "m.ome.tif", model="nuclei-he")
    mask = open_mask(tmp_path / "m.ome.tif")
    assert mask.classes is not None
    assert "nucleus" in [c.name for c in mask.classes]


def test_declared_nodata_has_no_answer_unless_it_is_0(tmp_path: Path) -> None:
    labels = some_labels()
    labels[:50] = 7
    for nodata in (0, 7):
        path = tmp_path / f"{nodata}.tif"
        write_geotiff(path, labels, nodata)
        classes = "a,b" if nodata else "0=a,1=b,7=c"
        tilepipe.convert(path, tmp_path / f"{nodata}.ome.tif", classes=classes)
    assert (labels_of(tmp_path / "7.ome.tif")[:50] == 255).all()
    np.testing.assert_array_equal(labels_of(tmp_path / "0.ome.tif"), labels)


def test_values_of_0_and_255_are_one_class_if_the_user_says_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "b.tif", some_labels() * np.uint8(255))
    with pytest.raises(InputError, match=r"add --binary"):
        tilepipe.convert(tmp_path / "b.tif", tmp_path / "m.ome.tif", classes=CLASSES_GIVEN)
    assert not (tmp_path / "m.ome.tif").exists()
    tilepipe.convert(tmp_path / "b.tif", tmp_path / "m.ome.tif", classes=CLASSES_GIVEN, binary=True)
    np.testing.assert_array_equal(labels_of(tmp_path / "m.ome.tif"), some_labels())


def test_binary_does_not_make_up_what_has_no_answer(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "b.tif", some_labels(), nodata=9)
    with pytest.raises(InputError, match="--binary"):
        tilepipe.convert(tmp_path / "b.tif", tmp_path / "m.tif", classes="a,b", binary=True)


def test_a_label_that_is_no_class_is_named_with_its_place(tmp_path: Path) -> None:
    labels = some_labels()
    labels[650, 1050] = 9
    tifffile.imwrite(tmp_path / "l.tif", labels)
    with pytest.raises(InputError, match="the label 9 at row 650, column 1,050"):
        tilepipe.convert(tmp_path / "l.tif", tmp_path / "m.tif", classes=CLASSES_GIVEN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l.tif"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "is an image as far as can be told"),
        ({"kind": "mask"}, "does not say what its labels mean"),
        ({"classes": ",".join(f"c{n}" for n in range(300))}, "has the label 255"),
        ({"classes": "a", "model": "nuclei-he"}, "given twice"),
        ({"kind": "image", "binary": True}, "cannot be combined"),
        ({"classes": "a,b", "image": "x.tif"}, "only drawn on by a .png"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    source = other_labels(tmp_path, "tiled")
    with pytest.raises(InputError, match=says):
        tilepipe.convert(source, tmp_path / "m.ome.tif", **options)
    assert not (tmp_path / "m.ome.tif").exists()


def test_the_numbers_of_objects_are_no_classes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "n.tif", np.arange(70 * 90, dtype=np.int32).reshape(70, 90))
    with pytest.raises(InputError, match="if labels are the numbers of objects"):
        tilepipe.convert(tmp_path / "n.tif", tmp_path / "m.tif", classes=CLASSES_GIVEN)


def test_a_target_that_is_there_is_replaced_only_on_demand(tmp_path: Path) -> None:
    make_mask(tmp_path / "m.ome.zarr", make_spec((60, 70)))
    (tmp_path / "n.tif").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        tilepipe.convert(tmp_path / "m.ome.zarr", tmp_path / "n.tif")
    assert (tmp_path / "n.tif").read_bytes() == b"mine"
    tilepipe.convert(tmp_path / "m.ome.zarr", tmp_path / "n.tif", overwrite=True)
    np.testing.assert_array_equal(labels_of(tmp_path / "n.tif"), labels_of(tmp_path / "m.ome.zarr"))
    with pytest.raises(InputError, match="is the mask, or contains it"):
        tilepipe.convert(tmp_path / "m.ome.zarr", tmp_path / "m.ome.zarr", overwrite=True)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_mask(tmp_path / "m.ome.zarr", make_spec((60, 70)))
    export(open_zarr_mask(tmp_path / "m.ome.zarr"), tmp_path / "m.ome.tif")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "n.tif")

    monkeypatch.setattr(rewrite_module, "export", full)
    with pytest.raises(EnvironmentFailure, match="make room"):
        tilepipe.convert(tmp_path / "m.ome.tif", tmp_path / "n.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.ome.tif", "m.ome.zarr"]


def test_a_picture_lies_on_the_image_of_any_scale(tmp_path: Path) -> None:
    make_mask(tmp_path / "m.ome.zarr", make_spec((300, 200)))
    tifffile.imwrite(tmp_path / "i.tif", np.full((150, 100, 3), 90, np.uint8), photometric="rgb")
    source = tmp_path / "m.ome.zarr"
    tilepipe.convert(source, tmp_path / "on.png", image=tmp_path / "i.tif")
    tilepipe.convert(source, tmp_path / "off.png")
    on, off = (np.asarray(Picture.open(tmp_path / name)) for name in ("on.png", "off.png"))
    background = labels_of(source) == 0
    assert (on[:300, :200][background] == 90).all()
    assert (off[:300, :200][background] == 235).all()


def test_labels_in_ome_zarr_are_never_averaged_as_an_image(tmp_path: Path) -> None:
    """Masks of other programs without names are refused, not taken for images."""
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((60, 70)))
    document = json.loads((mask.path / "zarr.json").read_text())
    del document["attributes"]["tilepipe"]
    document["attributes"]["ome"]["image-label"] = {"version": "0.5"}
    (mask.path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="does not say what its labels mean"):
        tilepipe.convert(mask.path, tmp_path / "n.ome.zarr")


def test_a_partial_mask_says_so_for_good(tmp_path: Path) -> None:
    spec = make_spec((60, 70), partial=True)
    assert MaskSpec.from_json(spec.to_json()).partial
    assert "partial" not in make_spec((60, 70)).to_json()
    make_mask(tmp_path / "m.ome.zarr", spec)
    tilepipe.convert(tmp_path / "m.ome.zarr", tmp_path / "m.tif")
    tilepipe.convert(tmp_path / "m.tif", tmp_path / "n.ome.zarr")
    assert open_zarr_mask(tmp_path / "n.ome.zarr").spec.partial


def test_the_command_line_says_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(other_labels(tmp_path, "tiled"))
    assert call(["convert", source, str(tmp_path / "m.ome.tif")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert call(["convert", source, str(tmp_path / "m.ome.tif"), "--classes", CLASSES_GIVEN]) == 0
    assert capsys.readouterr().out.strip().endswith("m.ome.tif")


@pytest.mark.slow
def test_an_unfinished_run_is_converted_on_demand_only(tmp_path: Path, model: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(1600, 700))
    source, target = tmp_path / "m.ome.zarr", tmp_path / "m.ome.tif"
    tilepipe.run(image, model=model, outputs=[source], window=572, threads=1)
    assert tilepipe.convert(source, target) == ()
    assert not open_mask(target).spec.partial  # type: ignore[attr-defined]
    ledger = source / ".tilepipe" / "ledger"
    lines = ledger.read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if b'"kind":"block"' in line)
    ledger.write_bytes(b"".join(lines[:first] + lines[first + 1 :]))
    with pytest.raises(InputError, match=r"not finished and lacks 1 of \d+ blocks"):
        tilepipe.convert(source, target, overwrite=True)
    tilepipe.convert(source, target, overwrite=True, partial=True)
    assert open_mask(target).spec.partial  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["attributes"]["tilepipe"]["pixel_size"].update(y=0), "pixel size of"),
        (lambda d: d["attributes"]["tilepipe"].update(classes=[]), "cannot be opened as a mask"),
    ],
)
def test_metadata_that_are_damaged_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((60, 70)))
    document = json.loads((mask.path / "zarr.json").read_text())
    change(document)
    (mask.path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=says):
        tilepipe.convert(mask.path, tmp_path / "n.tif", kind="mask")


def test_an_array_without_pixels_is_refused(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((60, 70)))
    document = json.loads((mask.path / "0" / "zarr.json").read_text())
    document["shape"] = [0, 70]
    (mask.path / "0" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="70 x 0 pixels is empty"):
        tilepipe.convert(mask.path, tmp_path / "n.tif")
