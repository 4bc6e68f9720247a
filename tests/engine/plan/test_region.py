"""Inside a region the answer is that of the whole image, outside there is none, and no work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import tilepipe
from tests.making import digest, make_image, make_model, save_tiny, write_tiff
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning import timing
from tilepipe.engine.planning.facts import image_facts
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.sizing import choose_tiling
from tilepipe.engine.resources import Resources
from tilepipe.engine.state.folder import FOLDER
from tilepipe.engine.work.device import Device, Request
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.models.unet import UNetArguments
from tilepipe.products.store import open_zarr_mask
from tilepipe.regions.cells import Region

HEIGHT, WIDTH = 711, 850


def blobs(height: int, width: int) -> NDArray[np.bool_]:
    """A disc, a thin line to the lower right corner, and a single pixel."""
    y, x = np.mgrid[:height, :width]
    inside = (y - 0.3 * height) ** 2 + (x - 0.35 * width) ** 2 < (0.22 * height) ** 2
    inside |= np.abs(y / height - x / width) * height < 0.6 * ((y / height) > 0.8)
    inside[7, width - 3] = True
    return inside


def cells_of(inside: NDArray[np.bool_], cell: int = 16) -> NDArray[np.bool_]:
    """Every pixel of a cell of which any pixel is inside."""
    height, width = inside.shape
    grown = np.pad(inside, ((0, -height % cell), (0, -width % cell)))
    rows, columns = (n // cell for n in grown.shape)
    any_inside = grown.reshape(rows, cell, columns, cell).any((1, 3))
    return np.kron(any_inside, np.ones((cell, cell), bool))[:height, :width]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.tif"
    return write_tiff(path, make_image(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inside") / "inside.tif"
    tifffile.imwrite(path, (blobs(HEIGHT, WIDTH) * 255).astype(np.uint8))
    return path


def read(path: Path, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[Any]:
    return tilepipe.open_mask(path).read(Window(0, 0, *shape))


KINDS = [("softmax", 3), ("sigmoid", 1), ("sigmoid", 3), ("linear", 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "outputs"), KINDS)
def test_inside_is_the_crop_of_the_whole_and_outside_has_no_answer_whatever_the_window(
    activation: str, outputs: int, small: Path, inside: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2, depth=3, outputs=outputs), activation=activation)
    stored = None if activation == "linear" else "float16"
    options: dict[str, Any] = {"model": model, "precision": "fp64", "probabilities": stored}
    tilepipe.run(small, outputs=tmp_path / "whole.ome.zarr", **options)
    whole = read(tmp_path / "whole.ome.zarr")
    cells = cells_of(blobs(HEIGHT, WIDTH))
    assert 0.1 < cells.mean() < 0.3
    passes = set()
    for window in ("auto", 252):
        path = tmp_path / f"{window}.ome.zarr"
        summary = tilepipe.run(small, outputs=path, tissue=inside, window=window, **options)
        part = read(path)
        assert part.dtype == whole.dtype
        if activation == "linear":
            assert np.isnan(part[:, ~cells]).all()
            assert np.allclose(part[:, cells], whole[:, cells], rtol=1e-6, atol=1e-6)
        else:
            assert (part[..., ~cells] == 255).all()
            assert (part[..., cells] == whole[..., cells]).all()
        assert summary.answered == cells.sum()
        assert summary.no_answer == (~cells).sum()
        assert summary.unreadable == 0
        passes.add(summary.plan.coverage.passes / summary.plan.tiling.forward_passes)
        if stored is not None:
            everything = Window(0, 0, HEIGHT, WIDTH)
            ours, theirs = (
                open_zarr_mask(p).read_probabilities(everything)
                for p in (path, tmp_path / "whole.ome.zarr")
            )
            assert np.isnan(ours[:, ~cells]).all()
            assert np.allclose(ours[:, cells], theirs[:, cells], atol=1e-3)
    assert min(passes) < 0.5


@pytest.mark.slow
def test_the_same_window_gives_the_same_bits_with_a_region_and_without(
    small: Path, inside: Path, model: Path, tmp_path: Path
) -> None:
    for name, tissue in (("whole", "none"), ("part", inside)):
        tilepipe.run(
            small, model=model, outputs=tmp_path / f"{name}.ome.zarr", tissue=tissue, window=572,
            threads=1, probabilities="float16",
        )  # fmt: skip
    cells = cells_of(blobs(HEIGHT, WIDTH))
    everything = Window(0, 0, HEIGHT, WIDTH)
    whole, part = (
        open_zarr_mask(tmp_path / f"{name}.ome.zarr").layer("probabilities").read(everything)
        for name in ("whole", "part")
    )
    assert (whole[:, cells] == part[:, cells]).all()


@pytest.mark.slow
def test_an_image_that_is_resampled_has_its_region_on_the_grid_of_the_model(
    inside: Path, tmp_path: Path
) -> None:
    image = write_tiff(tmp_path / "image.tif", make_image(HEIGHT, WIDTH), pixel_size_um=0.4)
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2, depth=2))
    parts = []
    for name, tissue in (("whole", "none"), ("part", str(inside))):
        path = tmp_path / f"{name}.ome.zarr"
        summary = tilepipe.run(image, model=model, outputs=path, tissue=tissue, precision="fp64")
        parts.append(read(path, (summary.plan.image.height, summary.plan.image.width)))
    whole, part = parts
    assert whole.shape == (1138, 1360)
    answered = part != 255
    assert (part[answered] == whole[answered]).all()
    # Each cell is 10 x 10 pixels of the image.
    assert (answered == np.kron(cells_of(blobs(HEIGHT, WIDTH), 10)[::10, ::10],
                                np.ones((16, 16), bool))[:1138, :1360]).all()  # fmt: skip
    assert summary.plan.region is not None
    assert tilepipe.verify(tmp_path / "part.ome.zarr", windows=3).exact
    like = tmp_path / "like.ome.zarr"
    tilepipe.run(image, model=model, outputs=like, tissue=str(inside), like_image=True)
    assert ((read(like) != 255) == cells_of(blobs(HEIGHT, WIDTH), 10)).all()
    assert tilepipe.verify(like, windows=3).exact


@pytest.mark.slow
def test_a_rectangle_is_computed_alone_and_within_the_tissue(
    small: Path, inside: Path, model: Path, tmp_path: Path
) -> None:
    rectangle = np.zeros((HEIGHT, WIDTH), bool)
    rectangle[100:500, 333:] = True
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(small, model=model, outputs=path, region="100,333,400,2000")
    assert ((read(path) != 255) == cells_of(rectangle)).all()
    tilepipe.run(
        small, model=model, outputs=path, region=(100, 333, 400, 2000), tissue=inside,
        overwrite=True,
    )  # fmt: skip
    both = cells_of(rectangle) & cells_of(blobs(HEIGHT, WIDTH))
    assert ((read(path) != 255) == both).all()
    with pytest.raises(InputError, match="contains no tissue"):
        tilepipe.plan(small, model=model, region=(600, 0, 50, 50), tissue=inside)
    with pytest.raises(InputError, match="is outside the image"):
        tilepipe.plan(small, model=model, region=(0, 850, 50, 50))
    for wrong in ("1,2,3", "a,b,c,d", "0,0,0,5", "-1,0,5,5", (1, 2, 3.5, 4)):
        with pytest.raises(InputError, match="region"):
            tilepipe.plan(small, model=model, region=wrong)


def passes_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The windows that go through the network from now on."""
    seen: list[tuple[int, ...]] = []
    compute = Device._compute

    def counted(self: Device, request: Request) -> Any:
        seen.append(request.pixels.shape)
        return compute(self, request)

    monkeypatch.setattr(Device, "_compute", counted)
    # Another test may have timed the same model.
    monkeypatch.setattr(timing, "_speeds", WeakKeyDictionary())
    return seen


def test_no_more_is_computed_than_the_plan_says(
    small: Path, inside: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    summary = tilepipe.run(
        small, model=model, outputs=tmp_path / "m.ome.zarr", tissue=inside, window=252
    )
    coverage = summary.plan.coverage
    assert len(seen) - 2 == coverage.passes  # two were to tell the time
    assert coverage.passes < 0.7 * summary.plan.tiling.forward_passes
    assert summary.blocks == len(coverage)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A georeferenced image of which the left two thirds are nodata."""
    import rasterio

    pixels = np.maximum(make_image(700, 1500), 1)
    pixels[:, :1000] = 0
    pixels[:80, :90] = 0
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=700, width=1500, count=3, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
    return path


@pytest.mark.slow
def test_tiles_of_nothing_but_nodata_are_not_computed(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2), pixel_size_um=None)
    seen = passes_of(monkeypatch)
    path = tmp_path / "m.ome.zarr"
    summary = tilepipe.run(scene, model=model, outputs=path, window=572, verify=6)
    # 4 x 1 tiles of 384 a block of 1536: those from column 768 and 1152 on hold data.
    assert len(seen) - 2 == 4
    assert summary.plan.coverage.passes == 8
    labels = read(path, (700, 1500))
    assert (labels[:, :1000] == 255).all()
    assert (labels[:, 1000:] != 255).all()
    assert summary.verification is not None
    assert summary.verification.exact
    assert 0 < summary.verification.pixels < 6 * 384 * 384
    again = tilepipe.run(scene, model=model, outputs=path, window=572)
    assert again.resumed == again.blocks


@pytest.mark.slow
def test_verify_finds_an_island_in_nodata(tmp_path: Path) -> None:
    import rasterio

    pixels = np.zeros((1400, 1500, 3), np.uint8)
    pixels[1330:1350, 1420:1450] = np.maximum(make_image(20, 30), 1)
    image = tmp_path / "scene.tif"
    with rasterio.open(
        image, "w", driver="GTiff", height=1400, width=1500, count=3, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))
    model = tmp_path / "m.safetensors"
    save_tiny(model, UNetArguments(width=2), pixel_size_um=None)
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=path, window=252)
    found = tilepipe.verify(path, windows=2)
    assert found.exact
    assert 0 < found.pixels <= 2 * 20 * 30


class StopAfter(RunCallbacks):
    def __init__(self, blocks: int) -> None:
        self.left = blocks

    def block(self, receipt: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_region_it_began_with(
    small: Path, inside: Path, model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": model, "window": 252, "threads": 1}
    outputs: dict[str, dict[str, str]] = {}
    mask = tmp_path / "inside.tif"
    mask.write_bytes(inside.read_bytes())
    for name in ("once", "twice"):
        folder = tmp_path / name
        folder.mkdir()
        paths = [folder / "m.ome.zarr", folder / "m.ome.tif"]
        if name == "twice":
            with pytest.raises(KeyboardInterrupt):
                tilepipe.run(small, outputs=paths, tissue=mask, watch=StopAfter(1), **options)
            for other in ("none", "auto"):
                with pytest.raises(InputError, match=rf"tissue was .*inside.tif, now {other}"):
                    tilepipe.run(small, outputs=paths, tissue=other, **options)
            with pytest.raises(InputError, match="region was the whole image, now 0,0,9,9"):
                tilepipe.run(small, outputs=paths, tissue=mask, region=(0, 0, 9, 9), **options)
        moved = mask if name == "once" else mask.rename(tmp_path / "moved.tif")
        summary = tilepipe.run(small, outputs=paths, tissue=moved, **options)
        assert summary.resumed == (1 if name == "twice" else 0)
        outputs[name] = digest(folder)
    assert outputs["once"] == outputs["twice"]
    changed = blobs(HEIGHT, WIDTH)
    changed[500:600, 20:90] = True
    tifffile.imwrite(tmp_path / "moved.tif", changed.astype(np.uint8))
    with pytest.raises(InputError, match=r"the tissue mask was .*fingerprint"):
        tilepipe.run(small, outputs=paths, tissue=tmp_path / "moved.tif", **options)


def test_a_plan_of_before_there_were_regions_is_understood(
    small: Path, model: Path, tmp_path: Path
) -> None:
    plan, _ = tilepipe.plan(small, model=model)
    document = json.loads(plan.to_json())
    assert "region" not in document
    assert Plan.from_json(json.dumps(document)) == plan
    part, _ = tilepipe.plan(small, model=model, region=(0, 0, 700, 100))
    assert Plan.from_json(part.to_json()) == part
    assert part.blocks <= plan.blocks
    damaged = json.loads(part.to_json())
    damaged["region"]["cells"] = "AAAA"
    with pytest.raises(ValueError, match="damaged"):
        Plan.from_json(json.dumps(damaged))


def test_blocks_outside_are_not_written(small: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(small, model=model, outputs=path, region=(520, 600, 40, 50), window=252)
    assert [str(p.relative_to(path / "0")) for p in (path / "0").rglob("*/*/*") if p.is_file()] == [
        "c/1/1"
    ]
    assert (path / FOLDER / "plan.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_verify_proves_what_is_inside_and_that_there_is_nothing_outside(
    suffix: str, small: Path, inside: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"m{suffix}"
    tilepipe.run(small, model=model, outputs=path, tissue=inside, window=572, probabilities=(
        "uint8" if suffix == ".ome.zarr" else None))  # fmt: skip
    found = tilepipe.verify(path, windows=5)
    assert found.exact
    assert found.windows == 5
    cells = cells_of(blobs(HEIGHT, WIDTH))
    assert 5_000 < found.pixels < 5 * cells.sum()
    if suffix == ".ome.tif":
        return
    mask, chunk = open_zarr_mask(path), Window(0, 0, 512, 512)
    labels = mask.read(chunk)
    for wrong, where in ((0, ~cells[:512, :512]), (255, cells[:512, :512])):
        spoilt = labels.copy()
        spoilt[where] = wrong
        mask.write(chunk, spoilt)
        assert tilepipe.verify(path, windows=5).differing > 0
        mask.write(chunk, labels)
    assert tilepipe.verify(path, windows=5).exact


@pytest.mark.slow
def test_a_speck_in_a_large_image_is_where_verify_looks(
    small: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.ome.zarr"
    for region in ((700, 840, 5, 5), (600, 600, 3, 3)):
        tilepipe.run(small, model=model, outputs=path, region=region, window=204, overwrite=True)
        found = tilepipe.verify(path, windows=6)
        assert found.exact
        assert found.pixels > 0


def test_the_window_is_that_of_least_work_on_the_region(small: Path) -> None:
    image, model = open_image(small), make_model(UNetArguments(width=8))
    options = RunOptions(str(small))
    crew = Resources(1, in_process=True, slots=3)
    memory = MemoryModel(image, 0, model, crew, "cpu", "fp32", extras=())
    memory._base = 200 * 10**6
    facts = image_facts(image, choose_scale(image, model, options))
    cells = np.zeros((45, 54), bool)
    cells[1:12, 1:8] = cells[34:44, 42:52] = True
    region = Region(HEIGHT, WIDTH, 16, cells)
    for limit in (400 * 10**6, 10**12):
        chosen = choose_tiling(model, facts, memory, limit, options, crew, region)
        assert memory.fits(chosen, limit)
        work = Coverage(chosen, region, framed=True).work
        whole = choose_tiling(model, facts, memory, limit, options, crew)
        assert work < 0.6 * Coverage(whole, region).work
        assert work < 0.5 * whole.work
    with pytest.raises(InputError, match="the smallest window"):
        choose_tiling(model, facts, memory, 10**8, options, crew, region)
    many = Resources(3, in_process=False, slots=3)
    shared = choose_tiling(model, facts, memory, 10**12, options, many, region)
    assert len(Coverage(shared, region, framed=True)) >= 2
    image.close()


@pytest.mark.slow
def test_what_cannot_be_read_is_no_answer_within_the_region_only(
    model: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(
        image, make_image(700, 1200), tile=(128, 128), compression="jpeg", photometric="rgb",
        resolution=(40000, 40000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    options: dict[str, Any] = {"model": model, "region": (0, 0, 700, 300), "retries": 0}
    sound = tmp_path / "sound.ome.zarr"
    tilepipe.run(image, outputs=sound, **options)
    with tifffile.TiffFile(image) as tiff:
        page = tiff.pages[0]
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in (2 * 10 + 2, 9)]
    content = bytearray(image.read_bytes())
    for offset, count in places:  # one at row 256, column 256; one that no window reaches
        content[offset : offset + count] = bytes(count)
    image.write_bytes(content)
    broken = tmp_path / "broken.ome.zarr"
    summary = tilepipe.run(image, outputs=broken, **options)
    assert summary.exit_code == 3
    before, after = (read(path, (700, 1200)) for path in (sound, broken))
    lost = (after == 255) & (before != 255)
    assert lost[256:384, 256:300].all()
    assert (after[~lost] == before[~lost]).all()
    assert summary.unreadable == lost.sum()
    assert summary.answered == (after != 255).sum()


def test_the_command_line_and_the_yaml_file_take_a_region(
    small: Path, inside: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tilepipe.cli import call

    words = ["plan", str(small), "-m", str(model), "--tissue", str(inside)]
    assert call([*words, "--region", "0,0,600,700"]) == 0
    said = capsys.readouterr().out
    assert f"inside {inside}; rectangle 0,0,600,700" in said
    assert "at most" in said
    config = tmp_path / "c.yaml"
    config.write_text(f"tissue: {inside}\nregion: [0, 0, 600, 700]\n")
    assert call(["plan", str(small), "-m", str(model), "--config", str(config)]) == 0
    assert f"inside {inside}; rectangle 0,0,600,700" in capsys.readouterr().out
    assert call([*words, "--region", "0,0,600"]) == 2
    assert "give Y,X,HEIGHT,WIDTH" in capsys.readouterr().err
    config.write_text("region: 7\n")
    assert call(["plan", str(small), "-m", str(model), "--config", str(config)]) == 2
    assert "region must have 4 entries, not 1" in capsys.readouterr().err
