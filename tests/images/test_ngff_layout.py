"""OME-Zarr of every version, in plates and wells, with units in every spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import PixelSize, open_image
from tilepipe.images.reading import Reading

PIXELS = make_image(200, 151, 3)
WHOLE = Window(0, 0, 200, 151)


def write_old(folder: Path, version: str, **changes: Any) -> Path:
    """An image of five axes and two levels, as 0.1 to 0.3 have it: no scales, no units."""
    group = zarr.create_group(folder, zarr_format=2)
    for number, pixels in enumerate((PIXELS, PIXELS[::2, ::2])):
        data = pixels.transpose(2, 0, 1)[None, :, None]
        group.create_array(str(number), data=data, chunks=(1, 1, 1, 64, 64))
    multiscale: dict[str, Any] = {"version": version, "datasets": [{"path": "0"}, {"path": "1"}]}
    if version == "0.3":
        multiscale["axes"] = ["t", "c", "z", "y", "x"]
    group.attrs["multiscales"] = [{**multiscale, **changes}]
    return folder


def write_new(folder: Path, unit: str | None = "micrometer", pixels: Any = PIXELS) -> Path:
    """0.4, one level."""
    group = zarr.create_group(folder, zarr_format=2)
    group.create_array("0", data=pixels.transpose(2, 0, 1), chunks=(1, 64, 64))
    space = {"type": "space", **({"unit": unit} if unit else {})}
    axes = [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}]
    steps = [{"type": "scale", "scale": [1.0, 0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return folder


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_versions_before_axes_were_described(tmp_path: Path, version: str) -> None:
    image = open_image(write_old(tmp_path / "a.zarr", version))
    np.testing.assert_array_equal(image.read(WHOLE), PIXELS)
    assert [(v.height, v.width, v.scale_y, v.scale_x) for v in image.levels] == [
        (200, 151, 1.0, 1.0),
        (100, 76, 2.0, 2.0),
    ]
    assert image.pixel_size is None


def test_an_image_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    path = write_old(tmp_path / "a.zarr", "0.1")
    group = zarr.open_group(path)
    group.attrs["multiscales"] = [{"datasets": [{"path": "0"}, {"path": "1"}]}]
    np.testing.assert_array_equal(open_image(path).read(WHOLE), PIXELS)


def test_axes_that_are_left_out_where_they_must_not_be_are_not_guessed(tmp_path: Path) -> None:
    path = write_old(tmp_path / "a.zarr", "0.4")
    with pytest.raises(InputError, match="does not name its axes"):
        open_image(path)


def test_a_scale_that_contradicts_the_size_of_a_level_is_not_relied_on(tmp_path: Path) -> None:
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 5}]}
        for name in "01"
    ]
    path = write_old(tmp_path / "a.zarr", "0.3", datasets=datasets)
    image = open_image(path)
    assert [level.scale_y for level in image.levels] == [1.0, 2.0]
    assert len(image.notes) == 1
    assert "level 1" in image.notes[0]


def test_a_scale_is_more_exact_than_the_rounded_size_of_a_level(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    for number, size in enumerate(((100, 90), (66, 60))):
        group.create_array(str(number), shape=size, chunks=(64, 64), dtype="u1")
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [1.5**i] * 2}]}
        for i in range(2)
    ]
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    level = open_image(tmp_path / "a.zarr").levels[1]
    assert (level.scale_y, level.scale_x) == (1.5, 1.5)


@pytest.mark.parametrize(
    "unit", ["micrometer", "µm", "μm", "um", "micron", "Microns", "micrometre", " µm "]
)  # the micro sign and the Greek letter are two characters
def test_micrometres_in_any_spelling(tmp_path: Path, unit: str) -> None:
    image = open_image(write_new(tmp_path / "a.zarr", unit))
    assert image.pixel_size == PixelSize(0.5, 0.25, "micrometer")


def test_a_unit_that_is_no_length_is_kept_as_it_is(tmp_path: Path) -> None:
    image = open_image(write_new(tmp_path / "a.zarr", "pixel"))
    assert image.pixel_size == PixelSize(0.5, 0.25, "pixel")


def plate(folder: Path, fields: dict[str, Any]) -> Path:
    """A plate of the given images, each at ``ROW/COLUMN/FIELD``."""
    root = zarr.create_group(folder, zarr_format=2)
    wells = sorted({path.rpartition("/")[0] for path in fields})
    root.attrs["plate"] = {"version": "0.4", "wells": [{"path": well} for well in wells]}
    for well in wells:
        group = root.create_group(well)
        images = [path.rpartition("/")[2] for path in fields if path.startswith(f"{well}/")]
        group.attrs["well"] = {"version": "0.4", "images": [{"path": name} for name in images]}
    for path, pixels in fields.items():
        write_new(folder / path, pixels=pixels)
    return folder


FIELDS = {
    f"{well}/{field}": make_image(80, 90, seed=number)
    for number, (well, field) in enumerate([("A/1", "0"), ("A/1", "1"), ("B/3", "0")])
}


def test_a_plate_says_which_fields_it_has(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.zarr", FIELDS)
    with pytest.raises(InputError, match=r"is a plate .*--series: A/1/0, A/1/1, B/3/0$"):
        open_image(path)


def test_a_well_says_which_fields_it_has(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.zarr", FIELDS) / "A/1"
    with pytest.raises(InputError, match=r"is a well .*--series: 0, 1$"):
        open_image(path)


@pytest.mark.parametrize("series", ["B/3/0", "/B/3/0/"])
def test_a_field_is_chosen_by_its_path(tmp_path: Path, series: str) -> None:
    image = open_image(plate(tmp_path / "plate.zarr", FIELDS), Reading(series=series))
    np.testing.assert_array_equal(image.read(Window(0, 0, 80, 90)), FIELDS["B/3/0"])
    assert [(s.number, s.name) for s in image.series] == [(2, "B/3/0")]
    assert image.series_number == 2


def test_a_field_of_a_well_is_chosen_by_its_name_and_not_by_its_place(tmp_path: Path) -> None:
    fields = {f"A/1/{name}": make_image(80, 90, seed=name) for name in (1, 2)}
    path = plate(tmp_path / "plate.zarr", fields) / "A/1"
    image = open_image(path, Reading(series=1))
    np.testing.assert_array_equal(image.read(Window(0, 0, 80, 90)), fields["A/1/1"])


def test_the_only_field_of_a_plate_is_the_image(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.zarr", {"A/1/0": FIELDS["A/1/0"]})
    for where in (path, path / "A/1", path / "A/1/0"):
        np.testing.assert_array_equal(open_image(where).read(Window(0, 0, 80, 90)), FIELDS["A/1/0"])


def test_a_field_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.zarr", FIELDS)
    with pytest.raises(InputError, match=r"without an image 'C/9/0'; choose one of A/1/0"):
        open_image(path, Reading(series="C/9/0"))


def test_a_plate_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.zarr", FIELDS)
    zarr.open_group(path).attrs["plate"] = {"wells": [{"path": "../other"}]}
    with pytest.raises(InputError, match="not a path inside it"):
        open_image(path)


@pytest.mark.parametrize("name", ["../0", "/0", ""])
def test_an_image_does_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    path = write_old(tmp_path / "a.zarr", "0.3", datasets=[{"path": name}])
    with pytest.raises(InputError, match=r"not a path inside it"):
        open_image(path)


def test_a_plate_of_thousands_is_refused_by_a_short_message(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.zarr", FIELDS)
    group = zarr.open_group(path)["A/1"]
    assert isinstance(group, zarr.Group)
    group.attrs["well"] = {"images": [{"path": str(i)} for i in range(5000)]}
    with pytest.raises(InputError, match=r"A/1/19 \.\.\.$"):
        open_image(path)
