"""Runs that make objects, and objects of masks that are finished."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilepipe
from tests.making import WINDOW, make_image, make_model, write_tiff
from tests.objects import oracle
from tilepipe.engine.events import RunCallbacks
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.models.file import save_model
from tilepipe.models.object_rule import ObjectRule
from tilepipe.models.unet import UNetArguments
from tilepipe.objects.rules import part_table
from tilepipe.objects.table import open_table
from tilepipe.objects.whole import number_parts
from tilepipe.products.instances import open_instances
from tilepipe.products.store import open_zarr_mask

RULE = ObjectRule("split", ("nucleus",), min_area=6, fill_holes=True, max_hole=90)
SHAPE = 700, 900


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    write_tiff(folder / "slide.tif", make_image(*SHAPE))
    model = make_model(UNetArguments(3, 3, 4, 2))
    save_model(folder / "tiny.safetensors", replace(
        model, output=replace(model.output, objects=RULE)))  # fmt: skip
    return folder


def run(place: Path, *outputs: str, watch: RunCallbacks | None = None, **options: Any) -> Any:
    return tilepipe.run(
        place / "slide.tif", model=str(place / "tiny.safetensors"), outputs=list(outputs),
        window=WINDOW, watch=watch, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    folder = place / "finished"
    run(place, f"{folder}/", probabilities="float16")
    return folder


def mask_in(folder: Path) -> Path:
    return folder / "slide_mask.ome.zarr"


def expected(folder: Path, rule: ObjectRule = RULE) -> Any:
    mask = open_zarr_mask(mask_in(folder))
    spec = mask.spec
    table = part_table(rule, mask.kind, [c.name for c in spec.classes], spec.background)
    return number_parts(table.parts(np.asarray(mask.as_dask())), rule)


def test_the_objects_of_a_run_are_those_of_the_whole_mask(finished: Path) -> None:
    objects = open_instances(mask_in(finished) / "objects")
    wanted = expected(finished)
    assert (np.asarray(objects._arrays[0][:]) == wanted).all()
    found = oracle.numbered(wanted)  # the oracle agrees about the order of numbers
    assert (found == wanted).all()
    table = open_table(mask_in(finished) / "objects" / "table")
    assert len(table) == wanted.max() > 20
    sizes = np.bincount(wanted.reshape(-1))[1:]
    np.testing.assert_allclose(table.column("area"), sizes * 0.0625)
    assert "mean_probability" in {column.name for column in table.info.columns}
    document = json.loads((finished / "slide_objects.geojson").read_text())
    assert len(document["features"]) == len(table)


def test_the_plan_says_how_objects_are_made(place: Path, tmp_path: Path) -> None:
    from tilepipe.cli.show import show_plan

    image, model = place / "slide.tif", str(place / "tiny.safetensors")
    named: dict[str, Any] = {"outputs": [str(tmp_path / "n.geojson")], "window": 572}
    shown = show_plan(*tilepipe.plan(image, model=model, **named))
    assert (
        "objects   split nucleus, at necks 1 px deep, from 6 px, holes up to 90 px filled" in shown
    )
    assert "objects " not in show_plan(*tilepipe.plan(image, model=model, window=WINDOW, outputs=[
        str(tmp_path / "m.ome.zarr")], objects="none"))  # fmt: skip


def test_the_summary_counts_them(place: Path, finished: Path) -> None:
    again = run(place, f"{finished}/", probabilities="float16")  # from its record
    assert again.objects is not None
    assert again.objects.total.count == expected(finished).max()
    assert again.to_dict()["objects"]["classes"][0]["name"] == "nucleus"


class Interrupting(RunCallbacks):
    """Stops a run where a part of it begins."""

    def __init__(self, title: str) -> None:
        self.title = title

    def stage(self, name: str) -> None:
        if name == self.title:
            raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if (file.is_file() and ".tilepipe" not in file.parts and not file.name.endswith(".json"))
        or file.name in ("zarr.json", "slide_objects.geojson")
    }  # fmt: skip


@pytest.mark.parametrize(
    "title",
    ["filling holes", "finding objects", "numbering objects", "outlining objects",
     "table of objects", "writing slide_objects.geojson"],
)  # fmt: skip
def test_a_run_stopped_in_any_stage_ends_with_the_same_bytes(
    title: str, place: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "again")
    again = tmp_path / "again"
    for name in ("slide_objects.geojson", "slide_mask.run.json"):
        (again / name).unlink()
    shutil.rmtree(mask_in(again) / "objects")
    with pytest.raises(KeyboardInterrupt):
        run(place, f"{again}/", probabilities="float16", watch=Interrupting(title))
    run(place, f"{again}/", probabilities="float16")
    assert contents(again) == contents(finished)
    assert not (mask_in(again) / ".tilepipe" / "objects").exists()


def test_objects_of_the_finished_mask_are_those_of_the_run(finished: Path, tmp_path: Path) -> None:
    found = tilepipe.find_objects(mask_in(finished), outputs=[str(tmp_path / "n.geojson")])
    assert found.rule == RULE
    made = (tmp_path / "n.geojson").read_bytes()
    assert made == (finished / "slide_objects.geojson").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["n.geojson"]


def test_another_rule_makes_others(finished: Path, tmp_path: Path) -> None:
    found = tilepipe.find_objects(
        mask_in(finished), outputs=[str(tmp_path / "n.csv")], method="seeded", only=["nucleus"],
        border="border", reach=2, min_area="0.5um2",
    )  # fmt: skip
    rule = ObjectRule("seeded", ("nucleus",), "border", 2, min_area=8, fill_holes=True, max_hole=90)
    assert found.rule == rule
    assert found.summary.total.count == expected(finished, rule).max()


def test_verify_finds_objects_again_and_says_what_differs(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    mask = mask_in(tmp_path / "copy")
    good = tilepipe.verify(mask, windows=2)
    assert good.exact
    assert any("found again" in sentence for sentence in good.covered)
    area = tmp_path.joinpath("copy/slide_mask.ome.zarr/objects/table/columns/area")
    import zarr

    array = zarr.open_array(area, mode="r+")
    array[:] = np.asarray(array[:]) + 1
    bad = tilepipe.verify(mask, windows=2)
    assert not bad.exact
    assert "area" in str(bad.damage)


def test_numbers_that_are_not_the_masks_are_found(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    mask = mask_in(tmp_path / "copy")
    objects = open_instances(mask / "objects")
    labels = objects._arrays[0]
    labels[:] = np.where(np.asarray(labels[:]) == 5, 6, np.asarray(labels[:]))
    bad = tilepipe.verify(mask, windows=8)
    assert not bad.exact


def test_a_plan_without_objects_resumes_without_them(place: Path, tmp_path: Path) -> None:
    """As runs do that an older version began."""
    folder = tmp_path / "old"
    run(place, f"{folder}/", objects="none")
    again = run(place, f"{folder}/")
    assert again.objects is None
    with pytest.raises(InputError, match=r"objects was none, now split nucleus.*tilepipe objects"):
        run(place, str(mask_in(folder)), str(folder / "n.geojson"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": "none"}, "none is given, and an output for objects"),
        ({"objects": "seeded"}, "does not say what its core and border classes are"),
        ({"min_area": "20 parsecs"}, "is not an area"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    place: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(place, str(tmp_path / "n.geojson"), **options)
    assert not list(tmp_path.iterdir())


def test_only_objects_may_be_asked_for(place: Path, finished: Path, tmp_path: Path) -> None:
    run(place, str(tmp_path / "n.geojson"), probabilities=None)
    assert {file.name for file in tmp_path.iterdir()} == {"n.geojson", "n.geojson.run.json"}
    count = len(json.loads((tmp_path / "n.geojson").read_text())["features"])
    assert count == expected(finished).max()
    again = run(place, str(tmp_path / "n.geojson"))
    assert again.objects is not None  # recalled, as nothing is left to do


def test_a_mask_without_classes_needs_them(tmp_path: Path) -> None:
    import tifffile

    labels = np.zeros((60, 80), np.uint8)
    labels[10:20, 10:20], labels[20:30, 20:30], labels[40:50, 5:9] = 1, 1, 2
    tifffile.imwrite(tmp_path / "theirs.tif", labels, tile=(16, 16))
    with pytest.raises(InputError, match="does not say what its labels mean"):
        tilepipe.find_objects(tmp_path / "theirs.tif", outputs=[str(tmp_path / "n.csv")])
    found = tilepipe.find_objects(
        tmp_path / "theirs.tif", outputs=[str(tmp_path / "n.csv")], classes="0=none,1=a,2=b"
    )
    assert [(c.name, c.count) for c in found.summary.classes] == [("a", 1), ("b", 1)]


def test_an_unfinished_run_is_refused_or_named(place: Path, tmp_path: Path) -> None:
    class Stop(RunCallbacks):
        def submitted(self) -> None:
            raise KeyboardInterrupt

    mask = tmp_path / "m.ome.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(place, str(mask), watch=Stop())
    with pytest.raises(InputError, match="lacks"):
        tilepipe.find_objects(mask, outputs=[str(tmp_path / "n.geojson")])
    tilepipe.find_objects(mask, outputs=[str(tmp_path / "n.ome.zarr")], partial=True)
    assert open_table(tmp_path / "n.ome.zarr" / "table").info.partial


@pytest.mark.parametrize("name", ["n.shp", "n.tif", "mask"])
def test_no_format_of_objects_is_refused(finished: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="objects cannot be written in this format"):
        tilepipe.find_objects(mask_in(finished), outputs=[str(tmp_path / name)])


def test_what_exists_is_kept(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "n.geojson"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        tilepipe.find_objects(mask_in(finished), outputs=[str(path)])
    assert path.read_text() == "mine"
    tilepipe.find_objects(mask_in(finished), outputs=[str(path)], overwrite=True)
    assert path.read_bytes() == (finished / "slide_objects.geojson").read_bytes()


@pytest.mark.slow
def test_worker_processes_make_the_same_bytes(place: Path, finished: Path, tmp_path: Path) -> None:
    run(place, f"{tmp_path / 'two'}/", probabilities="float16", workers=2)
    assert contents(tmp_path / "two") == contents(finished)


LABELS = ("n.objects.ome.tif", "n.objects.tif")


def test_numbers_are_written_as_tiff(place: Path, finished: Path, tmp_path: Path) -> None:
    import tifffile

    numbers = open_instances(mask_in(finished) / "objects").read(Window(0, 0, *SHAPE))
    run(place, *(str(tmp_path / name) for name in LABELS))
    for name in LABELS:
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), numbers)
        found = tilepipe.validate(tmp_path / name)
        assert found.problems == ()
        assert found.facts["content"] == "numbers"
    first = {name: (tmp_path / name).read_bytes() for name in LABELS}
    (tmp_path / "n.objects.qml").unlink()
    run(place, *(str(tmp_path / name) for name in LABELS), overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in LABELS} == first
    assert (tmp_path / "n.objects.qml").exists()
    tilepipe.find_objects(
        mask_in(finished), outputs=[str(tmp_path / f"again.{name}") for name in LABELS]
    )
    for name in LABELS:
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"again.{name}"), numbers)


def test_validate_looks_at_the_objects_of_a_mask(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(mask_in(finished), tmp_path / "m.ome.zarr")
    mask = tmp_path / "m.ome.zarr"
    assert tilepipe.validate(mask).problems == ()
    numbers = tilepipe.validate(mask / "objects")
    assert numbers.problems == ()
    assert numbers.facts["content"] == "numbers"
    chunk = next((mask / "objects" / "table" / "columns" / "number").rglob("c/0"))
    chunk.unlink()
    found = tilepipe.validate(mask)
    assert any(
        "objects: " in problem and "rows are missing" in problem for problem in found.problems
    )
    for name, verdict in (("slide_objects.geojson", "manual"), ("slide_mask.tif", "cannot")):
        if (finished / name).exists():
            readers = {one.reader: one for one in tilepipe.validate(finished / name).openings}
            assert readers["geopandas"].verdict == verdict


# ------------------------------------------------------------------ parts of an image, other grids


def features(path: Path) -> list[Any]:
    return list(json.loads(path.read_text())["features"])


def polygons(path: Path) -> list[Any]:
    import shapely

    return [shapely.geometry.shape(each["geometry"]) for each in features(path)]


def test_outlines_of_a_coarser_mask_lie_right_on_the_image(place: Path, tmp_path: Path) -> None:
    """Objects are made on the model's grid, and their outlines are in pixels of the image."""
    import shapely

    plain, like = (
        [str(tmp_path / f"{name}{suffix}") for suffix in (".ome.zarr", ".geojson")]
        for name in ("plain", "like")
    )
    run(place, *plain, pixel_size=0.125)
    run(place, *like, pixel_size=0.125, like_image=True)
    assert open_zarr_mask(tmp_path / "like.ome.zarr").shape == SHAPE
    same, other = (features(tmp_path / f"{name}.geojson") for name in ("plain", "like"))
    # Their ids differ, as the masks have other names.
    assert [each | {"id": ""} for each in same] == [each | {"id": ""} for each in other]
    numbers = open_instances(tmp_path / "plain.ome.zarr" / "objects").read(Window(0, 0, 350, 450))
    on_image = numbers.repeat(2, axis=0).repeat(2, axis=1)
    found = polygons(tmp_path / "like.geojson")
    assert len(found) == numbers.max() > 20
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    drawn = np.zeros(SHAPE, np.uint32)
    for number, each in enumerate(found, 1):
        left, top, right, bottom = (int(side) for side in each.bounds)
        part = slice(top, bottom), slice(left, right)
        drawn[part][shapely.contains_xy(each, x[part] + 0.5, y[part] + 0.5)] = number
    assert (drawn == on_image).all()


def test_objects_of_a_region_lie_in_it_and_their_density_is_by_what_has_an_answer(
    place: Path, tmp_path: Path
) -> None:
    region = tmp_path / "region.geojson"
    ring = [[100, 120], [420, 120], [420, 500], [100, 500], [100, 120]]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    outputs = [str(tmp_path / name) for name in ("m.ome.zarr", "n.geojson")]
    summary = run(place, *outputs, tissue=str(region))
    answered = np.asarray(open_zarr_mask(tmp_path / "m.ome.zarr").as_dask()) != 255
    assert 0 < answered.sum() < 0.5 * answered.size
    found = polygons(tmp_path / "n.geojson")
    assert len(found) == summary.objects.total.count > 5
    for each in found:
        x, y = each.representative_point().coords[0]
        assert answered[int(y), int(x)]
    area = answered.sum() * (0.25e-3) ** 2  # mm2
    assert summary.objects.total.density == pytest.approx(len(found) / area, rel=1e-3)


def test_objects_of_a_damaged_image_say_that_some_may_be_missing(
    place: Path, tmp_path: Path
) -> None:
    from tests.making import zero_tiles

    (tmp_path / "images").mkdir()
    shutil.copy(place / "slide.tif", tmp_path / "images" / "slide.tif")
    shutil.copy(place / "tiny.safetensors", tmp_path / "images" / "tiny.safetensors")
    zero_tiles(tmp_path / "images" / "slide.tif", [0])
    outputs = [str(tmp_path / name) for name in ("m.ome.zarr", "n.geojson", "n.gpkg")]
    summary = run(tmp_path / "images", *outputs)
    assert summary.incomplete
    assert "could not be read whole" in summary.objects.partial
    info = open_table(tmp_path / "m.ome.zarr" / "objects" / "table").info
    assert info.partial == summary.objects.partial
    assert summary.to_dict()["objects"]["partial"]
    # Repaired, the run goes on where it was, and its objects are those of the whole image.
    shutil.copy(place / "slide.tif", tmp_path / "images" / "slide.tif")
    whole = run(tmp_path / "images", *outputs)
    assert not whole.objects.partial
    assert whole.objects.total.count > summary.objects.total.count
    assert not open_table(tmp_path / "m.ome.zarr" / "objects" / "table").info.partial


def test_a_coarser_mask_without_a_pixel_size_lies_right_or_asks_for_its_image(
    tmp_path: Path,
) -> None:
    """Its scale is in its image alone."""
    import tifffile

    pixels = make_image(*SHAPE)
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        whole = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
        file.write(pixels, subifds=1, **whole)
        file.write(pixels[::2, ::2], subfiletype=1, **whole)
    model = make_model(UNetArguments(3, 3, 4, 2), pixel_size_um=None)
    save_model(tmp_path / "m.safetensors", replace(
        model, output=replace(model.output, objects=RULE)))  # fmt: skip
    mask, of_run = tmp_path / "m.ome.zarr", tmp_path / "run.geojson"
    outputs = [str(mask), str(of_run)]
    tilepipe.run(
        path, model=str(tmp_path / "m.safetensors"), outputs=outputs, level=1, window=WINDOW
    )
    features = json.loads(of_run.read_text())["features"]
    corners = np.concatenate([np.reshape(f["geometry"]["coordinates"][0], (-1, 2))
                              for f in features if f["geometry"]["type"] == "Polygon"])  # fmt: skip
    assert corners.max() > max(SHAPE) // 2 + 2  # in pixels of level 0
    later = tmp_path / "later.geojson"
    tilepipe.find_objects(mask, outputs=[str(later)])
    assert later.read_bytes() == of_run.read_bytes()
    later.unlink()
    moved = path.rename(tmp_path / "moved.tif")
    with pytest.raises(InputError, match="give the image of the mask with --image"):
        tilepipe.find_objects(mask, outputs=[str(later)])
    tilepipe.find_objects(mask, outputs=[str(later)], image=str(moved))
    assert later.read_bytes() == of_run.read_bytes()


def test_labels_without_a_class_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    import tifffile

    labels = np.zeros((60, 80), np.uint8)
    labels[10:20, 10:20] = 9
    tifffile.imwrite(tmp_path / "theirs.tif", labels, tile=(16, 16))
    with pytest.raises(InputError, match=r"theirs\.tif: has label 9, and classes only for 0 to 1"):
        tilepipe.find_objects(
            tmp_path / "theirs.tif", outputs=[str(tmp_path / "n.csv")], classes="0=none,1=a"
        )
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.tif"]
