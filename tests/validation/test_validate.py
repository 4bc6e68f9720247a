"""Results against the specifications of their formats, and what is said of their readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import Resampling

import tilepipe
from tests.images.making import write_scene
from tests.making import make_image, write_tiff
from tests.products.making import KINDS, make_mask, make_spec
from tilepipe.cli import call
from tilepipe.errors import InputError
from tilepipe.products.formats import export
from tilepipe.products.store import create_mask
from tilepipe.validation import registry
from tilepipe.validation.readers import READERS, TABLE, openings
from tilepipe.validation.result import Checked, Validation

Document = dict[str, Any]


def of_reader(found: Validation, reader: str) -> tuple[str, str]:
    return next((one.verdict, one.what) for one in found.openings if one.reader == reader)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1025, 700)])
def test_what_tilepipe_writes_follows_its_specification(
    tmp_path: Path, kind: str, shape: tuple[int, int]
) -> None:
    probabilities = "uint8" if kind == "labels" else None
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(shape, kind), probabilities=probabilities)
    for name in ("m.ome.tif", "m.tif"):
        export(mask, tmp_path / name)
    names = [
        "m.ome.zarr",
        "m.ome.tif",
        "m.tif",
        *(["m.ome.zarr/probabilities"] * bool(probabilities)),
    ]
    for name in names:
        found = tilepipe.validate(tmp_path / name)
        assert found.problems == ()
        assert found.facts["content"] == ("probabilities" if "prob" in name else kind)
        assert [one.reader for one in found.openings] == list(READERS)


def test_what_is_made_for_viewers_is_known_as_such(tmp_path: Path) -> None:
    """One channel a class, and products beside a mask, are no labels."""
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((600, 700)), probabilities="uint8")
    export(mask, tmp_path / "c.ome.tif", channels=True)
    for suffix in (".tif", ".ome.tif"):
        export(mask, tmp_path / f"m.probabilities{suffix}")
    for name, content in {
        "c.ome.tif": "channels", "m.probabilities.tif": "probabilities",
        "m.probabilities.ome.tif": "probabilities",
    }.items():  # fmt: skip
        found = tilepipe.validate(tmp_path / name)
        assert found.problems == ()
        assert found.facts["content"] == content
    assert of_reader(tilepipe.validate(tmp_path / "c.ome.tif"), "QuPath")[0] == "opens"


def test_converted_images_follow_their_specification(tmp_path: Path) -> None:
    tilepipe.convert(write_tiff(tmp_path / "i.tif", make_image(700, 600)), tmp_path / "i.ome.zarr")
    found = tilepipe.validate(tmp_path / "i.ome.zarr")
    assert found.problems == ()
    assert found.facts["content"] == "image"


def multiscale(ome: Document) -> Document:
    first: Document = ome["multiscales"][0]
    return first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ome: ome.update(version="0.4"), "its version is '0.4'"),
        (lambda ome: multiscale(ome)["axes"].reverse(), "dimension_names"),
        (lambda ome: multiscale(ome)["axes"][0].update(type="channel"), "are of space"),
        (lambda ome: multiscale(ome)["axes"].pop(), "must be 2 to 5"),
        (lambda ome: multiscale(ome)["datasets"][1].update(path="9"), "there is no array 9"),
        (lambda ome: multiscale(ome)["datasets"].reverse(), "is larger than"),
        (
            lambda ome: multiscale(ome)["datasets"][0].pop("coordinateTransformations"),
            "not a scale",
        ),
        (
            lambda ome: multiscale(ome)["datasets"][0]["coordinateTransformations"][0].update(
                scale=[1.0]
            ),
            "has 1 values",
        ),
        (lambda ome: ome["image-label"]["colors"][0].update({"label-value": 1}), "a label twice"),
        (lambda ome: ome["image-label"]["colors"][0].update(rgba=[1, 2]), "is not four"),
        (lambda ome: ome["image-label"].update(source={"image": "../../no"}), "is not there"),
        (lambda ome: ome.update(omero={"channels": [{}, {}]}), "omero has 2 channels"),
        (lambda ome: ome.update(multiscales=[]), "cannot be understood"),
        (lambda ome: ome.update(multiscales=[{"axes": 3, "datasets": None}]), "multiscales"),
    ],
)
def test_metadata_that_break_ome_ngff_are_named(
    tmp_path: Path, change: Callable[[Document], None], says: str
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((1025, 700)))
    document = json.loads((mask.path / "zarr.json").read_text())
    change(document["attributes"]["ome"])
    (mask.path / "zarr.json").write_text(json.dumps(document))
    found = tilepipe.validate(mask.path)
    assert any(says in problem for problem in found.problems)
    assert found.exit_code == 5


def test_labels_that_their_image_does_not_list_are_named(tmp_path: Path) -> None:
    tilepipe.convert(write_tiff(tmp_path / "i.tif", make_image(700, 600)), tmp_path / "i.ome.zarr")
    labels = tmp_path / "i.ome.zarr" / "labels"
    labels.mkdir()
    make_mask(labels / "nuclei", make_spec((700, 600)))
    for path in (tmp_path / "i.ome.zarr", labels / "nuclei"):
        assert any("labels/ does not list" in p for p in tilepipe.validate(path).problems)
    ome = {"version": "0.5", "labels": ["nuclei"]}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    (labels / "zarr.json").write_text(json.dumps(group))
    found = tilepipe.validate(labels / "nuclei")
    assert found.problems == ()
    assert of_reader(found, "napari")[0] == "opens"


def write_ome(path: Path, change: Callable[[str], str]) -> Path:
    """An OME-TIFF of labels whose XML is changed."""
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "m.ome.tif"
        export(create_mask(Path(folder) / "m.ome.zarr", make_spec((300, 200))), whole)
        with tifffile.TiffFile(whole) as file:
            xml = change(str(file.ome_metadata))
    pixels = np.zeros((300, 200), np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), description=xml.encode(), metadata=None)
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('SizeX="200"', 'SizeX="201"', "is 201 x 300 pixels in its XML"),
        ('Type="uint8"', 'Type="uint16"', "is uint16 in its XML, and uint8 in the file"),
        ('Type="uint8"', 'Type="byte"', "the type 'byte'"),
        ('SizeC="1"', 'SizeC="2"', "has SizeC 2"),
        ('DimensionOrder="XYCZT"', 'DimensionOrder="YXCZT"', "the DimensionOrder 'YXCZT'"),
        (' SizeZ="1"', "", "lacks SizeZ"),
        ('SizeZ="1"', 'SizeZ="one"', "no whole number"),
        ('IFD="0"', 'IFD="7"', "refers to image 7"),
        ('PhysicalSizeX="0.5"', 'PhysicalSizeX="0"', "must be above 0"),
        ('ID="Channel:0:0"', 'ID="Pixels:0"', "occurs twice"),
        ('AnnotationRef ID="', 'AnnotationRef ID="No', "refers to No"),
        ("</OME>", "", "is broken"),
    ],
)
def test_xml_that_breaks_ome_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert tilepipe.validate(write_ome(tmp_path / "ok.ome.tif", lambda xml: xml)).problems == ()

    def change(xml: str) -> str:
        assert old in xml
        return xml.replace(old, new)

    path = write_ome(tmp_path / "m.ome.tif", change)
    if new == "" and old == "</OME>":
        with pytest.raises(InputError, match="no OME-XML"):  # tifffile looks at its end
            tilepipe.validate(path)
        return
    assert any(says in problem for problem in tilepipe.validate(path).problems)


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, suffix: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((1025, 700)))
    path = tmp_path / f"m{suffix}"
    export(mask, path)
    path.write_bytes(path.read_bytes()[:-100])
    found = tilepipe.validate(path)
    assert any("beyond the end of the file" in problem for problem in found.problems)
    assert {one.verdict for one in found.openings} == {"cannot"}


def test_a_tiff_that_is_no_cog_is_named(tmp_path: Path) -> None:
    plain = write_scene(tmp_path / "plain.tif", make_image(700, 600))
    found = tilepipe.validate(plain)
    assert [p.removeprefix("it is larger than 512 pixels and ") for p in found.problems[:2]] == [
        "not tiled", "has no overviews",
    ]  # fmt: skip
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    late = write_scene(tmp_path / "late.tif", make_image(700, 600), **tiled)
    with rasterio.open(late, "r+") as dataset:
        dataset.build_overviews([2], Resampling.average)
    assert "pixels come before the last directory" in tilepipe.validate(late).problems


def test_a_cog_of_gdal_is_one(data: Path) -> None:
    for name in ("cog.tif", "cog_rgb_mask.tif", "cog_nodata_nan.tif", "cog_rgba.tif"):
        assert tilepipe.validate(data / "geo" / "edge" / name).problems == ()


def test_the_readers_follow_from_the_facts(tmp_path: Path) -> None:
    place = {"crs": rasterio.crs.CRS.from_epsg(32633).to_wkt()}
    spec = make_spec((600, 700), transform=(10.0, 0.0, 5e5, 0.0, -10.0, 4e6), **place)
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    export(mask, tmp_path / "m.tif")
    export(mask, tmp_path / "m.ome.tif")
    cog = tilepipe.validate(tmp_path / "m.tif")
    assert of_reader(cog, "GDAL") == ("opens", "place, levels, names of classes")
    assert of_reader(cog, "OpenSlide")[0] == "opens"
    ome = tilepipe.validate(tmp_path / "m.ome.tif")
    verdict, what = of_reader(ome, "OpenSlide")
    assert verdict == "manual"
    assert "tilepipe convert m.ome.tif NEW.tif" in what
    folder = tilepipe.validate(mask.path)
    assert of_reader(folder, "QuPath")[0] == "cannot"
    assert "drop_variables=['1']" in of_reader(folder, "xarray")[1]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.reader} {row.format}")
def test_each_row_can_be_the_one_that_counts(row: Any) -> None:
    """No row is hidden by one before it, and each text can be filled in."""
    assert row.reader in ("", *READERS)
    name, reader = row.format or "any other", row.reader or READERS[0]
    found = {one.reader: one for one in openings(Checked(name, (), row.when, ()), "m")}[reader]
    assert found.verdict == row.verdict
    assert found.what.startswith(row.what.split("{")[0])
    assert "{" not in found.what


def feature(properties: Document, ring: list[list[float]]) -> Document:
    geometry = {"type": "Polygon", "coordinates": [ring]}
    name = "00000000-0000-4000-8000-000000000001"
    return {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}


RING: list[list[float]] = [[1, 1], [9, 1], [9, 9], [1, 9], [1, 1]]


def test_files_of_objects_are_checked_too(tmp_path: Path) -> None:
    for name, properties, ring, qupath in (
        ("pixels", {"objectType": "detection"}, RING, "opens"),
        ("map", {"class": "field"}, RING, "cannot"),
        ("open", {"class": "field"}, RING[:-1], "cannot"),
    ):
        path = tmp_path / f"{name}.geojson"
        document = {"type": "FeatureCollection", "features": [feature(properties, ring)]}
        path.write_text(json.dumps(document))
        found = tilepipe.validate(path)
        assert found.valid is (name != "open")
        assert found.format == "GeoJSON"
        assert of_reader(found, "QuPath")[0] == qupath
        assert of_reader(found, "spatialdata")[0] == "manual"


def test_what_has_no_specification_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.png").touch()
    (tmp_path / "m.tif").write_bytes(b"II*\x00 and no more")
    (tmp_path / "empty.ome.zarr").mkdir()
    write_scene(tmp_path / "scene.ome.tif", make_image(70, 60))
    for name, says in {
        "m.png": "no specification is known", "m.tif": "not a TIFF", "none.tif": "does not exist",
        "empty.ome.zarr": "no zarr group", "scene.ome.tif": "no OME-XML",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=says):
            tilepipe.validate(tmp_path / name)


def test_other_formats_are_added_by_their_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CHECKERS", dict(registry.CHECKERS))
    registry.register_checker(".toy.zarr", f"{__name__}:check_toy")
    (tmp_path / "m.toy.zarr").mkdir()
    found = tilepipe.validate(tmp_path / "m.toy.zarr")
    assert (found.format, found.problems) == ("Toy", ("it is a toy",))
    assert {one.verdict for one in found.openings} == {"unknown"}


def check_toy(path: Path) -> Checked:
    return Checked("Toy", ("it is a toy",), {}, ())


def test_the_command_line_says_it_and_exits_with_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_mask(tmp_path / "m.ome.zarr", make_spec((60, 70)))
    assert call(["validate", str(tmp_path / "m.ome.zarr")]) == 0
    shown = capsys.readouterr().out
    assert "follows its specification" in shown
    assert all(reader in shown for reader in READERS)
    plain = write_scene(tmp_path / "plain.tif", make_image(700, 600))
    assert call(["validate", str(plain), "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["valid"] is False
    assert [one["reader"] for one in document["readers"]] == list(READERS)
