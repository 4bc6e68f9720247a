"""Killed at any moment, the same command ends with the same bytes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

import tilepipe
from tests.making import WINDOW, digest, make_image, save_tiny, write_tiff
from tests.zygote import Zygote
from tilepipe.engine.state.folder import FOLDER, RunState
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.errors import InputError

pytestmark = pytest.mark.slow

OUTPUTS = ("m.ome.zarr", "m.ome.tif", "m.tif")


def command(image: Path, model: Path, folder: Path, *more: str) -> list[str]:
    outputs = [word for name in OUTPUTS for word in ("-o", str(folder / name))]
    return [
        "run", str(image), "-m", str(model), *outputs,
        "--window", str(WINDOW), "--threads", "1", "--runtime", "torch", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six blocks, two of them whole, and two coarser levels."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    return write_tiff(path, make_image(540, 1100))


@pytest.fixture(scope="module")
def uninterrupted(
    image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    summary = tilepipe.run(
        image, model=model, outputs=[folder / name for name in OUTPUTS], window=WINDOW, threads=1
    )
    assert summary.blocks == 6
    return digest(folder)


KILLER = """
import sys, tilepipe
from tests.making import KillAfter
image, model, window, blocks, stage, *outputs = sys.argv[1:]
tilepipe.run(image, model=model, outputs=outputs, window=int(window), threads=1, runtime="torch",
             watch=KillAfter(int(blocks) if blocks else None, stage or None))
"""


AT_A_RECORD = """
import os, signal, sys
from tilepipe.cli import main
from tilepipe.engine.state.ledger import Ledger

append, records = Ledger.append, 0
number, last = signal.Signals["SIG" + sys.argv.pop(1)], int(sys.argv.pop(1))

def watched(self, record):
    global records
    append(self, record)
    records += 1
    if records == last:
        os.kill(os.getpid(), number)

Ledger.append = watched
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background ignore
main()
"""
"""`tilepipe`, which sends itself a signal when its Nth record is in the ledger."""


@pytest.mark.parametrize(
    ("blocks", "stage"),
    [
        ("1", ""),
        ("3", ""),
        ("", "pyramid level 1"),
        ("", "pyramid level 2"),
        ("", "m.ome.tif"),
        ("", "m.tif"),
    ],
)
def test_killed_at_a_chosen_moment_and_run_again_the_bytes_are_the_same(
    blocks: str,
    stage: str,
    image: Path,
    model: Path,
    uninterrupted: dict[str, str],
    tmp_path: Path,
    zygote: Zygote,
) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    outputs = [str(folder / name) for name in OUTPUTS]
    words = [str(image), str(model), str(WINDOW), blocks, stage, *outputs]
    killed = zygote.start(words, tmp_path / "log", code=KILLER)
    assert killed.wait() == -signal.SIGKILL, killed.said
    tilepipe.run(image, model=model, outputs=outputs, window=WINDOW, threads=1)
    assert digest(folder) == uninterrupted


def test_killed_again_and_again_until_it_ends_the_bytes_are_the_same(
    image: Path, model: Path, uninterrupted: dict[str, str], tmp_path: Path, zygote: Zygote
) -> None:
    # Each process leaves two more records in the ledger, be they of blocks, levels or exports;
    # once less is left to record, the run ends.
    folder = tmp_path / "masks"
    folder.mkdir()
    killed = 0
    words = ["KILL", "2", *command(image, model, folder)]
    while code := (run := zygote.start(words, tmp_path / "log", code=AT_A_RECORD)).wait():
        assert code == -signal.SIGKILL, run.said
        killed += 1
        ledger = folder / "m.ome.zarr" / FOLDER / "ledger"
        assert len(list(read_ledger(ledger))) >= 2 * killed
    assert killed >= 4, "three times for the six blocks, and what comes after them"
    assert digest(folder) == uninterrupted


def test_a_finished_run_is_not_computed_again(image: Path, model: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "m.ome.zarr", tmp_path / "m.tif"]
    first = tilepipe.run(image, model=model, outputs=outputs, window=WINDOW)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/c/*")}
    again = tilepipe.run(image, model=model, outputs=outputs, window=WINDOW)
    assert again.resumed == again.blocks == first.blocks
    assert again.classes == first.classes
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/c/*")} == before


def test_without_a_zarr_output_nothing_but_the_exports_and_the_record_stays(
    image: Path, model: Path, tmp_path: Path
) -> None:
    first = tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"m.ome.tif", "m.run.json"}
    again = tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.tif")
    assert again.resumed == again.blocks
    assert again.classes == first.classes


def test_other_options_are_refused_and_said(image: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=output, window=WINDOW)
    with pytest.raises(InputError, match=f"window was {WINDOW} x {WINDOW}"):
        tilepipe.run(image, model=model, outputs=output, window=1340)
    with pytest.raises(InputError, match="precision was fp32, now bf16"):
        tilepipe.run(image, model=model, outputs=output, precision="bf16")
    with pytest.raises(InputError, match="probabilities was none"):
        tilepipe.run(image, model=model, outputs=output, probabilities="uint8")
    summary = tilepipe.run(image, model=model, outputs=output, window=1340, overwrite=True)
    assert summary.resumed == 0


def test_another_image_is_refused(image: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=output)
    other = write_tiff(tmp_path / "other.tif", make_image(540, 1100, seed=1))
    with pytest.raises(InputError, match="the image was"):
        tilepipe.run(other, model=model, outputs=output)


def test_a_second_run_of_one_output_is_refused(image: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=output)
    with (
        RunState(output).locked(),
        pytest.raises(InputError, match="another run is writing it"),
    ):
        tilepipe.run(image, model=model, outputs=output)


def test_files_that_are_not_ours_are_left_alone(image: Path, model: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "m.tif"
    theirs.write_text("a thesis")
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(image, model=model, outputs=[theirs])
    folder = tmp_path / "n.ome.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("a thesis")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            tilepipe.run(image, model=model, outputs=[folder], overwrite=overwrite)
    assert theirs.read_text() == (folder / "notes.txt").read_text() == "a thesis"


def test_overwrite_spares_an_image_but_not_a_mask(image: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "slide.ome.zarr"
    tilepipe.convert(image, other)
    before = digest(other)
    with pytest.raises(InputError, match="is not a mask that tilepipe wrote"):
        tilepipe.run(image, model=model, outputs=other, overwrite=True)
    assert digest(other) == before
    mask = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=mask, window=WINDOW)
    shutil.rmtree(mask / FOLDER)  # as when it was copied without what is hidden
    tilepipe.run(image, model=model, outputs=mask, window=WINDOW, overwrite=True)
    assert tilepipe.verify(mask, windows=1).exact


def test_an_orphan_of_a_dead_run_does_not_write(image: Path, model: Path, tmp_path: Path) -> None:
    from tilepipe.engine.work.block import compute_block
    from tilepipe.engine.work.context import SupersededError, release_context

    output = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=output, window=WINDOW)
    state = RunState(output)
    orphan = state.begin()
    state.begin()
    before = digest(tmp_path)
    with pytest.raises(SupersededError):
        compute_block(str(output), orphan, 0)
    release_context(orphan)
    assert digest(tmp_path) == before


def test_ctrl_c_stops_with_130_and_says_how_to_go_on(
    image: Path, model: Path, uninterrupted: dict[str, str], tmp_path: Path, zygote: Zygote
) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    words = ["INT", "1", *command(image, model, folder)]
    stopped = zygote.start(words, tmp_path / "log", code=AT_A_RECORD)
    assert stopped.wait() == 130
    assert "to resume: tilepipe run" in stopped.said
    assert "Traceback" not in stopped.said
    again = zygote.start(command(image, model, folder, "--quiet"), tmp_path / "again.log")
    assert again.wait() == 0, again.said
    assert digest(folder) == uninterrupted


def test_a_run_again_keeps_its_warnings_and_its_proof(image: Path, tmp_path: Path) -> None:
    from tilepipe.models.unet import UNetArguments

    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2), pixel_size_um=0.2)
    for outputs in (tmp_path / "m.ome.zarr", tmp_path / "n.ome.tif"):
        first = tilepipe.run(image, model=model, outputs=outputs, verify=2)
        again = tilepipe.run(image, model=model, outputs=outputs)
        assert first.warnings
        assert again.warnings == first.warnings
        assert again.verification == first.verification
        assert again.verification is not None
        more = tilepipe.run(image, model=model, outputs=outputs, verify=3)
        assert more.verification is not None
        assert more.verification.windows == 3


def test_an_unfinished_mask_is_not_verified(
    image: Path, model: Path, tmp_path: Path, zygote: Zygote
) -> None:
    output = tmp_path / "m.ome.zarr"
    words = [str(image), str(model), str(WINDOW), "1", "", str(output)]
    assert zygote.start(words, tmp_path / "log", code=KILLER).wait() == -signal.SIGKILL
    with pytest.raises(InputError, match="is not finished"):
        tilepipe.verify(output)


def test_a_resumed_run_does_not_write_over_files_that_are_not_its_own(
    image: Path, model: Path, tmp_path: Path
) -> None:
    output, theirs = tmp_path / "m.ome.zarr", tmp_path / "thesis.tif"
    tilepipe.run(image, model=model, outputs=output)
    theirs.write_text("a thesis")
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(image, model=model, outputs=[output, theirs])
    assert theirs.read_text() == "a thesis"
    theirs.unlink()
    tilepipe.run(image, model=model, outputs=[output, theirs])
    tilepipe.run(image, model=model, outputs=[output, theirs])


def test_an_overwrite_stopped_half_way_is_never_taken_for_a_run(
    image: Path, model: Path, uninterrupted: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    outputs = [tmp_path / name for name in OUTPUTS]
    options = {"model": model, "outputs": outputs, "window": WINDOW, "threads": 1}
    tilepipe.run(image, **options)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tilepipe.storage.ops.shutil", SimpleNamespace(rmtree=fail))
        with pytest.raises(KeyboardInterrupt):
            tilepipe.run(image, overwrite=True, **options)
    for path in outputs[1:]:
        path.unlink()
    (tmp_path / "m.tif.aux.xml").unlink()
    summary = tilepipe.run(image, **options)
    assert summary.resumed == 0
    assert digest(tmp_path) == uninterrupted
