"""Files and folders are complete, or as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tilepipe.storage import complete_or_absent, write_whole


def test_writers_without_a_lock_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "model"
    contents = [bytes([i]) * 100_000 for i in range(4)]

    def write(content: bytes) -> None:
        for _ in range(25):
            write_whole(path, content, alone=False)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_between_two_names_gets_its_own_back(tmp_path: Path) -> None:
    path = tmp_path / "image.ome.zarr"
    (tmp_path / "image.ome.zarr.replaced").mkdir()  # as a kill between two renames leaves it
    (tmp_path / "image.ome.zarr.replaced" / "chunk").write_text("old")
    with pytest.raises(RuntimeError), complete_or_absent(path):
        raise RuntimeError
    assert (path / "chunk").read_text() == "old"
    with complete_or_absent(path) as part:
        part.mkdir()
        (part / "chunk").write_text("new")
    assert (path / "chunk").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
