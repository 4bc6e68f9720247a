"""Runs whose image, mask and exports lie on an object store, against an S3 server."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import tilepipe
from tests.making import WINDOW, make_image, write_tiff
from tests.storage.conftest import Service
from tests.storage.making import OUTPUTS, answers, at, named, objects, on_disk
from tests.storage.server import BUCKET, KEY_ID, SECRET
from tests.zygote import Zygote
from tilepipe.cli import call
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.state.folder import FOLDER, RunState
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.storage import as_path, lock, staged_locally
from tilepipe.storage.objects import connection

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(
    image: Path,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, bytes]:
    """What a run writes on a disk."""
    folder = tmp_path_factory.mktemp("disk")
    tilepipe.run(image, model=model, outputs=named(folder), window=WINDOW, threads=1)
    return answers(on_disk(folder))


@pytest.fixture
def remote(s3: Service, image: Path) -> str:
    """The address of the image."""
    address = f"s3://{BUCKET}/images/image.tif"
    if not at(address).exists():
        at(address).write_bytes(image)
    s3.log()
    return address


def test_what_is_written_is_what_a_disk_gets(
    s3: Service,
    remote: str,
    folder: str,
    model: Path,
    expected: dict[str, bytes],
) -> None:
    summary = tilepipe.run(remote, model=model, outputs=named(folder), window=WINDOW, threads=1)
    requests = Counter(s3.log())
    found = objects(folder)
    assert answers(found) == expected
    assert summary.blocks == 4
    # Chunks are written once, and none is read before.
    chunks = [name for name in expected if "/c/" in name]
    for chunk in chunks:
        assert requests[f"PUT /{BUCKET}/{folder.split('/', 3)[3]}/{chunk}"] == 1
    written = [r for r in requests.elements() if r.startswith("PUT") and "/c/" in r]
    assert len(written) == len(chunks)
    # Hundreds of tiles of 128 x 128 are read by far fewer requests.
    assert requests[f"GET /{BUCKET}/images/image.tif"] < 60
    # A look at which run may write: at each block, window of the pyramid and batch of the ledger.
    assert sum(n for r, n in requests.items() if r.endswith("/run.json")) < 25
    # Nobody holds it, and no run may write it any more.
    left = {name.partition(f"/{FOLDER}/")[2] for name in found if f"/{FOLDER}/" in name}
    assert "plan.json" in left
    assert not {"lock", "run.json"} & left
    # Nothing is left to do, and the whole can be read and verified where it is.
    again = tilepipe.run(remote, model=model, outputs=named(folder), window=WINDOW, threads=1)
    assert again.resumed == 4
    assert not [r for r in s3.log() if r.startswith("PUT") and "/c/" in r]
    with tilepipe.open_image(remote) as opened:
        assert opened.fingerprint() == summary.plan.image.fingerprint
    mask = tilepipe.open_mask(f"{folder}/m.ome.zarr")
    assert mask.as_dask()[:10, :20].compute().shape == (10, 20)
    assert tilepipe.verify(f"{folder}/m.ome.zarr", windows=1).exact


class Stop(RunCallbacks):
    """Does something after the first block."""

    def __init__(self, what: object) -> None:
        self.what, self.done = what, False

    def block(self, receipt: object) -> None:
        if not self.done and callable(self.what):
            self.done = True
            self.what()


@pytest.fixture
def small(s3: Service) -> str:
    """The address of an image of one block."""
    address = f"s3://{BUCKET}/images/small.tif"
    if not at(address).exists():
        with staged_locally(at(address)) as local:
            write_tiff(local, make_image(300, 420))
    s3.log()
    return address


def test_a_store_that_goes_away_stops_the_run_which_can_be_resumed(
    s3: Service,
    remote: str,
    folder: str,
    model: Path,
    expected: dict[str, bytes],
) -> None:
    outputs = named(folder)
    watch = Stop(lambda: s3.order(fail="/m.ome.zarr"))
    with pytest.raises(EnvironmentFailure, match=r"503 SlowDown|fails") as stopped:
        tilepipe.run(remote, model=model, outputs=outputs, window=WINDOW, threads=1, watch=watch)
    assert KEY_ID not in str(stopped.value)
    s3.order()
    tilepipe.run(remote, model=model, outputs=outputs, window=WINDOW, threads=1)
    assert answers(objects(folder)) == expected


def test_an_image_that_goes_away_is_not_taken_for_damaged(
    s3: Service,
    remote: str,
    folder: str,
    model: Path,
    expected: dict[str, bytes],
) -> None:
    outputs = named(folder)
    watch = Stop(lambda: s3.order(fail="/images/"))
    with pytest.raises(EnvironmentFailure, match="the object store fails"):
        tilepipe.run(remote, model=model, outputs=outputs, window=WINDOW, threads=1, watch=watch)
    s3.order()
    tilepipe.run(remote, model=model, outputs=outputs, window=WINDOW, threads=1)
    assert answers(objects(folder)) == expected


KILLED = """
import os, signal
import tilepipe.engine.state.ledger as ledger
from tilepipe.cli import main

ledger.BATCH_RECORDS = 1
append = ledger.Ledger.append

def killed(self, record):
    append(self, record)
    if record["kind"] == "block":
        os.kill(os.getpid(), signal.SIGKILL)

ledger.Ledger.append = killed
main()
"""
"""`tilepipe`, killed when its first block is in the ledger."""


def test_a_run_that_was_killed_is_resumed_to_the_same_objects(
    s3: Service,
    remote: str,
    folder: str,
    model: Path,
    expected: dict[str, bytes],
    zygote: Zygote,
    tmp_path: Path,
) -> None:
    more = [word for path in named(folder) for word in ("-o", path)]
    options = [
        "-m",
        str(model),
        *more,
        "--window",
        str(WINDOW),
        "--threads",
        "1",
        "--runtime",
        "torch",
    ]
    words = ["run", remote, *options]
    killed = zygote.start(words, tmp_path / "log", code=KILLED, **s3.variables)
    assert killed.wait() == -signal.SIGKILL, killed.said
    state = RunState(as_path(f"{folder}/m.ome.zarr"))
    assert (state.folder / "lock").exists()
    done = [r for r in read_ledger(state.ledger_file) if r["kind"] == "block"]
    assert done
    watch = Started()
    tilepipe.run(remote, model=model, outputs=named(folder), window=WINDOW, threads=1, watch=watch)
    assert 1 <= len(done) <= watch.resumed
    assert answers(objects(folder)) == expected


class Started(RunCallbacks):
    resumed = -1

    def planned(self, plan: object, estimate: object, done: int) -> None:
        self.resumed = done


def test_damage_on_an_object_store_is_found_and_mended(
    remote: str,
    folder: str,
    model: Path,
    expected: dict[str, bytes],
) -> None:
    options = {"model": model, "outputs": named(folder), "window": WINDOW, "threads": 1}
    tilepipe.run(remote, **options)
    mask = f"{folder}/m.ome.zarr"
    store = at(mask)
    sound = tilepipe.verify(mask, windows=1, scrub=True)
    assert sound.exact
    assert any("all read" in sentence for sentence in sound.covered)
    one, other = (store / f"0/c/0/{column}" for column in (0, 1))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    document = (store / "0/zarr.json").read_bytes()
    (store / "0/zarr.json").write_bytes(
        document.replace(b'"fill_value": 255', b'"fill_value": 254')
    )
    (store / "0/c/9/9").write_bytes(first)
    found = tilepipe.verify(mask, windows=1, scrub=True)
    assert not found.exact
    for part in ("0/zarr.json", "0/c/9/9", "block 0 (0/c/0/0)"):
        assert part in str(found)
    assert tilepipe.run(remote, **options).resumed == 2
    assert answers(objects(folder)) == expected
    export = at(f"{folder}/m.ome.tif")
    export.write_bytes(export.read_bytes()[:-1] + b"?")
    assert "m.ome.tif" in str(tilepipe.verify(mask, windows=1, scrub=True))
    assert tilepipe.run(remote, **options).resumed == 4
    assert answers(objects(folder)) == expected


def test_two_runs_cannot_write_one_output(
    remote: str,
    folder: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.1)
    with (
        lock.holding_lock(at(folder) / "m.ome.zarr" / FOLDER / "lock"),
        pytest.raises(InputError, match="another run is writing it"),
    ):
        tilepipe.run(remote, model=model, outputs=[f"{folder}/m.ome.zarr"], window=WINDOW)


def test_processes_are_given_the_address_and_take_credentials_from_their_own_environment(
    remote: str,
    folder: str,
    model: Path,
    expected: dict[str, bytes],
) -> None:
    tilepipe.run(remote, model=model, outputs=named(folder), window=WINDOW, threads=1, workers=2)
    assert answers(objects(folder)) == expected


def test_overwrite_removes_masks_and_nothing_else(
    small: str,
    folder: str,
    model: Path,
) -> None:
    options = {"model": model, "outputs": named(folder, OUTPUTS[:2]), "threads": 1}
    stranger = at(folder) / "m.ome.zarr" / "notes.txt"
    stranger.write_bytes(b"not a mask")
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(small, **options)
    with pytest.raises(InputError, match="is not a mask that tilepipe wrote"):
        tilepipe.run(small, overwrite=True, **options)
    assert objects(folder) == {"m.ome.zarr/notes.txt": b"not a mask"}
    stranger.unlink()
    tilepipe.run(small, window=956, **options)
    before = answers(objects(folder))
    with pytest.raises(InputError, match="begun with other settings"):
        tilepipe.run(small, window=WINDOW, **options)
    tilepipe.run(small, window=WINDOW, overwrite=True, **options)
    plan = RunState(as_path(f"{folder}/m.ome.zarr")).read_plan()
    assert plan is not None
    assert plan.tiling.input == (WINDOW, WINDOW)
    assert answers(objects(folder)) == before  # the same answer, by whatever window


def test_masks_brought_back_to_the_image_are_what_a_disk_gets(
    small: str,
    folder: str,
    model: Path,
    tmp_path: Path,
) -> None:
    options = {
        "model": model,
        "window": WINDOW,
        "threads": 1,
        "like_image": True,
        "pixel_size": 0.5,
    }
    names = ("m.ome.zarr", "m.ome.tif")
    tilepipe.run(small, outputs=named(tmp_path, names), **options)
    tilepipe.run(small, outputs=named(folder, names), **options)
    assert answers(objects(folder)) == answers(on_disk(tmp_path))


def test_no_secret_is_ever_told(
    s3: Service,
    small: str,
    folder: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    mask = f"{folder}/m.ome.zarr"
    plain = ["run", small, "-m", str(model), "-o", mask, "-o"]
    wrong = {"AWS_SECRET_ACCESS_KEY": "a-wrong-secret-to-be-hidden"}
    monkeypatch.chdir(tmp_path)

    def told(arguments: list[str], code: int, says: str, **variables: str) -> None:
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            connection.cache_clear()
            ended = call(arguments)
            connection.cache_clear()
        out, err = capfd.readouterr()
        assert ended == code, out + err
        assert says in out + err
        _without_secrets((out + err).encode())
        if code:
            assert len([line for line in err.splitlines() if line.startswith("tilepipe: ")]) == 1
            assert "Traceback" not in err

    told([*plain, "m.ome.tif"], 0, "nucleus")
    told(["info", small], 2, "refuses access", **wrong)
    told([*plain, "n.ome.tif"], 2, "refuses access", **wrong)
    told(["verify", mask], 2, "refuses access", **wrong)
    told(["info", "s3://nobucket/image.tif"], 2, "s3://nobucket")
    told(["info", f"s3://me:{SECRET}@{BUCKET}/image.tif"], 2, "its address had more in it")
    told(["plan", small, "-m", str(model), "-o", "s3://nobucket/m.png"], 2, "no such bucket")
    gone = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "TILEPIPE_OBJECT_PATIENCE": "0.5"}
    told(["info", small], 4, "cannot be reached", **gone)
    s3.order(forbid=["PUT"])
    told(["run", small, "-m", str(model), "-o", f"{folder}/x.ome.zarr"], 4, "refuses access")
    s3.order()
    for content in (*objects(folder).values(), *on_disk(tmp_path).values()):
        _without_secrets(content)
    record = json.loads(at(f"{folder}/m.run.json").read_text())
    assert record["outputs"][0] == mask
    assert record["image"]["path"] == small


def _without_secrets(content: bytes) -> None:
    for secret in (SECRET, KEY_ID, "a-wrong-secret-to-be-hidden", "Signature="):
        assert secret.encode() not in content


def test_labels_are_read_in_place(small: str, folder: str, model: Path) -> None:
    outputs = [f"{folder}/m.ome.zarr"]
    tilepipe.run(small, model=model, outputs=outputs, probabilities="uint8")
    labels = np.asarray(tilepipe.open_mask(outputs[0]).as_dask())
    assert labels.shape == (300, 420)
    assert set(np.unique(labels)) == {0, 1}
    with pytest.raises(InputError, match="a mask is opened as"):
        tilepipe.open_mask(f"{folder}/m.ome.tif")


def test_exports_of_what_lies_beside_a_mask_take_their_style_along(
    small: str, folder: str, model: Path
) -> None:
    outputs = [f"{folder}/m.entropy.tif"]
    tilepipe.run(small, model=model, outputs=outputs)
    names = {"m.entropy.tif", "m.entropy.qml", "m.entropy.run.json"}
    assert {name for name in objects(folder) if name.startswith("m.")} == names
    first = objects(folder)
    assert tilepipe.run(small, model=model, outputs=outputs).resumed
    tilepipe.run(small, model=model, outputs=outputs, overwrite=True)
    assert objects(folder)["m.entropy.qml"] == first["m.entropy.qml"]
    assert objects(folder)["m.entropy.tif"] == first["m.entropy.tif"]
