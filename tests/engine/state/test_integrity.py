"""What lies on the disk is not trusted: what is not as it was written is found, and made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile
import zarr

import tilepipe
from tests.engine.state.making import Told, edit, flip, stop
from tests.making import digest, make_image, save_tiny
from tilepipe.cli import call
from tilepipe.engine.state.folder import FOLDER
from tilepipe.engine.state.ledger import Ledger, read_ledger
from tilepipe.errors import CheckError, EnvironmentFailure, InputError
from tilepipe.grid import Window
from tilepipe.images.fingerprints import HEAD_BYTES, SAMPLE_BYTES, SAMPLES
from tilepipe.models.unet import UNetArguments
from tilepipe.products.pyramid import downsample_block, within
from tilepipe.products.store import open_zarr_mask
from tilepipe.storage.hashing import ABSENT, read_seal

SIDE = 1500
STORE = "m.ome.zarr"
NAMES = (STORE, "m.ome.tif", "m.tif")


class Scene:
    """An image of four blocks (of four, two, two and one chunks), and a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.safetensors"
        arguments = UNetArguments(width=1, depth=1, bands=1)
        margin = save_tiny(self.model, arguments, pixel_size_um=None).geometry.margin
        self.window = 1024 + 2 * margin
        self.image = folder / "image.tif"
        # Not compressed: any byte may change, and it can still be read.
        pixels = make_image(SIDE, SIDE, 1)[..., 0]
        tifffile.imwrite(self.image, pixels, tile=(128, 128), metadata=None)

    def options(self, to: Path, **more: Any) -> dict[str, Any]:
        outputs = [to / name for name in NAMES]
        return {"model": self.model, "outputs": outputs, "window": self.window, **more}

    def run(self, to: Path, image: Path | None = None, **more: Any) -> Any:
        to.mkdir(exist_ok=True)
        return tilepipe.run(image or self.image, **self.options(to, **more))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def once(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("once")
    assert scene.run(folder).blocks == 4
    return folder


@pytest.fixture(scope="module")
def partly(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a region: the first block, and none of its last chunk."""
    folder = tmp_path_factory.mktemp("partly")
    assert scene.run(folder, region=(0, 0, 1000, 500)).blocks == 1
    return folder


@pytest.fixture
def masks(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "masks"))


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def test_a_ledger_holds_a_seal_of_every_chunk(once: Path, scene: Scene) -> None:
    store = once / STORE
    mask = open_zarr_mask(store)
    tiling = scene_tiling(once)
    there = {p.relative_to(store).as_posix() for p in store.rglob("c/*/*") if p.is_file()}
    vouched: set[str] = set()
    for record in read_ledger(store / FOLDER / "ledger"):
        if record["kind"] in ("block", "level"):
            block = record["kind"] == "block"
            window = tiling.block_window(record["number"]) if block else None
            keys = list(mask.chunk_keys(window, record.get("level", 0)))
            assert record["chunks"] == " ".join(read_seal(store / key) for key in keys)
            vouched.update(keys)
        for level, seals in enumerate(record.get("coarser", ()), 1):
            part = within(tiling.block_window(record["number"]), mask.levels)[level - 1]
            keys = list(mask.chunk_keys(part, level))
            assert seals == " ".join(read_seal(store / key) for key in keys)
    assert there == vouched


def test_what_blocks_wrote_of_coarser_levels_is_made_again_only_where_it_is_damaged(
    once: Path, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[tuple[int, Window]] = []

    def reduce(mask: Any, level: int, window: Window) -> None:
        computed.append((level, window))
        downsample_block(mask, level, window)

    monkeypatch.setattr("tilepipe.engine.work.block.downsample_block", reduce)
    masks = tmp_path / "masks"
    scene.run(masks)
    assert [level for level, _ in computed] == [2]
    assert digest(masks) == digest(once)
    computed.clear()
    told = Told("pyramid level 1", lambda: flip(tmp_path / "again" / STORE / "1/c/1/1"))
    scene.run(tmp_path / "again", watch=told)
    assert [level for level, _ in computed] == [1, 2]
    assert digest(tmp_path / "again") == digest(once)


def scene_tiling(folder: Path) -> Any:
    from tilepipe.engine.state.folder import RunState

    plan = RunState(folder / STORE).read_plan()
    assert plan is not None
    return plan.tiling


def test_a_chunk_that_is_not_stored_has_a_seal_that_says_so(partly: Path) -> None:
    records = read_ledger(partly / STORE / FOLDER / "ledger")
    (block,) = [record for record in records if record["kind"] == "block"]
    assert block["chunks"].split(" ")[1::2] == [ABSENT, ABSENT]


BYTES: dict[str, tuple[Callable[[Path], object], int]] = {
    "a bit of a chunk": (lambda m: flip(m / STORE / "0/c/1/1"), 1),
    "the first byte of a chunk": (lambda m: flip(m / STORE / "0/c/2/2", 0), 1),
    "swapped in a block": (lambda m: swap(m / STORE / "0/c/0/0", m / STORE / "0/c/0/1"), 1),
    "swapped between blocks": (lambda m: swap(m / STORE / "0/c/0/1", m / STORE / "0/c/0/2"), 2),
    "copied": (lambda m: shutil.copy(m / STORE / "0/c/0/0", m / STORE / "0/c/0/1"), 1),
    "a bit of the pyramid": (lambda m: flip(m / STORE / "1/c/0/0"), 0),
    "a bit of the last level": (lambda m: flip(m / STORE / "2/c/0/0"), 0),
    "a bit of an OME-TIFF": (lambda m: flip(m / "m.ome.tif"), 0),
    "a bit of a GeoTIFF": (lambda m: flip(m / "m.tif", 0.8), 0),
}
"""Damage that `--scrub` finds, and how many blocks are computed again."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", BYTES)
def test_scrubbing_finds_damage_and_a_run_mends_only_that(
    kind: str, masks: Path, scene: Scene
) -> None:
    before = digest(masks)
    damage, blocks = BYTES[kind]
    damage(masks)
    assert digest(masks) != before
    found = tilepipe.verify(masks / STORE, windows=1, scrub=True)
    assert not found.exact
    assert found.damage
    assert not tilepipe.verify(masks / STORE, windows=1).exact, "it is damaged still"
    told = Told()
    summary = scene.run(masks, watch=told)
    assert "damaged since it was written" in " ".join(told.said)
    assert summary.blocks - summary.resumed == blocks
    assert digest(masks) == before
    again = tilepipe.verify(masks / STORE, windows=1, scrub=True)
    assert again.exact
    assert any("all read, and each is what was written" in line for line in again.covered)


def write_everywhere(content: str) -> Callable[[Path], None]:
    """Give the documents of the group and of level 0 another content, or remove them."""

    def damage(store: Path) -> None:
        for name in ("zarr.json", "0/zarr.json"):
            path = store / name
            path.write_text(content) if content else path.unlink()

    return damage


def update(name: str, **fields: Any) -> Callable[[Path], None]:
    return lambda store: edit(store / name, lambda d: d.update(fields))


def edit_root(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda store: edit(store / "zarr.json", lambda d: change(d["attributes"]))


VISIBLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "fill value": (update("0/zarr.json", fill_value=254), "0/zarr.json"),
    "fill value of a level": (update("1/zarr.json", fill_value=0), "1/zarr.json"),
    "shape": (update("0/zarr.json", shape=[SIDE - 16, SIDE]), "0/zarr.json"),
    "type": (update("0/zarr.json", data_type="int8"), "0/zarr.json"),
    "codecs": (update("0/zarr.json", codecs=[{"name": "bytes"}]), "0/zarr.json"),
    "pixel size": (edit_root(lambda a: a["ome"]["multiscales"][0].update(axes=[])), "zarr.json"),
    "classes": (edit_root(lambda a: a["tilepipe"]["classes"].reverse()), "zarr.json"),
    "gone": (write_everywhere(""), "zarr.json"),
    "cut off": (write_everywhere("{"), "zarr.json"),
    "a list": (write_everywhere("[]"), "zarr.json"),
    "a version alone": (write_everywhere('{"zarr_format": 3}'), "zarr.json"),
    "chunks of other sizes swapped": (lambda s: swap(s / "0/c/0/0", s / "0/c/0/1"), "block 0"),
}
"""Damage that is found without reading chunks, and what is named."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", VISIBLE)
def test_damage_to_metadata_and_sizes_is_named_and_mended(
    kind: str, masks: Path, scene: Scene
) -> None:
    before = digest(masks)
    damage, name = VISIBLE[kind]
    damage(masks / STORE)
    found = tilepipe.verify(masks / STORE, windows=1)
    assert not found.exact
    assert any(name in sentence for sentence in found.damage)
    told = Told()
    summary = scene.run(masks, watch=told)
    assert summary.blocks - summary.resumed == (name == "block 0")
    assert any(name in sentence for sentence in told.said)
    assert digest(masks) == before


def spoil_chunks(masks: Path) -> None:
    flip(masks / STORE / "0/c/1/1")
    swap(masks / STORE / "0/c/0/2", masks / STORE / "0/c/1/2")


def spoil_what_follows(masks: Path) -> None:
    flip(masks / "m.ome.tif")
    flip(masks / STORE / "2/c/0/0")


def spoil_without_hashes(masks: Path) -> None:
    forget_hashes(masks)
    flip(masks / STORE / "0/c/1/1")
    flip(masks / STORE / "1/c/0/0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "damage", "blocks"),
    [
        ("pyramid level 1", spoil_chunks, 2),
        ("writing m.tif", spoil_what_follows, 0),
        ("pyramid level 2", spoil_without_hashes, 1),
    ],
)
def test_a_run_that_was_stopped_reads_what_it_builds_on(
    stage: str, damage: Callable[[Path], None], blocks: int, once: Path, scene: Scene,
    tmp_path: Path,
) -> None:  # fmt: skip
    """A flipped bit once made such a run impossible to finish, and a swap made a wrong mask."""
    masks = tmp_path / "masks"
    with pytest.raises(EnvironmentFailure):
        scene.run(masks, watch=Told(stage, stop))
    damage(masks)
    told = Told()
    summary = scene.run(masks, watch=told)
    assert summary.blocks - summary.resumed == blocks
    if blocks:
        (line,) = told.said
        assert "block 0" in line
        assert "computed again" in line
    assert digest(masks) == digest(once)


@pytest.mark.slow
def test_a_chunk_damaged_while_the_run_goes_on_stops_it_and_it_can_be_resumed(
    once: Path, scene: Scene, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    told = Told("pyramid level 1", lambda: flip(masks / STORE / "0/c/1/1"))
    with pytest.raises(EnvironmentFailure, match="the same command finds the damaged blocks"):
        scene.run(masks, watch=told)
    assert scene.run(masks).resumed == 3
    assert digest(masks) == digest(once)


def test_nothing_is_read_of_a_finished_output(
    masks: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise AssertionError("a chunk or an export was read")

    monkeypatch.setattr("tilepipe.products.sealed.read_seal", refuse)
    monkeypatch.setattr("tilepipe.engine.state.progress.hash_of", refuse)
    assert scene.run(masks).resumed == 4


def test_attributes_that_a_user_adds_are_no_damage_and_stay(masks: Path, scene: Scene) -> None:
    root = masks / STORE / "zarr.json"
    edit(root, lambda d: d["attributes"].update(note="for the paper"))
    assert tilepipe.verify(masks / STORE, windows=1).exact
    told = Told()
    scene.run(masks, watch=told)
    assert told.said == []
    edit(root, lambda d: d["attributes"]["tilepipe"].update(height=3))
    scene.run(masks)
    attributes = zarr.open_group(masks / STORE, mode="r").attrs
    assert attributes["note"] == "for the paper"
    assert attributes["tilepipe"]["height"] == SIDE  # type: ignore[index,call-overload]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["tiling"].update(height=700),
        lambda d: d["image"].update(level=1),
        lambda d: d.update(model_fingerprint="0" * 64),
        lambda d: [d[part].update(height=700) for part in ("tiling", "image", "mask")],
    ],
)
def test_an_edited_plan_is_refused(
    change: Callable[[dict[str, Any]], object], masks: Path, scene: Scene
) -> None:
    plan = masks / STORE / FOLDER / "plan.json"
    before = digest(masks)
    document = json.loads(plan.read_text())
    change(document)
    plan.write_text(json.dumps(document, indent=1, sort_keys=True))
    with pytest.raises(InputError, match=r"plan\.json"):
        scene.run(masks)
    with pytest.raises((CheckError, InputError), match=r"plan\.json"):
        tilepipe.verify(masks / STORE, windows=1)
    assert digest(masks) == before
    assert scene.run(masks, overwrite=True).resumed == 0


def test_a_plan_whose_parts_contradict_each_other_is_refused_without_a_hash(
    masks: Path, scene: Scene
) -> None:
    folder = masks / STORE / FOLDER
    (folder / "seals").unlink()
    edit(folder / "plan.json", lambda d: d["tiling"].update(height=700))
    with pytest.raises(InputError, match="its tiling does not have the size of its image"):
        scene.run(masks)


def test_a_plan_that_is_gone_from_a_finished_mask_is_missed(masks: Path, scene: Scene) -> None:
    before = digest(masks)
    (masks / STORE / FOLDER / "plan.json").unlink()
    with pytest.raises(InputError, match=r"plan\.json: is missing.* put the file back"):
        scene.run(masks)
    with pytest.raises(InputError, match=r"plan\.json: is missing.* put the file back"):
        tilepipe.verify(masks / STORE, windows=1)
    assert digest(masks) == before


@pytest.mark.slow
@pytest.mark.parametrize("key", ["0/c/2/2", "0/c/0/1", "0/c/7/0"])
def test_a_stray_chunk_is_no_answer(
    key: str, partly: Path, once: Path, scene: Scene, tmp_path: Path
) -> None:
    """Outside the region, in a block that has none there, and outside the image."""
    masks = Path(shutil.copytree(partly, tmp_path / "masks"))
    before, region = digest(masks), (0, 0, 1000, 500)
    stray = masks / STORE / key
    stray.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(once / STORE / "0/c/0/0", stray)
    found = tilepipe.verify(masks / STORE, windows=1)
    assert not found.exact
    assert found.damage
    told = Told()
    scene.run(masks, region=region, watch=told)
    assert told.said
    assert digest(masks) == before


def test_a_run_of_an_older_version_goes_on_and_verify_says_what_it_cannot_tell(
    masks: Path, scene: Scene
) -> None:
    before = digest(masks)
    forget_hashes(masks)
    found = tilepipe.verify(masks / STORE, windows=1, scrub=True)
    assert found.exact
    assert any("kept no hashes for 4 of the blocks" in sentence for sentence in found.covered)
    os.truncate(masks / STORE / "0/c/0/0", 20)
    assert scene.run(masks).resumed == 3
    assert digest(masks) == before


def forget_hashes(masks: Path) -> None:
    """Make the run one of a version that recorded none."""
    folder = masks / STORE / FOLDER
    (folder / "seals").unlink()
    records = list(read_ledger(folder / "ledger"))
    (folder / "ledger").unlink()
    with Ledger(folder / "ledger") as ledger:
        for record in records:
            for new in ("chunks", "hash"):
                record.pop(new, None)
            if record["kind"] != "image":
                ledger.append(record)


def unsampled(path: Path) -> int:
    """A place in a file that its fingerprint does not look at."""
    size = path.stat().st_size
    last = size - SAMPLE_BYTES
    offsets = [last * number // (SAMPLES + 1) for number in range(1, SAMPLES + 1)]
    after = next(offset for offset in offsets if offset > HEAD_BYTES) + SAMPLE_BYTES
    assert after + 16 < min(offset for offset in offsets if offset >= after)
    return after


def overwrite_unsampled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(unsampled(path))
        file.write(b"\xff\x00" * 8)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["pyramid level 1", "writing m.tif"])
def test_an_image_replaced_during_a_run_is_never_called_done(
    moment: str, scene: Scene, once: Path, tmp_path: Path
) -> None:
    copy, masks = tmp_path / "image.tif", tmp_path / "masks"
    shutil.copy(scene.image, copy)
    other = make_image(SIDE, SIDE, 1, seed=9)[..., 0]

    def replace() -> None:
        tifffile.imwrite(copy, other, tile=(128, 128), metadata=None)

    with pytest.raises(InputError, match="changed while the run read it"):
        scene.run(masks, copy, watch=Told(moment, replace))
    with pytest.raises(InputError, match="the image was"):
        scene.run(masks, copy)
    shutil.copy(scene.image, copy)
    assert scene.run(masks, copy).blocks == 4
    assert digest(masks) == digest(once)


class AtBlock(Told):
    """Does something when the first block is written."""

    def block(self, receipt: object) -> None:
        act, self.act = self.act, lambda: None
        act()


@pytest.mark.slow
def test_blocks_of_two_images_do_not_become_one_mask(
    scene: Scene, once: Path, tmp_path: Path
) -> None:
    copy, masks = tmp_path / "image.tif", tmp_path / "masks"
    shutil.copy(scene.image, copy)
    other = make_image(SIDE, SIDE, 1, seed=9)[..., 0]

    def replace() -> None:
        tifffile.imwrite(copy, other, tile=(128, 128), metadata=None)

    with pytest.raises(InputError, match=r"image\.tif"):
        scene.run(masks, copy, watch=AtBlock(act=replace))
    shutil.copy(scene.image, copy)
    scene.run(masks, copy)
    assert digest(masks) == digest(once)


@pytest.mark.slow
def test_a_change_that_the_fingerprint_does_not_see_is_found(scene: Scene, tmp_path: Path) -> None:
    copy, masks, whole = tmp_path / "image.tif", tmp_path / "masks", tmp_path / "whole"
    shutil.copy(scene.image, copy)
    before = tilepipe.open_image(copy).fingerprint()
    told = Told("pyramid level 1", lambda: overwrite_unsampled(copy))
    with pytest.raises(InputError, match="changed under 1 of 4 blocks"):
        scene.run(masks, copy, watch=told)
    assert tilepipe.open_image(copy).fingerprint() == before
    assert scene.run(masks, copy).resumed == 3
    scene.run(whole, copy)
    assert digest(masks) == digest(whole)


@pytest.mark.slow
def test_a_change_between_two_runs_that_the_fingerprint_does_not_see_is_found(
    scene: Scene, tmp_path: Path
) -> None:
    copy, masks, whole = tmp_path / "image.tif", tmp_path / "masks", tmp_path / "whole"
    shutil.copy(scene.image, copy)
    with pytest.raises(EnvironmentFailure):
        scene.run(masks, copy, watch=Told("pyramid level 1", stop))
    overwrite_unsampled(copy)
    told = Told()
    assert scene.run(masks, copy, watch=told).resumed == 3
    assert "the image has changed; blocks computed again: 1" in " ".join(told.said)
    scene.run(whole, copy)
    assert digest(masks) == digest(whole)


@pytest.mark.slow
def test_an_image_that_is_only_touched_or_moved_costs_no_block(
    scene: Scene, once: Path, tmp_path: Path
) -> None:
    copy, masks = tmp_path / "image.tif", tmp_path / "masks"
    shutil.copy(scene.image, copy)
    scene.run(masks, copy, watch=Told("pyramid level 1", lambda: os.utime(copy, (1, 1))))
    assert digest(masks) == digest(once)
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(EnvironmentFailure):
        scene.run(elsewhere, copy, watch=Told("pyramid level 1", stop))
    moved = copy.rename(tmp_path / "moved.tif")
    assert scene.run(elsewhere, moved).resumed == 4


@pytest.mark.slow
def test_the_export_of_a_mask_that_is_not_kept_is_checked_by_its_record(
    scene: Scene, tmp_path: Path
) -> None:
    output = tmp_path / "m.ome.tif"
    options = {"model": scene.model, "outputs": output, "window": scene.window}
    tilepipe.run(scene.image, **options)
    whole = output.read_bytes()
    sound = tilepipe.verify(output, windows=1, scrub=True)
    assert sound.exact
    assert any("read whole, as written" in sentence for sentence in sound.covered)
    flip(output, 0.9)
    found = tilepipe.verify(output, windows=1, scrub=True)
    assert not found.exact
    assert any("is not as it was written" in sentence for sentence in found.damage)
    with pytest.raises(InputError, match=r"is damaged, as .* found; use --overwrite"):
        tilepipe.run(scene.image, **options)
    tilepipe.run(scene.image, overwrite=True, **options)
    assert output.read_bytes() == whole


def test_an_export_beside_its_mask_is_checked_and_made_again(masks: Path, scene: Scene) -> None:
    before = digest(masks)
    flip(masks / "m.ome.tif", 0.9)
    assert not tilepipe.verify(masks / "m.ome.tif", windows=1, scrub=True).exact
    assert scene.run(masks).resumed == 4
    assert digest(masks) == before


@pytest.mark.slow
def test_a_mask_on_the_grid_of_the_image_is_checked_by_its_record(
    scene: Scene, tmp_path: Path
) -> None:
    output = tmp_path / STORE
    options = {"model": scene.model, "outputs": output, "window": scene.window}
    tilepipe.run(scene.image, like_image=True, **options)
    assert tilepipe.verify(output, windows=1, scrub=True).exact
    edit(output / "0/zarr.json", lambda d: d.update(fill_value=1))
    assert any("0/zarr.json" in s for s in tilepipe.verify(output, windows=1).damage)
    edit(output / "0/zarr.json", lambda d: d.update(fill_value=255))
    swap(output / "0/c/0/0", output / "0/c/0/1")
    assert not tilepipe.verify(output, windows=1, scrub=True).exact


@pytest.mark.parametrize(
    "name", ["0/c/0/0", "0", "0/c", "zarr.json", f"{FOLDER}/ledger", f"{FOLDER}/plan.json", FOLDER]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_in_a_mask_is_refused_and_what_it_leads_to_is_left_alone(
    name: str, overwrite: bool, masks: Path, scene: Scene, tmp_path: Path
) -> None:
    inside, outside = masks / STORE / name, tmp_path / "outside"
    shutil.move(inside, outside)
    inside.symlink_to(outside)
    before = digest(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(InputError, match="is a symbolic link"):
        scene.run(masks, overwrite=overwrite)
    with pytest.raises(InputError, match="is a symbolic link"):
        tilepipe.verify(masks / STORE, windows=1)
    assert (digest(outside) if outside.is_dir() else outside.read_bytes()) == before


@pytest.mark.slow
def test_a_mask_that_is_reached_by_a_link_is_as_any(
    masks: Path, scene: Scene, tmp_path: Path
) -> None:
    store, real = masks / STORE, tmp_path / "real.ome.zarr"
    before = digest(store)
    store.rename(real)
    store.symlink_to(real)
    assert scene.run(masks).resumed == 4
    assert scene.run(masks, overwrite=True).resumed == 0
    assert store.is_symlink()
    assert digest(real) == before


def test_the_command_says_what_its_proof_covers(
    masks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = str(masks / STORE)
    assert call(["verify", mask, "--windows", "1"]) == 0
    said = capsys.readouterr().out
    for part in (
        "exact: ",
        "metadata: ",
        "chunks (blocks: 4; pyramid levels: 2)",
        "exports: ",
        "windows: ",
    ):
        assert part in said
    assert "--scrub reads them" in said
    flip(masks / STORE / "0/c/2/2")
    assert call(["verify", mask, "--windows", "1", "--scrub"]) == 5
    assert "block 3 (0/c/2/2)" in capsys.readouterr().out


def test_verify_does_not_end_at_a_chunk_that_cannot_be_decoded(masks: Path) -> None:
    for chunk in sorted((masks / STORE / "0/c").rglob("*")):
        if chunk.is_file():
            flip(chunk)
    found = tilepipe.verify(masks / STORE, windows=3)
    assert not found.exact
    assert any("is damaged" in sentence for sentence in found.damage)
