"""Masks inside the OME-Zarr of their image, and together with it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import tilepipe
from tests.making import digest, make_image, save_tiny, write_tiff
from tilepipe.engine.events import RunCallbacks
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.grid import Window
from tilepipe.images.convert import convert
from tilepipe.models.unet import UNetArguments
from tilepipe.products.image_labels import list_label, unlist_label
from tilepipe.products.label_path import LabelPath, label_path
from tilepipe.products.store import open_zarr_mask

HEIGHT, WIDTH = 1100, 700


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny(path, UNetArguments(width=1, depth=1), pixel_size_um=0.5)
    return path


@pytest.fixture(scope="module")
def tiff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "slide.tif"
    return write_tiff(path, make_image(HEIGHT, WIDTH), 0.25)


@pytest.fixture(scope="module")
def converted(tiff: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "slide.ome.zarr"
    convert(tiff, path)
    return path


@pytest.fixture
def image(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "slide.ome.zarr"))


def old_image(path: Path, version: str = "0.4", levels: int = 2) -> Path:
    """An image of OME-Zarr 0.4 by others, that does not begin at (0, 0)."""
    pixels = make_image(HEIGHT, WIDTH).transpose(2, 0, 1)
    datasets = []
    for level in range(levels):
        array = zarr.create_array(
            path, name=f"scale{level}", zarr_format=2, shape=pixels.shape, chunks=(3, 256, 256),
            dtype="uint8", chunk_key_encoding={"name": "v2", "separator": "/"},
        )  # fmt: skip
        array[...] = pixels
        steps = [
            {"type": "scale", "scale": [1.0, 0.25 * 2**level, 0.25 * 2**level]},
            {"type": "translation", "translation": [0.0, 100.0, 30.0]},
        ]
        datasets.append({"path": f"scale{level}", "coordinateTransformations": steps})
        pixels = pixels[:, ::2, ::2]
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    multiscale = {"version": version, "axes": axes, "datasets": datasets}
    zarr.open_group(path, mode="a", zarr_format=2).attrs["multiscales"] = [multiscale]
    return path


def run(image: Path, model: Path, *outputs: Path, **more: Any) -> Any:
    return tilepipe.run(image, model=model, outputs=outputs, **({"window": 300} | more))


def transformations(group: Any, level: int) -> list[dict[str, Any]]:
    attributes = dict(group.attrs)
    attributes = attributes.get("ome", attributes)
    dataset = attributes["multiscales"][0]["datasets"][level]
    found: list[dict[str, Any]] = dataset["coordinateTransformations"]
    return found


def test_a_label_lies_in_its_image_and_nothing_else_changes(image: Path, model: Path) -> None:
    before = digest(image)
    path = image / "labels" / "nuclei"
    run(image, model, path)
    after = digest(image)
    assert {name: after[name] for name in before} == before
    added = {name.split("/")[0] + "/" + name.split("/")[1] for name in after.keys() - before.keys()}
    assert added == {"labels/zarr.json", "labels/nuclei"}
    listed = json.loads((image / "labels" / "zarr.json").read_text())
    assert listed["attributes"]["ome"] == {"version": "0.5", "labels": ["nuclei"]}
    assert sorted(p.name for p in image.parent.iterdir()) == [
        "slide.ome.zarr", "slide_labels_nuclei.run.json",
    ]  # fmt: skip


def test_a_label_of_a_coarser_run_is_where_the_mask_is(
    image: Path, model: Path, tmp_path: Path
) -> None:
    path = image / "labels" / "nuclei"
    run(image, model, path, tmp_path / "m.ome.tif")
    run(image, model, tmp_path / "alone.ome.zarr", like_image=True)
    label, alone = open_zarr_mask(path), open_zarr_mask(tmp_path / "alone.ome.zarr")
    assert label.shape == (HEIGHT, WIDTH)
    whole = Window(0, 0, HEIGHT, WIDTH)
    np.testing.assert_array_equal(label.read(whole), alone.read(whole))
    group: Any = zarr.open_group(path, mode="r")
    assert transformations(group, 0) == [{"type": "scale", "scale": [0.25, 0.25]}]
    assert tilepipe.verify(path, windows=4).exact
    exported = tilepipe.open_mask(tmp_path / "m.ome.tif")
    np.testing.assert_array_equal(exported.read(whole), label.read(whole))
    exported.close()


def test_the_versions_levels_and_place_are_the_images(tmp_path: Path, model: Path) -> None:
    image = old_image(tmp_path / "slide.zarr")
    path = image / "labels" / "nuclei"
    run(image, model, path)
    group: Any = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 2
    assert len(group.attrs["multiscales"][0]["datasets"]) == 2
    assert group.attrs["image-label"]["source"] == {"image": "../../"}
    steps = transformations(group, 0)
    assert steps[0]["scale"] == [0.25, 0.25]
    assert steps[1]["translation"] == [100.0, 30.0]
    assert json.loads((image / "labels" / ".zattrs").read_text()) == {"labels": ["nuclei"]}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_others_find_the_label(version: str, tmp_path: Path, image: Path, model: Path) -> None:
    models = pytest.importorskip("ome_zarr_models")
    if version == "0.4":
        image = old_image(tmp_path / "old.zarr")
    for name in ("nuclei", "again"):
        run(image, model, image / "labels" / name)
    found = models.open_ome_zarr(zarr.open_group(image, mode="r"), version=version)
    labels = found.labels
    assert labels is not None
    listed = labels.attributes if version == "0.4" else labels.ome_attributes
    assert list(listed.labels) == ["nuclei", "again"]
    assert sorted(labels.label_paths if hasattr(labels, "label_paths") else listed.labels) == [
        "again", "nuclei",
    ]  # fmt: skip


def test_ngio_reads_the_label(image: Path, model: Path) -> None:
    ngio = pytest.importorskip("ngio")
    run(image, model, image / "labels" / "nuclei")
    container = ngio.open_ome_zarr_container(image)
    assert container.list_labels() == ["nuclei"]
    assert container.get_label("nuclei").get_as_numpy().shape == (HEIGHT, WIDTH)


def test_other_labels_stay_in_the_list(image: Path, model: Path) -> None:
    theirs = zarr.open_group(image, mode="r+").create_group("labels")
    theirs.attrs.update({"ome": {"version": "0.5", "labels": ["cells"]}, "mine": 1})
    run(image, model, image / "labels" / "nuclei")
    attributes = json.loads((image / "labels" / "zarr.json").read_text())["attributes"]
    assert attributes == {"ome": {"version": "0.5", "labels": ["cells", "nuclei"]}, "mine": 1}
    run(image, model, image / "labels" / "nuclei", overwrite=True)
    again = json.loads((image / "labels" / "zarr.json").read_text())["attributes"]
    assert again == attributes


def test_a_finished_label_is_not_made_again(image: Path, model: Path) -> None:
    path = image / "labels" / "nuclei"
    run(image, model, path)
    before = digest(image)
    summary = run(image, model, path, verify=2)
    assert summary.resumed == summary.blocks
    assert summary.verification.exact
    assert digest(image) == before
    with pytest.raises(InputError, match="other settings"):
        run(image, model, path, level=0)


def test_a_strangers_label_is_not_replaced(image: Path, model: Path) -> None:
    path = image / "labels" / "nuclei"
    zarr.open_group(image, mode="r+").create_group("labels/nuclei").attrs["mine"] = 1
    before = digest(image)
    with pytest.raises(InputError, match="exists already"):
        run(image, model, path)
    with pytest.raises(InputError, match="not a mask that tilepipe wrote"):
        run(image, model, path, overwrite=True)
    assert digest(image) == before


class StopAt(RunCallbacks):
    def __init__(self, stage: str) -> None:
        self.at = stage

    def stage(self, name: str) -> None:
        if self.at in name:
            raise EnvironmentFailure("stopped by a test")


def test_an_unfinished_label_is_not_there(image: Path, model: Path) -> None:
    before = digest(image)
    path = image / "labels" / "nuclei"
    with pytest.raises(EnvironmentFailure):
        run(image, model, path, watch=StopAt("nuclei"))
    assert digest(image) == before
    assert (image.parent / "slide_labels_nuclei.unfinished.ome.zarr").is_dir()
    summary = run(image, model, path)
    assert summary.resumed == summary.blocks
    assert open_zarr_mask(path).shape == (HEIGHT, WIDTH)
    assert not (image.parent / "slide_labels_nuclei.unfinished.ome.zarr").exists()


def refusals(image: Path, tmp_path: Path) -> dict[str, tuple[Path, dict[str, Any], str]]:
    label = image / "labels" / "nuclei"
    other = Path(shutil.copytree(image, tmp_path / "other.ome.zarr"))
    return {
        "another image": (other / "labels" / "nuclei", {}, "into its own image"),
        "not a label": (image / "nuclei.ome.zarr", {}, "only labels may"),
        "within a level": (image / "0" / "labels" / "n", {}, "in another image"),
        "a hidden name": (image / "labels" / ".nuclei", {}, "cannot be the name"),
        "probabilities": (label, {"probabilities": "uint8"}, "cannot hold probabilities"),
        "with its image": (label, {"with_image": True}, "has its image already"),
    }


@pytest.mark.parametrize(
    "what",
    [
        "another image", "not a label", "within a level", "a hidden name", "probabilities",
        "with its image",
    ],
)  # fmt: skip
def test_what_cannot_be_a_label_is_refused(
    what: str, image: Path, model: Path, tmp_path: Path
) -> None:
    path, more, reason = refusals(image, tmp_path)[what]
    before = digest(tmp_path)
    with pytest.raises(InputError, match=reason):
        run(image, model, path, **more)
    assert digest(tmp_path) == before


def test_images_that_cannot_take_a_label_are_refused(
    tmp_path: Path, image: Path, tiff: Path, model: Path
) -> None:
    with pytest.raises(InputError, match="into its own image"):
        run(tiff, model, image / "labels" / "nuclei")
    old = old_image(tmp_path / "old.zarr", "0.3")
    with pytest.raises(InputError, match=r"OME-Zarr 0\.3"):
        run(old, model, old / "labels" / "nuclei")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few can read it
        zarr.consolidate_metadata(image)
    with pytest.raises(InputError, match="consolidated metadata"):
        run(image, model, image / "labels" / "nuclei")


def test_an_image_among_several_takes_its_label_by_its_own_path(
    converted: Path, tmp_path: Path, model: Path
) -> None:
    several = tmp_path / "several.zarr"
    zarr.open_group(several, mode="w").attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for name in "01":
        shutil.copytree(converted, several / name)
    path = several / "1" / "labels" / "nuclei"
    with pytest.raises(InputError, match=r"several\.zarr/1 as the image"):
        run(several, model, path, series=1)
    with pytest.raises(InputError, match="not an OME-Zarr image itself"):
        run(several, model, several / "labels" / "nuclei", series=1)
    run(several / "1", model, path)
    assert open_zarr_mask(path).shape == (HEIGHT, WIDTH)
    assert (tmp_path / "several_1_labels_nuclei.run.json").exists()


def test_planes_are_no_label(image: Path, tmp_path: Path) -> None:
    several = tmp_path / "several.safetensors"
    save_tiny(several, UNetArguments(width=1, depth=1), pixel_size_um=0.25, activation="sigmoid")
    with pytest.raises(InputError, match="one number a pixel"):
        run(image, several, image / "labels" / "nuclei")


def test_the_list_is_only_ever_added_to(image: Path) -> None:
    labels = [LabelPath(image, name) for name in ("b", "a", "b")]
    for label in labels:
        list_label(label)
    listed = image / "labels" / "zarr.json"
    assert json.loads(listed.read_text())["attributes"]["ome"]["labels"] == ["b", "a"]
    unlist_label(labels[0])
    assert json.loads(listed.read_text())["attributes"]["ome"]["labels"] == ["a"]
    listed.write_text("[]")
    with pytest.raises(InputError, match="not a list of labels"):
        list_label(labels[0])
    assert listed.read_text() == "[]"


def test_a_list_in_the_form_of_another_version_is_kept(image: Path) -> None:
    theirs = zarr.open_group(image, mode="r+").create_group("labels")
    theirs.attrs["labels"] = ["cells"]
    list_label(LabelPath(image, "nuclei"))
    document = json.loads((image / "labels" / "zarr.json").read_text())
    assert document["attributes"]["ome"]["labels"] == ["cells", "nuclei"]


def test_labels_added_at_once_are_all_listed(image: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = [f"label{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: list_label(LabelPath(image, name)), names))
    document = json.loads((image / "labels" / "zarr.json").read_text())
    assert sorted(document["attributes"]["ome"]["labels"]) == sorted(names)


@pytest.mark.parametrize(
    ("path", "beside"),
    [
        ("/a/slide.ome.zarr/labels/n", "/a/slide_labels_n"),
        ("/a/slide.zarr/0/labels/n", "/a/slide_0_labels_n"),
        ("/a/plate.zarr/A/1/0/labels/n", "/a/plate_A_1_0_labels_n"),
    ],
)
def test_what_is_not_the_images_lies_beside_it(path: str, beside: str) -> None:
    label = label_path(Path(path))
    assert label is not None
    assert label.path == Path(path)
    assert label.beside == Path(beside)


@pytest.mark.parametrize("path", ["/a/labels/n", "/a/slide.ome.zarr", "/a/slide.zarr/masks/n", "n"])
def test_other_paths_are_no_labels(path: str) -> None:
    assert label_path(Path(path)) is None


def test_an_image_is_converted_with_its_mask(tiff: Path, model: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.ome.zarr"
    summary = run(tiff, model, both, with_image=True)
    assert summary.outputs == (both,)
    convert(tiff, tmp_path / "alone.ome.zarr")
    alone, found = digest(tmp_path / "alone.ome.zarr"), digest(both)
    assert {name: found[name] for name in alone} == alone
    run(tiff, model, tmp_path / "m.ome.zarr", like_image=True)
    label, mask = open_zarr_mask(both / "labels" / "mask"), open_zarr_mask(tmp_path / "m.ome.zarr")
    whole = Window(0, 0, HEIGHT, WIDTH)
    np.testing.assert_array_equal(label.read(whole), mask.read(whole))
    group: Any = zarr.open_group(both, mode="r")
    assert transformations(group, 0)[0]["scale"][1:] == transformations(
        group["labels/mask"], 0
    )[0]["scale"]  # fmt: skip
    for path in (both, both / "labels" / "mask"):
        assert tilepipe.verify(path, windows=2).exact
    models = pytest.importorskip("ome_zarr_models")
    image = models.open_ome_zarr(group, version="0.5")
    assert list(image.labels.ome_attributes.labels) == ["mask"]


def test_image_and_mask_appear_together_and_once(tiff: Path, model: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.ome.zarr"
    with pytest.raises(EnvironmentFailure):
        run(tiff, model, both, with_image=True, watch=StopAt("both"))
    assert not both.exists()
    run(tiff, model, both, with_image=True)
    before = digest(tmp_path)
    summary = run(tiff, model, both, with_image=True, verify=1)
    assert summary.verification.exact
    assert digest(tmp_path) == before
    run(tiff, model, both, with_image=True, overwrite=True)
    assert digest(tmp_path) == before


def test_an_image_is_not_overwritten_with_a_mask(
    image: Path, tiff: Path, model: Path, tmp_path: Path
) -> None:
    before = digest(image)
    with pytest.raises(InputError, match="exists already"):
        run(tiff, model, image, with_image=True)
    with pytest.raises(InputError, match="not a mask that tilepipe wrote"):
        run(tiff, model, image, with_image=True, overwrite=True)
    assert digest(image) == before
    with pytest.raises(InputError, match="needs an OME-Zarr output"):
        run(tiff, model, tmp_path / "m.tif", with_image=True)
    with pytest.raises(InputError, match=r"0\.5 only"):
        run(tiff, model, tmp_path / "m.ome.zarr", with_image=True, ngff="0.4")
