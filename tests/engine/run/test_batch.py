"""Many images in one run: the same masks as one by one, and none stops the others."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

import tilepipe
from tests.images.making import write_scene
from tests.making import WINDOW, digest, make_image, write_tiff
from tests.zygote import Zygote
from tilepipe.cli import call
from tilepipe.engine.cluster import connect
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.run.batch import BatchCallbacks, Outcome
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.grid import Window

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three images of unlike sizes, two of them of several blocks."""
    folder = tmp_path_factory.mktemp("images")
    sizes = [(600, 300), (300, 420), (540, 700)]
    return [
        write_tiff(folder / f"{name}.tif", make_image(*size, seed=seed))
        for seed, (name, size) in enumerate(zip(NAMES, sizes, strict=True))
    ]


@pytest.fixture(scope="module")
def alone(
    images: list[Path], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The bytes of the masks when each image is run by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for image in images:
        tilepipe.run(image, model=model, outputs=f"{folder}/", window=WINDOW, threads=1)
    return digest(folder)


class Diary(BatchCallbacks):
    """Who was told what, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def image(self, number: int, image: str) -> RunCallbacks:
        name, lines = Path(image).stem, self.lines

        class OfOne(RunCallbacks):
            def submitted(self) -> None:
                lines.append(f"{name} begins")

            def block(self, receipt: object) -> None:
                lines.append(f"{name} block")

        return OfOne()

    def finished(self, outcome: Outcome) -> None:
        self.lines.append(f"{Path(outcome.image).stem} {outcome.result}")


def test_the_masks_are_those_of_single_runs(
    images: list[Path], model: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    diary = Diary()
    summary = tilepipe.run_batch(
        images, model=model, outputs=f"{tmp_path}/", window=WINDOW, threads=1, watch=diary
    )
    assert [outcome.result for outcome in summary.outcomes] == ["done"] * 3
    assert summary.exit_code == 0
    assert digest(tmp_path) == alone
    # The workers had blocks of the next image before the last one of this one was back.
    last = max(i for i, line in enumerate(diary.lines) if line == "a block")
    assert diary.lines.index("b begins") < last
    again = tilepipe.run_batch(
        images, model=model, outputs=f"{tmp_path}/", window=WINDOW, threads=1
    )
    assert [outcome.result for outcome in again.outcomes] == ["done before"] * 3
    assert digest(tmp_path) == alone


def test_one_bad_image_does_not_stop_the_others(
    images: list[Path], model: Path, alone: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bad, gray = tmp_path / "bad.tif", tmp_path / "gray.tif"
    bad.write_bytes(images[0].read_bytes()[:300])
    write_tiff(gray, make_image(300, 300, bands=1)[..., 0])
    masks = tmp_path / "masks"
    arguments = [
        "run", str(images[0]), str(bad), str(images[1]), str(gray), str(tmp_path / "missing.tif"),
        str(images[2]), "-m", str(model), "-o", f"{masks}/", "--window", str(WINDOW),
        "--threads", "1",
    ]  # fmt: skip
    assert call(arguments) == 3
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert "6 images: 3 done, 3 failed" in shown.out
    assert digest(masks) == alone
    assert call([*arguments, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    results = [image["result"] for image in document["images"]]
    assert results == ["done before", "failed", "done before", "failed", "failed", "done before"]
    assert "takes 3" in document["images"][3]["reason"]


def test_an_image_with_damage_is_done_in_part(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.tif"
    content = bytearray(images[0].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    damaged.write_bytes(content)
    summary = tilepipe.run_batch(
        [damaged, images[1]], model=model, outputs=f"{tmp_path}/masks/", window=WINDOW
    )
    assert [outcome.result for outcome in summary.outcomes] == ["in part", "done"]
    assert summary.outcomes[0].reason
    assert summary.exit_code == 3


BATCH = """
import os, signal, sys, tilepipe
from tilepipe.engine.run.batch import BatchCallbacks
from tilepipe.engine.cluster import connect
from tilepipe.engine.events import RunCallbacks
class Kill(BatchCallbacks):
    left = int(sys.argv[1])
    def image(self, number, image):
        kill = self
        class OfOne(RunCallbacks):
            def block(self, receipt):
                kill.left -= 1
                if kill.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        return OfOne()
tilepipe.run_batch(sys.argv[5:], model=sys.argv[2], outputs=sys.argv[3], window=int(sys.argv[4]),
                   threads=1, watch=Kill())
"""


@pytest.mark.parametrize("blocks", ["1", "3"])
def test_killed_and_run_again_the_bytes_are_the_same(
    blocks: str,
    images: list[Path],
    model: Path,
    alone: dict[str, str],
    tmp_path: Path,
    zygote: Zygote,
) -> None:
    masks = tmp_path / "masks"
    words = [blocks, str(model), f"{masks}/", str(WINDOW), *map(str, images)]
    killed = zygote.start(words, tmp_path / "log", code=BATCH)
    assert killed.wait() == -signal.SIGKILL, killed.said
    summary = tilepipe.run_batch(images, model=model, outputs=f"{masks}/", window=WINDOW, threads=1)
    assert summary.exit_code == 0
    assert digest(masks) == alone


def test_what_is_wrong_with_all_is_said_once(
    images: list[Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match="is one file for 3 images"):
        tilepipe.run_batch(images, model=model, outputs=tmp_path / "m.ome.tif")
    with pytest.raises(InputError, match="there is no such file"):
        tilepipe.run_batch(images, model=tmp_path / "none.safetensors", outputs=f"{tmp_path}/")
    with pytest.raises(InputError, match="cannot be reached"):
        tilepipe.run_batch(
            images, model=model, outputs=f"{tmp_path}/", scheduler="tcp://127.0.0.1:9"
        )
    other = tmp_path / "a.png"
    other.touch()
    with pytest.raises(InputError, match=r"a\.png: would have the same masks as .*a\.tif"):
        tilepipe.run_batch([images[0], other], model=model, outputs=f"{tmp_path}/")
    with pytest.raises(InputError, match="named twice"):
        tilepipe.run_batch([images[0], images[0]], model=model, outputs=f"{tmp_path}/")
    assert os.listdir(tmp_path) == ["a.png"]  # noqa: PTH208


def test_a_full_disk_stops_the_batch(
    images: list[Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.engine.run import exports

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(exports, "export", full)
        with pytest.raises(EnvironmentFailure):
            tilepipe.run_batch(images, model=model, outputs=f"{tmp_path}/", window=WINDOW)
    assert tilepipe.run_batch(images, model=model, outputs=f"{tmp_path}/", window=WINDOW)


def test_images_may_stand_in_the_file_and_masks_have_a_pattern(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "all.yaml"
    config.write_text(
        f"images: {json.dumps([str(p) for p in images[:2]])}\n"
        f"model: {model}\noutput: '{tmp_path}/{{name}}.tif'\n"
    )
    assert call(["run", "--config", str(config), "-q"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == ["a.tif", "b.tif"]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_class_of_each_image(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    slide = write_tiff(tmp_path / "slide.tif", make_image(600, 700), pixel_size_um=0.5)
    scene = write_scene(tmp_path / "scene.tif", make_image(500, 600), None)
    bad = tmp_path / "bad, or worse.tif"
    bad.write_bytes(b"II*\x00")
    table = tmp_path / "classes.csv"
    plain = write_tiff(tmp_path / "plain.tif", make_image(300, 420), pixel_size_um=None)
    named = [slide, scene, bad, plain]
    # At its own scale each, as the model's is that of slides.
    arguments = ["run", *map(str, named), "-m", str(model), "-o", f"{tmp_path}/masks/", "-q"]
    arguments += ["--level", "0"]
    assert call([*arguments, "--table", str(table)]) == 3
    rows = read_table(table)
    of = {path: [row for row in rows if row["image"] == str(path)] for path in named}
    for path, unit in ((slide, "mm2"), (scene, "km2"), (plain, "")):
        mask = tilepipe.open_mask(of[path][0]["mask"])
        labels = mask.read(Window(0, 0, *mask.shape))
        assert mask.classes is not None
        assert [row["class"] for row in of[path]] == [c.name for c in mask.classes]
        for row in of[path]:
            pixels = int((labels == int(row["label"])).sum())
            assert int(row["pixels"]) == pixels
            assert float(row["share"]) == pytest.approx(pixels / int(row["answered_pixels"]))
            assert (row["result"], row["area_unit"]) == ("done", unit)
    first, last = of[slide][0], of[scene][-1]
    assert float(first["area"]) == pytest.approx(int(first["pixels"]) * 0.25e-6)
    assert (first["pixel_size"], first["pixel_size_unit"]) == ("0.5", "micrometer")
    assert float(last["area_ha"]) == pytest.approx(100 * float(last["area"]))
    assert not of[plain][0]["area"]
    assert not first["objects"]
    (failed,) = of[bad]
    assert (failed["result"], failed["pixels"]) == ("failed", "")
    assert failed["reason"]
    # What was done before has the same numbers.
    assert call([*arguments, "--table", str(table)]) == 3
    done = {"done": "done before"}
    assert read_table(table) == [
        {**row, "result": done.get(row["result"], row["result"])} for row in rows
    ]


def test_the_table_and_the_screen_count_objects(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = [
        write_tiff(tmp_path / f"{name}.tif", make_image(300, 420, seed=seed))
        for seed, name in enumerate("ab")
    ]
    table = tmp_path / "classes.csv"
    arguments = ["run", *map(str, slides), "-m", str(model), "-o", f"{tmp_path}/{{name}}.geojson"]
    assert call([*arguments, "--table", str(table)]) == 0
    told = capsys.readouterr()
    for row in read_table(table):
        if row["class"] == "background":
            assert not row["objects"]
            continue
        found = json.loads((tmp_path / f"{Path(row['image']).stem}.geojson").read_text())
        assert int(row["objects"]) == len(found["features"]) > 0
        area = float(row["answered_area"])
        assert float(row["density"]) == pytest.approx(int(row["objects"]) / area, rel=1e-6)
        assert row["density_unit"] == "per mm2"
        assert f"objects: {int(row['objects']):,} {row['class']} (" in told.out + told.err


def test_a_single_image_has_a_table_too(images: list[Path], model: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    arguments = ["run", str(images[1]), "-m", str(model), "-o", f"{tmp_path}/m.ome.tif", "-q"]
    assert call([*arguments, "--table", str(table)]) == 0
    assert {row["result"] for row in read_table(table)} == {"done"}


@pytest.mark.parametrize("name", ["t.tif", "nowhere/t.csv"])
def test_a_table_that_cannot_be_written_is_refused_before_the_work(
    images: list[Path], model: Path, tmp_path: Path, name: str
) -> None:
    arguments = ["run", str(images[1]), "-m", str(model), "-o", f"{tmp_path}/m.ome.tif", "-q"]
    assert call([*arguments, "--table", str(tmp_path / name)]) == 2
    assert not list(tmp_path.iterdir())
