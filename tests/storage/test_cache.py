"""The cache of the user: what is damaged, full or forbidden costs time, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilepipe.storage import cache
from tilepipe.storage.cache import cache_folder, kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    def __init__(self, content: bytes = b"dear") -> None:
        self.content, self.made = content, 0

    def __call__(self) -> bytes:
        self.made += 1
        return self.content


def test_it_is_made_once(folder: Path) -> None:
    make = Maker()
    assert [kept("a", make), kept("a", make), kept("b", make)] == 3 * [b"dear"]
    assert make.made == 2
    assert sorted(file.name for file in folder.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "another"])
def test_what_is_damaged_is_made_again(folder: Path, damage: str) -> None:
    make = Maker()
    kept("a", make)
    kept("b", Maker(b"other"))
    whole = (folder / "a").read_bytes()
    changed = {
        "bit": whole[:-1] + bytes([whole[-1] ^ 1]),
        "cut": whole[:-1],
        "empty": b"",
        "another": (folder / "b").read_bytes(),
    }
    (folder / "a").write_bytes(changed[damage])
    assert kept("a", make) == b"dear"
    assert make.made == 2
    assert (folder / "a").read_bytes() == whole


def test_what_was_used_longest_ago_makes_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 250)
    for second, name in enumerate("ab"):
        kept(name, Maker(bytes(68)))
        os.utime(folder / name, (second, second))
    kept("a", Maker())  # used again, now
    kept("c", Maker(bytes(68)))
    assert sorted(file.name for file in folder.iterdir()) == ["a", "c"]


def test_a_folder_that_cannot_be_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "file" / "cache"))
    assert kept("a", Maker()) == b"dear"


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", "")
    assert cache_folder() is None
    assert kept("a", Maker()) == b"dear"
    monkeypatch.delenv("TILEPIPE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "tilepipe"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # as the standard says: ignored
    assert cache_folder() == tmp_path / ".cache" / "tilepipe"
