"""Which mask is compared with which truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.products.making import make_mask, make_spec
from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import open_label_map
from tilepipe.evaluation.pairs import find_pairs
from tilepipe.products.base import MaskClass


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.mkdir() if name.endswith(".zarr") else path.touch()
    return folder


def test_two_files_are_a_pair(tmp_path: Path) -> None:
    folder = touch(tmp_path, "a_mask.ome.zarr", "truth.png")
    (pair,) = find_pairs(folder / "a_mask.ome.zarr", folder / "truth.png")
    assert (pair.name, pair.truth.name) == ("a_mask", "truth.png")


def test_folders_pair_by_stem_whatever_the_suffix(tmp_path: Path) -> None:
    masks = touch(tmp_path / "m", "a.ome.tif", "b.zarr", "c.v2.tiff", ".hidden.png", "notes.txt")
    truths = touch(tmp_path / "t", "a.png", "b.ome.tif", "c.v2.tif")
    pairs = find_pairs(masks, truths)
    assert [(p.name, p.mask.name, p.truth.name) for p in pairs] == [
        ("a", "a.ome.tif", "a.png"),
        ("b", "b.zarr", "b.ome.tif"),
        ("c.v2", "c.v2.tiff", "c.v2.tif"),
    ]


def test_the_outputs_of_a_run_pair_as_they_lie(tmp_path: Path) -> None:
    outputs = [f"a_mask{suffix}" for suffix in (".png", ".ome.tif", ".ome.zarr", ".run.json")]
    masks = touch(tmp_path / "m", *outputs)
    (pair,) = find_pairs(masks, touch(tmp_path / "t", "a.png"))
    assert (pair.name, pair.mask.name, pair.truth.name) == ("a", "a_mask.ome.zarr", "a.png")
    (pair,) = find_pairs(masks, touch(tmp_path / "u", "a_mask.png"))
    assert pair.truth.name == "a_mask.png"


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    masks = touch(tmp_path / "m", "a.png", "b.png")
    truths = touch(tmp_path / "t", "a.png", *(f"{n}.png" for n in "cdefghi"))
    with pytest.raises(InputError, match=r"no truth in \S+ for b.png and no mask in \S+ for c.png"):
        find_pairs(masks, truths)
    with pytest.raises(InputError, match="and 2 more"):
        find_pairs(masks, truths)


def test_two_masks_of_one_truth_are_refused(tmp_path: Path) -> None:
    masks = touch(tmp_path / "m", "a.png", "a_mask.png")
    with pytest.raises(InputError, match=r"a.png and a_mask.png both pair"):
        find_pairs(masks, touch(tmp_path / "t", "a.png"))


def test_a_table_of_pairs_is_relative_to_itself(tmp_path: Path) -> None:
    touch(tmp_path / "m", "x.png")
    touch(tmp_path / "t", "y.png")
    table = tmp_path / "pairs.csv"
    table.write_text("\ufefftruth,mask,note\nt/y.png,m/x.png,one\n")
    (pair,) = find_pairs(table)
    assert (pair.name, pair.mask, pair.truth) == ("x", tmp_path / "m/x.png", tmp_path / "t/y.png")


def test_masks_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("p", "q"):
        touch(tmp_path / folder, "x.png")
    table = tmp_path / "pairs.csv"
    table.write_text("mask,truth\np/x.png,q/x.png\nq/x.png,p/x.png\n")
    assert [pair.name for pair in find_pairs(table)] == ["x", "x-3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "no columns mask and truth"),
        ("mask,b\n1,2\n", "no column truth; name the columns mask and truth"),
        ("mask,truth\n", "names no pairs"),
        ("mask,truth\na.png\n", "line 2: the truth is missing"),
        ("mask,truth\na.png,gone.png\n", "line 2: .*gone.png does not exist"),
        ("", "no columns"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, content: str, said: str) -> None:
    touch(tmp_path, "a.png")
    table = tmp_path / "pairs.csv"
    table.write_text(content)
    with pytest.raises(InputError, match=said):
        find_pairs(table)


def test_what_is_missing_or_unlike_is_refused(tmp_path: Path) -> None:
    folder = touch(tmp_path / "m", "a.png")
    with pytest.raises(InputError, match="has no truth"):
        find_pairs(folder / "a.png")
    with pytest.raises(InputError, match=r"gone.png does not exist"):
        find_pairs(folder / "a.png", tmp_path / "gone.png")
    with pytest.raises(InputError, match="is a folder"):
        find_pairs(folder, folder / "a.png")
    with pytest.raises(InputError, match="holds no masks"):
        find_pairs(touch(tmp_path / "e"), touch(tmp_path / "f"))
    with pytest.raises(InputError, match=r"gone.csv does not exist"):
        find_pairs(tmp_path / "gone.csv")


def test_a_class_name_without_end_is_shown_by_its_ends(tmp_path: Path) -> None:
    classes = (MaskClass("background", "#000000"), MaskClass("n" * 10**6, "#ffffff"))
    make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9), classes=classes))
    with open_label_map(tmp_path / "m.ome.zarr", 10**9) as opened:
        assert opened.classes is not None
        assert [len(name) < 210 for name in opened.classes] == [True, True]
