"""What is lost, cut off or repaired between two runs is noticed, and only that is done again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tifffile

import tilepipe
from tests.making import WINDOW, digest, make_image, write_tiff, zero_tiles
from tilepipe.engine.state.folder import FOLDER
from tilepipe.engine.state.run_record import record_path
from tilepipe.errors import InputError
from tilepipe.storage import fsync
from tilepipe.storage.fsync import fsync_files, fsync_folder

pytestmark = pytest.mark.slow

OUTPUTS = ("m.ome.zarr", "m.ome.tif", "m.tif")
SIDE = 1100
LARGE = WINDOW + 512
"""Its outputs are four chunks, and a block."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks (of four, two, two and one chunks), and two coarser levels."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    return write_tiff(path, make_image(SIDE, SIDE))


@pytest.fixture(scope="module")
def once(image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    tilepipe.run(image, **options_in(folder, model))
    return folder


def options_in(folder: Path, model: Path, window: int = LARGE) -> dict[str, Any]:
    return {"model": model, "outputs": [folder / n for n in OUTPUTS], "window": window}


@pytest.fixture
def finished(once: Path, model: Path, tmp_path: Path) -> dict[str, Any]:
    """A copy of the finished run, its options, and its bytes."""
    folder = tmp_path / "masks"
    shutil.copytree(once, folder)
    return {"options": options_in(folder, model), "folder": folder, "bytes": digest(folder)}


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("m.ome.zarr/0/c/0/0", 1), ("m.ome.zarr/1/c/1/1", 0), ("m.ome.tif", 0), ("m.tif", 0)],
)
@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_file_that_is_gone_or_cut_off_is_made_again(
    image: Path, finished: dict[str, Any], name: str, blocks: int, how: str
) -> None:
    file = finished["folder"] / name
    if how == "gone":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    summary = tilepipe.run(image, **finished["options"])
    assert summary.blocks - summary.resumed == blocks
    assert digest(finished["folder"]) == finished["bytes"]


def test_an_export_without_its_store_that_is_cut_off_is_not_taken_for_done(
    image: Path, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m.ome.tif"
    tilepipe.run(image, model=model, outputs=output)
    whole = output.read_bytes()
    os.truncate(output, len(whole) // 2)
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(image, model=model, outputs=output)
    tilepipe.run(image, model=model, outputs=output, overwrite=True)
    assert output.read_bytes() == whole


def test_an_altered_chunk_is_an_error_and_never_other_labels(
    image: Path, finished: dict[str, Any]
) -> None:
    store = finished["folder"] / "m.ome.zarr"
    chunk = store / "0/c/1/1"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 16
    chunk.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        tilepipe.open_mask(store).as_dask().compute(scheduler="synchronous")


@pytest.mark.parametrize("how", ["damaged", "cut off"])
def test_a_repaired_image_is_gone_on_with_though_its_fingerprint_is_another(
    image: Path, model: Path, finished: dict[str, Any], tmp_path: Path, how: str
) -> None:
    copy, folder = tmp_path / "copy.tif", tmp_path / "again"
    shutil.copy(image, copy)
    folder.mkdir()
    options = options_in(folder, model)
    if how == "damaged":
        zero_tiles(copy, list(range(8)))  # the first rows of the first block, seen by its neighbour
    else:
        os.truncate(copy, copy.stat().st_size - 100_000)
    assert tilepipe.open_image(copy).fingerprint() != tilepipe.open_image(image).fingerprint()
    first = tilepipe.run(copy, **options)
    assert first.exit_code == 3
    shutil.copy(image, copy)
    second = tilepipe.run(copy, **options)
    assert second.exit_code == 0
    assert second.resumed == first.blocks - len(first.incomplete)
    assert digest(folder) == finished["bytes"]


def test_another_image_does_not_pass_for_a_repaired_one(
    image: Path, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.tif"
    shutil.copy(image, copy)
    zero_tiles(copy, [0])
    options = {"model": model, "outputs": tmp_path / "m.ome.zarr", "window": LARGE}
    tilepipe.run(copy, **options)  # type: ignore[arg-type]
    ledger = tmp_path / "m.ome.zarr" / FOLDER / "ledger"
    before = ledger.read_bytes()
    write_tiff(copy, make_image(SIDE, SIDE, seed=7))
    with pytest.raises(InputError, match="the image was"):
        tilepipe.run(copy, **options)  # type: ignore[arg-type]
    assert ledger.read_bytes() == before


def test_what_a_repair_changed_beyond_the_unreadable_is_computed_again(
    image: Path, model: Path, tmp_path: Path
) -> None:
    """Damage that could be decoded is found too, as the pixels are compared."""
    copy, folder, whole = tmp_path / "copy.tif", tmp_path / "again", tmp_path / "whole"
    folder.mkdir()
    whole.mkdir()
    tilepipe.run(image, **options_in(whole, model, window=WINDOW))  # 9 blocks of 512
    pixels = tifffile.imread(image)
    pixels[1040:, 1060:] ^= 255  # seen by the last column's last block and the one above it
    write_tiff(copy, pixels)
    zero_tiles(copy, [0])
    first = tilepipe.run(copy, **options_in(folder, model, window=WINDOW))
    assert first.incomplete[0][0] == 0
    shutil.copy(image, copy)
    summary = tilepipe.run(copy, **options_in(folder, model, window=WINDOW))
    assert summary.blocks - summary.resumed == len(first.incomplete) + 2
    assert digest(folder) == digest(whole)


def test_a_repaired_image_of_which_a_region_is_computed_is_resumed(
    image: Path, model: Path, tmp_path: Path
) -> None:
    copy, folder, whole = tmp_path / "copy.tif", tmp_path / "again", tmp_path / "whole"
    folder.mkdir()
    whole.mkdir()
    region = {"region": (0, 0, 1060, 1090)}  # cuts through every block
    tilepipe.run(image, **options_in(whole, model), **region)
    shutil.copy(image, copy)
    zero_tiles(copy, [0])
    first = tilepipe.run(copy, **options_in(folder, model), **region)
    assert first.exit_code == 3
    shutil.copy(image, copy)
    summary = tilepipe.run(copy, **options_in(folder, model), **region)
    assert summary.blocks - summary.resumed == len(first.incomplete)
    assert digest(folder) == digest(whole)


def test_outputs_that_differ_by_their_suffix_alone_have_records_of_their_own(
    image: Path, model: Path, tmp_path: Path
) -> None:
    for name in ("a.ome.tif", "a.tif"):
        tilepipe.run(image, model=model, outputs=tmp_path / name)
    for name in ("a.ome.tif", "a.tif"):
        again = tilepipe.run(image, model=model, outputs=tmp_path / name)
        assert again.resumed == again.blocks
    assert record_path(tmp_path / "a.ome.tif").name == "a.run.json"
    assert record_path(tmp_path / "a.tif").name == "a.tif.run.json"


def test_settling_takes_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "c/0").mkdir(parents=True)
    (tmp_path / "c/0/1").write_bytes(b"x")
    fsync_files([tmp_path / "c/0/1", tmp_path / "c/0/2", tmp_path / "c/9/9"], tmp_path)
    fsync_folder(tmp_path / "nowhere")


def test_names_are_flushed_with_what_leads_to_them_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []

    def note(path: Path) -> None:
        path.stat()
        flushed.append(str(path.relative_to(tmp_path)))

    monkeypatch.setattr(fsync, "_fsync", note)
    settled: set[Path] = set()

    def flush(*names: str) -> list[str]:
        flushed.clear()
        fsync_files([tmp_path / name for name in names], tmp_path, settled)
        return flushed

    (tmp_path / "c/0").mkdir(parents=True)
    assert flush("c/9/9") == ["c", "."], "9 does not exist, and so its name is not there to be kept"
    (tmp_path / "c/0/1").write_bytes(b"x")
    assert flush("c/0/1") == ["c/0/1", "c/0", "c"]
    (tmp_path / "c/0/2").write_bytes(b"x")
    assert flush("c/0/2") == ["c/0/2", "c/0"]
    (tmp_path / "c/9").mkdir()
    (tmp_path / "c/9/9").write_bytes(b"x")
    assert flush("c/9/9") == ["c/9/9", "c/9", "c"]
    assert sorted(flush("c/9/9", "c/0/1")) == ["c/0", "c/0/1", "c/9", "c/9/9"]
    (tmp_path / "c/0/1").unlink()
    assert flush("c/0/1") == ["c/0"], "its removal is kept too"
    fsync_files([tmp_path / "c/0/2"], tmp_path)
    assert flushed[-4:] == ["c/0/2", "c/0", "c", "."], "without knowing of any, all"


def test_nothing_is_in_the_ledger_before_it_is_on_the_disk(
    image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.engine.state.ledger import Ledger
    from tilepipe.products.store import ZarrMask

    settled: list[tuple[Any, int]] = []
    plan, _ = tilepipe.plan(image, model=model, window=LARGE)
    append = Ledger.append

    def watched(ledger: Ledger, record: dict[str, Any]) -> None:
        windows = {window for window, level in settled if level == record.get("level", 0)}
        if record["kind"] == "block":
            assert plan.tiling.block_window(record["number"]) in windows
        elif record["kind"] == "level":
            assert windows
        append(ledger, record)

    def flush(self: ZarrMask, window: Any = None, level: int = 0) -> None:
        settled.append((window, level))

    monkeypatch.setattr(Ledger, "append", watched)
    monkeypatch.setattr(ZarrMask, "flush", flush)
    tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr", window=LARGE)
    assert len(settled) == 4 + 4 + 1  # blocks, their chunks of level 1, and level 2 of one piece


@pytest.mark.parametrize("tile", [0, 8, 13, 35])
def test_a_tile_that_cannot_be_read_costs_no_pixel_of_another(tmp_path: Path, tile: int) -> None:
    import numpy as np

    from tilepipe.engine.work.salvage import read_readable
    from tilepipe.grid import Window

    path = write_tiff(tmp_path / "image.tif", make_image(700, 720))
    zero_tiles(path, [tile])
    row, column = (128 * n for n in divmod(tile, 6))
    bad = np.zeros((700, 720), np.bool_)
    bad[row : row + 128, column : column + 128] = True
    with tilepipe.open_image(path) as image:
        _, _, unreadable, message = read_readable(image, Window(-100, -100, 950, 960), 0)
    assert "image.tif" in message
    np.testing.assert_array_equal(unreadable, np.pad(bad, ((100, 150), (100, 140)), "reflect"))
