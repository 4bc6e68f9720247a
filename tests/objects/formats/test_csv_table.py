"""Objects as CSV."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from tests.objects.formats import making
from tilepipe.images.base import PixelSize
from tilepipe.objects.formats import write_objects
from tilepipe.objects.table import ImagePlace, ObjectTable


def rows(table: ObjectTable, path: Path) -> list[dict[str, str]]:
    write_objects(table, path)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_object_with_units_in_the_names(tmp_path: Path) -> None:
    first, second, _ = rows(making.make_table(tmp_path / "t"), tmp_path / "a.csv")
    assert list(first)[:8] == [
        "number", "class", "centroid_x_um", "centroid_y_um",
        "xmin_um", "ymin_um", "xmax_um", "ymax_um",
    ]  # fmt: skip
    assert first["class"] == 'nucleus "A", <b>'
    assert (second["xmin_um"], second["ymax_um"]) == ("25.0", "15.0")
    assert second["centroid_x_um"] == "27.5"
    assert first["area_um2"] == "275.0"
    assert first["mean_probability"] == "0.1"
    assert second["mean_probability"] == ""


def test_pixels_are_those_of_the_image_where_their_size_is_not_known(tmp_path: Path) -> None:
    table = making.make_table(
        tmp_path / "t",
        making.mask_of(pixel_size=None),
        image=ImagePlace("a", 800, 1200, 2, 2, 5, 3),
    )
    second = rows(table, tmp_path / "a.csv")[1]
    assert (second["xmin_px"], second["ymin_px"]) == ("103.0", "25.0")


def test_micrometres_are_counted_from_the_corner_of_the_image(tmp_path: Path) -> None:
    place = ImagePlace("a", 800, 1200, 2, 2, 5, 3)
    second = rows(making.make_table(tmp_path / "t", image=place), tmp_path / "a.csv")[1]
    # 3 pixels of the image of 0.25 um, and 50 of the mask of 0.5 um.
    assert second["xmin_um"] == "25.75"
    assert second["ymin_um"] == "6.25"


def test_on_a_map_places_are_those_of_its_crs(tmp_path: Path) -> None:
    second = rows(making.make_table(tmp_path / "t", making.on_map()), tmp_path / "a.csv")[1]
    assert (second["xmin"], second["ymin"]) == ("300500.0", "5599700.0")
    assert (second["xmax"], second["ymax"]) == ("300600.0", "5599900.0")
    assert (second["centroid_x"], second["centroid_y"]) == ("300550.0", "5599800.0")


def test_a_pixel_size_that_is_no_length_is_not_known(tmp_path: Path) -> None:
    mask = making.mask_of(pixel_size=PixelSize(1, 1, "pixel"))
    assert "xmin_px" in rows(making.make_table(tmp_path / "t", mask), tmp_path / "a.csv")[0]


def test_large_pixels_without_a_map_are_measured_in_metres(tmp_path: Path) -> None:
    mask = making.mask_of(pixel_size=PixelSize(0.25, 0.25, "meter"))
    second = rows(making.make_table(tmp_path / "t", mask), tmp_path / "a.csv")[1]
    assert (second["xmin_m"], second["ymin_m"]) == ("12.5", "2.5")


def test_a_table_without_outlines_or_objects_is_written(tmp_path: Path) -> None:
    bare = making.make_table(tmp_path / "t", outlines=False)
    assert len(rows(bare, tmp_path / "a.csv")) == 3
    none = making.make_table(tmp_path / "u", geometries=[])
    assert rows(none, tmp_path / "b.csv") == []
    assert (tmp_path / "b.csv").read_text().startswith("number,class,")


def test_control_characters_and_quotes_survive_a_reader(tmp_path: Path) -> None:
    third = rows(making.make_table(tmp_path / "t"), tmp_path / "a.csv")[2]
    assert third["class"] == "=bell\\x07\\n"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_equal_tables_are_equal_bytes(tmp_path: Path, suffix: str) -> None:
    table = making.make_table(tmp_path / "t")
    for name in ("a", "b"):
        write_objects(table, tmp_path / f"{name}{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert content == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".csv.gz":
        assert gzip.decompress(content).startswith(b"number,class,")
