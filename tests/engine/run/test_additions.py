"""A product and a stage of another package, in a run that is stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tilepipe
from tests.making import digest, make_image, save_tiny, whole_image_logits, write_tiff
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.engine.run.stage import OpenRun, Stage, Step, register_stage
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.models.specs import OutputSpec
from tilepipe.models.unet import UNetArguments
from tilepipe.products import product as product_module
from tilepipe.products.product import Product, product_names, register_product
from tilepipe.products.reduction import mean
from tilepipe.products.store import open_zarr_mask
from tilepipe.products.values import Values
from tilepipe.storage import size_of, write_whole
from tilepipe.storage.hashing import hash_of

SIZE = 560, 680


class Certainty(Product):
    """The gap between the two largest logits: float32, one plane."""

    name = "certainty"
    flat = True
    dtype = np.dtype("float32")
    fill = float("nan")

    def encode(self, logits: Any, output: OutputSpec) -> Any:
        best = logits.float().topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        return mean(stored)

    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        return np.full(classes, np.nansum(stored))

    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        ordered = np.sort(logits, axis=0)
        return np.asarray(np.abs(ordered[-1] - ordered[-2] - stored)[None])

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        return 2 * tie_bound * span + 1e-6 * span


class Histogram(Stage):
    """How many pixels each label has, as a file beside the mask."""

    name = "histogram"
    clock = "histogram"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        yield self.file_step(run, self._path(run))

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        path, mask = self._path(run), run.result
        counts = np.zeros(256, np.int64)
        for y in range(0, mask.shape[0], 512):
            strip = Window(y, 0, min(512, mask.shape[0] - y), mask.shape[1])
            counts += np.bincount(mask.read(strip).ravel(), minlength=256)
        found = {str(label): int(n) for label, n in enumerate(counts) if n}
        write_whole(path, json.dumps(found))
        return {"bytes": size_of(path), "hash": hash_of(path)}

    def _path(self, run: OpenRun) -> Path:
        return Path(str(run.outputs.record)).with_suffix(".histogram.json")


@pytest.fixture(autouse=True)
def added() -> None:
    register_product(Certainty)
    register_stage(Histogram)


@pytest.fixture
def request_(tmp_path: Path) -> dict[str, Any]:
    image = write_tiff(tmp_path / "image.tif", make_image(*SIZE))
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2, depth=2, outputs=3))
    return {
        "image": image,
        "model": tmp_path / "m.safetensors",
        "products": ("certainty",),
        "stages": ("histogram",),
        "window": 300,
        "runtime": "torch",
    }


class StoppedError(Exception):
    """The run was ended from outside."""


class StopAt(RunCallbacks):
    """Ends a run at its second block, or when a step begins."""

    def __init__(self, title: str | None = None) -> None:
        self._title, self._blocks = title, 0
        self.titles: list[str] = []

    def block(self, report: BlockReport) -> None:
        self._blocks += 1
        if self._title is None and self._blocks == 2:
            raise StoppedError

    def stage(self, name: str) -> None:
        self.titles.append(name)
        if self._title is not None and self._title in name:
            raise StoppedError


def run(request: dict[str, Any], folder: Path, watch: RunCallbacks | None = None) -> Any:
    return tilepipe.run(outputs=folder / "m.ome.zarr", watch=watch, **request)


@pytest.mark.slow
def test_an_added_product_is_that_of_one_pass_over_the_image(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    assert "certainty" in product_names()
    run(request_, tmp_path)
    mask = open_zarr_mask(tmp_path / "m.ome.zarr")
    layer = mask.layer("certainty")
    whole = Window(0, 0, *SIZE)
    model = tilepipe.load_model(request_["model"])
    logits = whole_image_logits(model, make_image(*SIZE))
    ordered = np.sort(logits, axis=0)
    np.testing.assert_allclose(
        layer.read(whole), ordered[-1] - ordered[-2], atol=1e-4 * np.ptp(logits)
    )
    coarse = layer.read(Window(0, 0, *layer.levels[1]), 1)
    np.testing.assert_array_equal(coarse, mean(layer.read(whole)))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, "pyramid level 1", "histogram"])
def test_a_run_with_additions_resumes_with_the_same_bytes(
    request_: dict[str, Any], tmp_path: Path, stop: str | None
) -> None:
    for name in ("straight", "resumed"):
        (tmp_path / name).mkdir()
    run(request_, tmp_path / "straight")
    with pytest.raises(StoppedError):
        run(request_, tmp_path / "resumed", StopAt(stop))
    summary = run(request_, tmp_path / "resumed")
    assert summary.resumed >= 2
    assert digest(tmp_path / "resumed") == digest(tmp_path / "straight")
    assert json.loads((tmp_path / "resumed/m.run.histogram.json").read_text()).keys() <= {
        "0", "1", "2",
    }  # fmt: skip


@pytest.mark.slow
def test_an_added_stage_is_done_once_and_again_when_it_is_stale(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    run(request_, folder)
    made = folder / "m.run.histogram.json"
    before = made.read_bytes()
    watched = StopAt("never")
    run(request_, folder, watched)
    assert watched.titles == [], "all is done"
    for chunk in (folder / "m.ome.zarr" / "0" / "c" / "0").iterdir():
        chunk.unlink()  # of level 0, so that a block is computed again
    run(request_, folder, watched)
    assert "writing m.run.histogram.json" in watched.titles
    assert made.read_bytes() == before
    made.unlink()
    run(request_, folder)
    assert made.read_bytes() == before


@pytest.mark.slow
def test_verify_judges_an_added_product(request_: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(outputs=path, **request_)
    found = tilepipe.verify(path, windows=4)
    assert found.exact
    assert found.largest_difference is not None
    layer = open_zarr_mask(path).layer("certainty")
    block = Window(0, 0, 512, 512)
    layer.write(block, layer.read(block) + np.float32(1))
    assert not tilepipe.verify(path, windows=8).exact


@pytest.mark.parametrize(
    ("what", "names"),
    [("products", ("nothing",)), ("stages", ("nothing",)), ("products", ("labels",))],
)
def test_names_that_nobody_added_are_refused(
    request_: dict[str, Any], tmp_path: Path, what: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=names[0]):
        tilepipe.run(outputs=tmp_path / "m.ome.zarr", **{**request_, what: names})
    assert not (tmp_path / "m.ome.zarr").exists()


@pytest.mark.slow
def test_probabilities_by_name_are_float16(request_: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(outputs=path, **{**request_, "products": ("probabilities",), "stages": ()})
    mask = tilepipe.open_mask(path)
    found = mask.read_probabilities(Window(0, 0, *SIZE))  # type: ignore[attr-defined]
    assert np.allclose(found.sum(0), 1, atol=2e-3)
    assert tilepipe.verify(path, windows=2, scrub=True).exact
    assert tilepipe.run(outputs=path, **{**request_, "products": ("probabilities",)}).resumed


class Raw(Values):
    """The outputs once more, with another value for no answer."""

    name = "raw"
    is_main = False
    fill = -1.0


@pytest.mark.slow
def test_products_do_not_share_memory(tmp_path: Path) -> None:
    register_product(Raw)
    pixels = make_image(700, 900)
    pixels[:, :100] = 0
    image = write_tiff(tmp_path / "i.tif", pixels)
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2, depth=2), activation="linear")
    path = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=tmp_path / "m.safetensors", outputs=path, products=("raw",), nodata=0)
    mask = open_zarr_mask(path)
    whole = Window(0, 0, 700, 900)
    values, raw = mask.read(whole), mask.layer("raw").read(whole)
    assert np.isnan(values[:, :, :100]).all()
    assert (raw[:, :, :100] == -1).all()
    np.testing.assert_array_equal(values[:, :, 100:], raw[:, :, 100:])


@pytest.mark.slow
def test_a_stage_is_not_lost_where_only_exports_are_kept(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    options = {**request_, "products": (), "outputs": tmp_path / "m.tif"}
    tilepipe.run(**{**options, "stages": ()})
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(**options)
    tilepipe.run(**options, overwrite=True)
    made = tmp_path / "m.run.histogram.json"
    assert tilepipe.run(**options).resumed
    assert tilepipe.run(**options, verify=1).resumed  # which writes the record again
    made.unlink()
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(**options)


@pytest.mark.slow
def test_a_stage_writes_over_no_file_of_the_users(request_: dict[str, Any], tmp_path: Path) -> None:
    mine = tmp_path / "m.run.histogram.json"
    mine.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        run(request_, tmp_path)
    assert mine.read_text() == "mine"
    mine.unlink()
    assert run(request_, tmp_path).resumed


@pytest.mark.slow
def test_without_the_package_of_a_product_the_mask_can_be_read(
    request_: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_, tmp_path)
    monkeypatch.delitem(product_module._registered, "certainty")
    product_module.product_named.cache_clear()
    path = tmp_path / "m.ome.zarr"
    assert tilepipe.open_mask(path).read(Window(0, 0, 512, 512)).shape == (512, 512)
    with pytest.raises(InputError, match=r"certainty.*install"):
        tilepipe.verify(path)


class Broken(Stage):
    """Cannot be made."""

    name = "broken"
    clock = "broken"

    def __init__(self) -> None:
        raise RuntimeError("no licence")

    def steps(self, run: OpenRun) -> Iterable[Step]:
        return ()

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        return {}


def test_a_stage_that_cannot_be_made_is_one_sentence(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    register_stage(Broken)
    with pytest.raises(InputError, match=r"plug-in broken.*no licence"):
        run({**request_, "stages": ("broken",)}, tmp_path)
