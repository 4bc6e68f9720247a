"""Which image belongs to which mask, and which are held back to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.training.making import write_folder, write_png
from tilepipe.errors import InputError
from tilepipe.training.pairs import TrainingPair, find_pairs, split_pairs

EMPTY = np.zeros((8, 8), np.uint8)


def files(folder: Path, *names: str) -> None:
    for name in names:
        write_png(folder / name, EMPTY)


def names(pairs: Sequence[TrainingPair]) -> list[str]:
    return [pair.name for pair in pairs]


def some(count: int, group: int = 1) -> list[TrainingPair]:
    return [
        TrainingPair(
            f"{i}.png", f"{i}m.png", f"{i:02d}", group="" if group == 1 else f"g{i // group}"
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_folders_pair_by_name_whatever_the_suffix(tmp_path: Path, masks: str) -> None:
    files(tmp_path, "images/b.png", "images/a.jpg", "images/.hidden.png")
    files(tmp_path, f"{masks}/a.png", f"{masks}/b_mask.tif")
    found = find_pairs([str(tmp_path)])
    assert [(Path(p.image).name, Path(p.mask).name) for p in found] == [
        ("a.jpg", "a.png"),
        ("b.png", "b_mask.tif"),
    ]


def test_folders_of_their_own_say_what_is_for_validation(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        files(tmp_path / part, f"images/{part}.png", f"masks/{part}.png")
    training, judged = split_pairs(find_pairs([str(tmp_path)]), 0.2, "", 0)
    assert (names(training), names(judged)) == (["train"], ["validation"])


def test_an_image_without_a_mask_and_a_mask_without_an_image_are_named(tmp_path: Path) -> None:
    files(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png")
    with pytest.raises(InputError, match=r"no mask in \S+masks for b.png, c.png; files pair"):
        find_pairs([str(tmp_path)])
    files(tmp_path, "masks/b.png", "masks/c.png", "masks/d.png")
    with pytest.raises(InputError, match=r"no image in \S+images for d.png; files pair"):
        find_pairs([str(tmp_path)])


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "images/a.png", "images/a.jpg", "masks/a.png")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have the same name without suffix"):
        find_pairs([str(tmp_path)])


@pytest.mark.parametrize("what", ["nothing", "images only", "a file", "missing"])
def test_data_that_are_no_data_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path
    if what == "images only":
        files(tmp_path, "images/a.png")
    elif what == "a file":
        path = write_png(tmp_path / "a.png", EMPTY)
    elif what == "missing":
        path = tmp_path / "nowhere"
    with pytest.raises(InputError, match=str(path)):
        find_pairs([str(path)])


def test_a_csv_file_names_pairs_splits_and_groups(tmp_path: Path) -> None:
    files(tmp_path, "i/a.png", "i/b.png", "m/a.png", "m/b.png")
    table = tmp_path / "pairs.csv"
    # As a spreadsheet writes it: a byte order mark, lines that end in CR LF, an empty one.
    table.write_bytes(
        b"\xef\xbb\xbfimage,mask,split,group\r\ni/a.png,m/a.png,train,p1\r\n\r\n"
        + f"{tmp_path}/i/b.png,m/b.png,Val,p2\r\n".encode()
    )
    first, second = find_pairs([str(table)])
    assert (first.name, first.split, first.group) == ("a", "train", "p1")
    assert (second.name, second.split, second.group) == ("b", "validation", "p2")
    assert Path(first.image) == tmp_path / "i/a.png"
    assert Path(second.image) == tmp_path / "i/b.png"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no columns image and mask"),
        ("image,mask\n", "names no pairs"),
        (
            "picture,truth\na.png,b.png\n",
            r"has no columns image and mask; .* \(split and group are optional\)",
        ),
        ("image,truth\na.png,b.png\n", "has no column mask"),
        ("image,mask\na.png,a.png\na.png\n", "line 3: the mask is missing"),
        ("image,mask\na.png, \n", "line 2: the mask is missing"),
        ("image,mask\na.png,a.png\n\nz.png,a.png\n", r"line 4: .*z\.png does not exist"),
        ("image,mask\na.png,y.png\n", r"line 2: .*y\.png does not exist"),
        ("image,mask,split\na.png,a.png,later\n", "line 2: the split later is not"),
    ],
)
def test_a_csv_file_at_fault_is_told_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    files(tmp_path, "a.png")
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=complaint):
        find_pairs([str(table)])


def test_a_csv_file_that_is_none_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    with pytest.raises(InputError, match="cannot be read"):
        find_pairs([str(table)])
    table.write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(InputError, match="UTF-8"):
        find_pairs([str(table)])


@pytest.mark.parametrize("seed", range(5))
def test_a_share_is_held_back_and_groups_stay_whole(seed: int) -> None:
    pairs = some(20, group=4)
    training, judged = split_pairs(pairs, 0.25, "", seed)
    assert len(judged) == 8  # the fewest whole groups that hold a quarter
    assert {p.group for p in training}.isdisjoint(p.group for p in judged)
    assert sorted(names(training) + names(judged)) == names(pairs)


def test_which_are_held_back_depends_on_the_seed_alone() -> None:
    once, again = (split_pairs(some(30), 0.2, "", 3) for _ in range(2))
    assert once == again
    assert once != split_pairs(some(30), 0.2, "", 4)
    assert len(once[1]) == 6


def test_patterns_of_names_and_groups_are_held_back_or_left_out() -> None:
    pairs = [
        *some(4),
        TrainingPair("x", "y", "scan_1", group="p7"),
        TrainingPair("x", "y", "scan_2", group="p8"),
    ]
    training, judged = split_pairs(pairs, "scan_*, 00", "", 0)
    assert names(judged) == ["00", "scan_1", "scan_2"]
    assert names(training) == ["01", "02", "03"]
    training, judged = split_pairs(pairs, "p7", "p8,03", 0)
    assert (names(judged), "03" in names(training)) == (["scan_1"], False)
    assert "scan_2" not in names(training)


@pytest.mark.parametrize("name", ["03", "00"])
def test_a_name_that_is_a_number_is_a_name(name: str) -> None:
    assert names(split_pairs(some(5), name, "", 0)[1]) == [name]


@pytest.mark.parametrize(("validation", "exclude"), [("9*", ""), (0.2, "nobody"), ("0*,zz", "")])
def test_a_pattern_that_fits_no_name_is_refused(validation: str | float, exclude: str) -> None:
    with pytest.raises(InputError, match="matches no image's name or group"):
        split_pairs(some(5), validation, exclude, 0)


def test_another_folder_is_what_is_judged_by(tmp_path: Path) -> None:
    write_folder(tmp_path / "other", 2, side=20)
    training, judged = split_pairs(some(5), str(tmp_path / "other"), "", 0)
    assert len(training) == 5
    assert names(judged) == ["00", "01"]


def test_a_single_image_is_split_by_rows() -> None:
    training, judged = split_pairs(some(1), 0.25, "", 0)
    assert training[0].rows == (0.0, 0.75)
    assert judged[0].rows == (0.75, 1.0)


def test_nothing_is_judged_by_where_asked_so() -> None:
    for nothing in (0, 0.0, "0"):
        training, judged = split_pairs(some(3), nothing, "", 0)
        assert (len(training), judged) == (3, [])


def test_what_leaves_nothing_to_train_on_or_judge_by_is_refused() -> None:
    with pytest.raises(InputError, match="no image is left to train on"):
        split_pairs(some(3), "*", "", 0)
    with pytest.raises(InputError, match="all images are of the group g0"):
        split_pairs(some(3, group=3), 0.2, "", 0)
    with pytest.raises(InputError, match="share from 0 to 1"):
        split_pairs(some(3), 1.5, "", 0)
    with pytest.raises(InputError, match="share from 0 to 1"):
        split_pairs(some(3), "nan", "", 0)
