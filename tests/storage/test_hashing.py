"""Files, folders and chunks are known again by short hashes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.storage.conftest import Service
from tests.storage.making import at
from tilepipe.storage.hashing import (
    ABSENT,
    PIECE_BYTES,
    hash_of,
    identity,
    read_seal,
    seal,
    size_matches,
)


def test_a_seal_tells_size_and_content(tmp_path: Path) -> None:
    chunk = tmp_path / "0"
    chunk.write_bytes(b"abc")
    assert read_seal(chunk) == seal(b"abc")
    assert seal(b"abc").startswith("3.")
    assert seal(b"abc") != seal(b"abd")
    assert size_matches(chunk, seal(b"xyz"))
    assert not size_matches(chunk, seal(b"ab"))
    assert not size_matches(chunk, ABSENT)


def test_a_chunk_that_is_not_there_is_absent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for missing in (tmp_path / "0", tmp_path / "file" / "0"):
        assert read_seal(missing) == ABSENT
        assert size_matches(missing, ABSENT)
        assert not size_matches(missing, seal(b""))


def test_a_chunk_that_the_disk_cannot_read_is_no_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert read_seal(tmp_path / "0") not in (ABSENT, seal(b""))


def test_a_folder_is_known_by_names_and_contents(tmp_path: Path) -> None:
    for folder, order in (("a", "xy"), ("b", "yx")):
        for name in order:
            (tmp_path / folder / "c").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "c" / name).write_text(name)
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "b")
    (tmp_path / "b/c/x").rename(tmp_path / "b/c/z")
    assert hash_of(tmp_path / "a") != hash_of(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        hash_of(tmp_path / "nothing")


def test_files_that_are_touched_or_replaced_are_others(tmp_path: Path) -> None:
    file = tmp_path / "image.tif"
    file.write_text("pixels")
    before = identity([file])
    assert identity([file]) == before
    os.utime(file, (1, 1))
    touched = identity([file])
    assert touched != before
    other = tmp_path / "other.tif"
    other.write_text("PIXELS")
    os.utime(other, (1, 1))
    other.replace(file)
    assert identity([file]) not in (before, touched)
    assert identity([tmp_path / "gone.tif"]) != before


def test_objects_are_known_as_files_are(s3: Service, folder: str, tmp_path: Path) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    file, key = tmp_path / "m.tif", at(folder) / "m.tif"
    file.write_bytes(content)
    key.write_bytes(content)
    assert hash_of(key) == hash_of(file)
    assert read_seal(key) == read_seal(file)
    assert read_seal(at(folder) / "none") == ABSENT
    before = identity([key])
    assert identity([key]) == before
    key.write_bytes(content[:-1] + b"?")
    assert identity([key]) != before
    (tmp_path / "z" / "c").mkdir(parents=True)
    for name in ("zarr.json", "c/0"):
        (tmp_path / "z" / name).write_text(name)
        (at(folder) / "z" / name).write_bytes(name.encode())
    assert hash_of(at(folder) / "z") == hash_of(tmp_path / "z")
