"""Bad input: one clear line, the right exit code, nothing left that a later run would trust."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file, save_file

from tests.making import WINDOW, digest, make_image, make_model, save_tiny, write_tiff
from tests.zygote import Zygote
from tilepipe.cli import call
from tilepipe.models.file import save_model
from tilepipe.models.unet import UNetArguments

Refused = Callable[..., str]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "image.tif", make_image(300, 280))


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refused:
    """Run the command line; assert its exit code, one line of error, and no output left."""
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.chdir(results)

    def check(*words: Any, code: int = 2, leaves: bool = False) -> str:
        assert call([str(word) for word in words]) == code
        said = capsys.readouterr().err.strip().splitlines()
        last = said[-1]
        assert last.startswith("tilepipe: ")
        assert "Traceback" not in "\n".join(said)
        if not leaves:
            assert not [path for path in results.iterdir() if path.name != ".tilepipe"]
        return last

    return check


def test_a_missing_file(refused: Refused, model: Path) -> None:
    assert "slide.svs" in refused("run", "/nowhere/slide.svs", "-m", model)


def test_no_image_at_all(refused: Refused) -> None:
    assert "which image?" in refused("run")


def test_what_is_no_image(refused: Refused, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("not an image " * 100)
    assert "notes.tif" in refused("run", path, "-m", model)


def test_an_empty_file(refused: Refused, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "empty.svs"
    path.touch()
    assert "empty.svs" in refused("run", path, "-m", model)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.02, 0.5])
def test_a_truncated_tiff(keep: float, refused: Refused, model: Path, tmp_path: Path) -> None:
    # The directory comes first: cut early, nothing can be read; cut late, the blocks with the
    # last tiles are named.
    image = write_tiff(tmp_path / "image.tif", make_image(1100, 600))
    content = image.read_bytes()
    image.write_bytes(content[: int(len(content) * keep)])
    code = 2 if keep < 0.1 else 3
    said = refused("run", image, "-m", model, "-q", code=code, leaves=code == 3)
    assert "image.tif" in said


def test_other_bands(refused: Refused, model: Path, tmp_path: Path) -> None:
    grey = write_tiff(tmp_path / "grey.tif", make_image(300, 300, bands=1)[..., 0])
    assert "has 1 band (1), but model tiny takes 3" in refused("run", grey, "-m", model)


def test_another_dtype(refused: Refused, model: Path, tmp_path: Path) -> None:
    deep = write_tiff(tmp_path / "deep.tif", make_image(300, 300).astype(np.uint16))
    assert "uint16, but model tiny takes uint8" in refused("run", deep, "-m", model)


def test_no_pixel_size_and_its_way_out(refused: Refused, model: Path, tmp_path: Path) -> None:
    bare = write_tiff(tmp_path / "bare.tif", make_image(300, 300), pixel_size_um=None)
    assert "--pixel-size" in refused("run", bare, "-m", model)
    assert call(["run", str(bare), "-m", str(model), "--pixel-size", "0.25", "-q"]) == 0


def ome_tiff(path: Path, y: float, x: float, tag_um: float | None = None) -> Path:
    """An OME-TIFF that states its pixel size, and perhaps another in its resolution tags."""
    tags: dict[str, Any] = {}
    if tag_um is not None:
        tags = {"resolution": (1e4 / tag_um,) * 2, "resolutionunit": "CENTIMETER"}
    metadata = {"axes": "YXS", "PhysicalSizeY": y, "PhysicalSizeX": x}
    tifffile.imwrite(
        path, make_image(300, 300), photometric="rgb", tile=(128, 128), metadata=metadata, **tags
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0, 0), "its OME-XML says 0 um/px"),
        ((-0.25, -0.25), "its OME-XML says -0.25 um/px"),
        ((0.25, 0.5), "not square, 0.5 x 0.25 um/px (width x height)"),
        ((0.25, 0.25, 0.5), "its OME-XML says 0.25 um/px and its resolution tag says 0.5 um/px"),
    ],
)
def test_pixel_sizes_that_cannot_be_relied_on_and_their_ways_out(
    sizes: tuple[float, ...], said: str, refused: Refused, model: Path, tmp_path: Path
) -> None:
    image = ome_tiff(tmp_path / "i.ome.tif", *sizes)
    line = refused("run", image, "-m", model)
    assert said in line
    assert "give --pixel-size, or choose a --level" in line
    assert call(["run", str(image), "-m", str(model), "--pixel-size", "250nm", "-q"]) == 0
    assert call(["run", str(image), "-m", str(model), "--level", "0", "-q", "-o", "l.ome.tif"]) == 0
    indifferent = tmp_path / "m.safetensors"
    save_tiny(indifferent, UNetArguments(width=2), pixel_size_um=None)
    assert call(["run", str(image), "-m", str(indifferent), "-q", "-o", "n.ome.tif"]) == 0


def test_the_resolution_of_a_screen_is_no_pixel_size(model: Path, tmp_path: Path) -> None:
    image = ome_tiff(tmp_path / "i.ome.tif", 0.25, 0.25, 25400 / 72)
    output = str(tmp_path / "m.ome.tif")
    assert call(["run", str(image), "-m", str(model), "-q", "-o", output]) == 0


def test_a_pixel_size_that_is_none(refused: Refused, model: Path, image: Path) -> None:
    assert "not a pixel size" in refused("run", image, "-m", model, "--pixel-size", "fine")
    assert "above 0" in refused("run", image, "-m", model, "--pixel-size", "0")


def test_a_mask_in_a_missing_folder(refused: Refused, model: Path, image: Path) -> None:
    said = refused("run", image, "-m", model, "-o", "missing/mask.ome.zarr")
    assert "there is no folder" in said


def test_a_mask_of_no_known_format(refused: Refused, model: Path, image: Path) -> None:
    assert "mask.jpg" in refused("run", image, "-m", model, "-o", "mask.jpg")


def test_a_mask_over_the_image(refused: Refused, model: Path, image: Path) -> None:
    said = refused("run", image, "-m", model, "-o", image, "--overwrite")
    assert "is the image, or contains it" in said
    assert image.stat().st_size > 0


def test_a_folder_that_may_not_be_written(
    refused: Refused, model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the system's answer is imitated.
    monkeypatch.setattr("tilepipe.storage.ops.os.access", lambda *_: False)
    said = refused("run", image, "-m", model, "-o", tmp_path / "mask.ome.zarr")
    assert "you may not write" in said


def test_a_pickle_as_model(refused: Refused, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    assert "pickle" in refused("run", image, "-m", path)
    path.write_bytes(pickle.dumps({"weight": 1}))
    assert "pickle" in refused("run", image, "-m", path)


def edited(
    model: Path, target: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None]
) -> Path:
    """A copy of a model file with its document and tensors edited."""
    content = model.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["tilepipe"])
    tensors = load_file(model)
    edit(document, tensors)
    save_file(tensors, target, metadata={"tilepipe": json.dumps(document)})
    return target


def test_a_model_with_missing_keys(
    refused: Refused, model: Path, image: Path, tmp_path: Path
) -> None:
    path = edited(model, tmp_path / "m.safetensors", lambda document, _: document.pop("tile"))
    assert "tile" in refused("run", image, "-m", path)


def test_a_model_with_tensors_of_wrong_shape(
    refused: Refused, model: Path, image: Path, tmp_path: Path
) -> None:
    def edit(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["head.weight"] = torch.zeros(5, 5, 1, 1)

    path = edited(model, tmp_path / "m.safetensors", edit)
    assert "head.weight" in refused("run", image, "-m", path)


def test_a_model_with_nans(refused: Refused, model: Path, image: Path, tmp_path: Path) -> None:
    def edit(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["head.weight"][0] = float("nan")

    path = edited(model, tmp_path / "m.safetensors", edit)
    assert "head.weight" in refused("run", image, "-m", path)


def test_an_unknown_model(refused: Refused, image: Path) -> None:
    assert "no model is called 'hearts'" in refused("run", image, "-m", "hearts")


def test_an_image_that_is_all_nodata(refused: Refused, tmp_path: Path) -> None:
    import rasterio

    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=300, count=3, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as scene:  # fmt: skip
        scene.write(np.zeros((3, 300, 300), np.uint8))
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2), pixel_size_um=None)
    said = refused("run", path, "-m", tmp_path / "m.safetensors")
    assert "every pixel is nodata (0)" in said


def test_logits_that_overflow_in_half_precision(
    refused: Refused, image: Path, tmp_path: Path
) -> None:
    model = make_model(UNetArguments(width=2))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(30)
    save_model(tmp_path / "loud.safetensors", model)
    said = refused("run", image, "-m", tmp_path / "loud.safetensors", "--precision", "fp16")
    assert "half precision overflows here: use --precision bf16 or fp32" in said


@pytest.mark.parametrize("side", ["40", "571", "573", "-572"])
def test_a_window_that_is_none(side: str, refused: Refused, model: Path, image: Path) -> None:
    said = refused("run", image, "-m", model, "--window", side)
    assert f"window {side}: model" in said


def test_a_window_that_is_no_number(refused: Refused, model: Path, image: Path) -> None:
    assert "window must be a whole number or auto, not 'large'" in refused(
        "run", image, "-m", model, "--window", "large"
    )


def test_too_little_memory(refused: Refused, model: Path, image: Path) -> None:
    said = refused("run", image, "-m", model, "--memory", "50MB")
    assert "needs" in said
    assert "--memory is 0.05 GB" in said


def test_an_amount_of_memory_that_is_none(refused: Refused, model: Path, image: Path) -> None:
    assert "not a memory size" in refused("run", image, "-m", model, "--memory", "plenty")


def test_a_level_that_is_not_there(refused: Refused, model: Path, image: Path) -> None:
    assert "has no level 3" in refused("run", image, "-m", model, "--level", "3")


def test_cuda_where_there_is_none(refused: Refused, model: Path, image: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert "sees no CUDA device" in refused("run", image, "-m", model, "--device", "cuda")


def test_an_option_that_is_none(refused: Refused, image: Path) -> None:
    assert "No such option" in refused("run", image, "--windows", "572")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("windw: 572", "windw"),
        ("window: large", "window"),
        ("precision: fp8", "precision"),
        ("verify: true", "verify"),
        ("memory: [2]", "memory"),
        ("- image", "must hold options"),
        ("a: b: c", "is not valid YAML"),
        ("window: 2024-13-45", "is not valid YAML"),
        (f"window: {'9' * 5000}", "is not valid YAML"),
        (f"window: {'[' * 5000}", "is not valid YAML"),
    ],
)
def test_a_configuration_names_the_key_at_fault(
    text: str, named: str, refused: Refused, image: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text)
    said = refused("run", image, "--config", config)
    assert named in said
    assert "run.yaml" in said


def test_a_configuration_is_used_and_flags_win(
    model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {model}\nwindow: 572\nprecision: bf16\nmemory: 4GB\n"
        f"output: {tmp_path / 'm.ome.zarr'}\n"
    )
    assert call(["run", str(image), "--config", str(config), "--precision", "fp32", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["plan"]["precision"] == "fp32"
    assert record["plan"]["tiling"]["keep"] == [532, 532]
    assert record["options"]["memory"] == 4_000_000_000


def test_verify_of_what_is_no_mask(refused: Refused, image: Path) -> None:
    assert "nothing.ome.zarr: does not exist" in refused("verify", "nothing.ome.zarr")
    assert "is not beside it" in refused("verify", image)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk_stops_with_4_and_is_resumed(
    model: Path, tmp_path: Path, zygote: Zygote
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(size, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        image = write_tiff(tmp_path / "image.tif", make_image(600, 700))
        command = [
            "run", str(image), "-m", str(model), "-o", str(disk / "m.ome.zarr"),
            "--window", str(WINDOW), "--probabilities", "float16", "--runtime", "torch",
        ]  # fmt: skip
        stopped = zygote.start(command, tmp_path / "stopped.log")
        assert stopped.wait() == 4
        assert "No space left" in stopped.said
        assert "to resume: tilepipe run" in stopped.said
        assert "Traceback" not in stopped.said
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert zygote.start(command, tmp_path / "resumed.log").wait() == 0
        command[command.index(str(disk / "m.ome.zarr"))] = str(tmp_path / "m.ome.zarr")
        assert zygote.start(command, tmp_path / "whole.log").wait() == 0
        assert digest(disk / "m.ome.zarr") == digest(tmp_path / "m.ome.zarr")
    finally:
        subprocess.run(["umount", str(disk)], check=False)


@pytest.mark.slow
def test_tiles_that_cannot_be_read_stay_255_and_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tilepipe
    from tilepipe.grid import Window

    pixels = make_image(1200, 1200)
    image = tmp_path / "image.tif"
    tifffile.imwrite(
        image, pixels, tile=(128, 128), compression="jpeg", photometric="rgb",
        resolution=(40000, 40000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    sound = tmp_path / "sound.ome.zarr"
    assert call(["run", str(image), "-m", str(model), "-o", str(sound), "-q"]) == 0
    with tifffile.TiffFile(image) as tiff:
        page = tiff.pages[0]
        spoiled = 4 * 10 + 5  # the tile at rows 512, columns 640
        offset, count = page.dataoffsets[spoiled], page.databytecounts[spoiled]
    content = bytearray(image.read_bytes())
    content[offset : offset + count] = bytes(count)
    image.write_bytes(content)
    broken = tmp_path / "broken.ome.zarr"
    assert call(["run", str(image), "-m", str(model), "-o", str(broken), "--json"]) == 3
    out = capsys.readouterr()
    record = json.loads(out.out[out.out.index("{") :])
    assert record["blocks"]["incomplete"]
    assert "block 0 has no answer in part" in out.err
    whole = Window(0, 0, 1200, 1200)
    before, after = tilepipe.open_mask(sound).read(whole), tilepipe.open_mask(broken).read(whole)
    lost = after == 255
    assert lost[512:640, 640:768].all(), "what cannot be read has no answer"
    assert (after[~lost] == before[~lost]).all(), "what can be read has the answer it had"
    rows, columns = np.nonzero(lost)
    reach = 92 + 16 + 64
    assert rows.min() >= 512 - reach
    assert rows.max() < 640 + reach
    assert columns.min() >= 640 - reach
    assert columns.max() < 768 + reach
    assert tilepipe.verify(broken, windows=4).differing == 0


def test_a_model_for_something_else_is_refused_and_its_way_out(
    refused: Refused, model: Path, tmp_path: Path
) -> None:
    coarse = write_tiff(tmp_path / "coarse.tif", make_image(300, 300), pixel_size_um=10)
    assert "40 times as coarse as the 0.25 um/px" in refused("run", coarse, "-m", model)
    assert "400 times as coarse" in refused("run", coarse, "-m", model, "--pixel-size", "0.1mm")
    assert call(["run", str(coarse), "-m", str(model), "--level", "0", "-q"]) == 0


def test_probabilities_without_a_place_for_them(refused: Refused, model: Path, image: Path) -> None:
    said = refused("run", image, "-m", model, "-o", "m.ome.tif", "--probabilities", "uint8")
    assert "add -o MASK.ome.zarr" in said


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ("0,0,1e20", "'1e20' is not a whole number of pixels; give Y,X,HEIGHT,WIDTH"),
        ("0,0,100", "has 3 numbers, not four"),
        ("0,0,,5", "'nothing' is not a whole number"),
        (f"0,0,5,{10**20}", "no image has more than 2147483647 rows or columns"),
    ],
)
def test_a_region_that_is_none_says_what_is_wrong(
    region: str, said: str, refused: Refused, model: Path, image: Path
) -> None:
    assert said in refused("run", image, "-m", model, "--region", region)


def test_an_output_that_is_empty_is_not_the_root_folder(
    refused: Refused, model: Path, image: Path
) -> None:
    assert "outputs is empty" in refused("run", image, "-m", model, "-o", "")


def test_a_folder_as_model(refused: Refused, image: Path) -> None:
    assert ".: is a folder, not a model file" in refused("run", image, "-m", ".")


def test_a_class_name_without_end(
    refused: Refused, model: Path, image: Path, tmp_path: Path
) -> None:
    def edit(document: dict[str, Any], _: dict[str, Any]) -> None:
        document["output"]["classes"][1]["name"] = "n" * 10**6

    path = edited(model, tmp_path / "m.safetensors", edit)
    said = refused("run", image, "-m", path)
    assert "output.classes[1].name must be a name of at most 200 characters" in said
    assert len(said) < 300


def test_no_memory_at_all(refused: Refused, model: Path, image: Path) -> None:
    assert "memory must be at least 1" in refused("run", image, "-m", model, "--memory", "0")


def test_a_default_name_that_is_too_long(refused: Refused, model: Path, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / f"{'x' * 246}.tif", make_image(300, 280))
    assert "choose a shorter one (-o)" in refused("run", image, "-m", model)
    assert call(["run", str(image), "-m", str(model), "-q", "-o", "short.ome.zarr"]) == 0


def test_a_place_where_nothing_can_be_made(refused: Refused, model: Path, image: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    for output in ("/proc/x.tif", "/proc/self/fd/m.ome.zarr"):
        said = refused("run", image, "-m", model, "-o", output)
        assert "cannot be made there" in said or "you may not write" in said
