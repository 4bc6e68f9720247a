"""Probabilities and entropy beside a mask: computed once, exported under their names, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import tilepipe
from tests.making import digest, make_image, save_tiny, whole_image_logits, write_tiff
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.models.unet import UNetArguments
from tilepipe.products import product as product_module
from tilepipe.products.product import register_product
from tilepipe.products.store import open_zarr_mask
from tilepipe.products.values import Values

SIZE = 600, 700


@pytest.fixture
def request_(tmp_path: Path) -> dict[str, Any]:
    return prepared(tmp_path)


def prepared(folder: Path, **model: Any) -> dict[str, Any]:
    image = write_tiff(folder / "image.tif", make_image(*SIZE))
    activation = {"activation": model.pop("activation", "softmax")}
    save_tiny(
        folder / "m.safetensors", UNetArguments(width=2, depth=2, **{"outputs": 3, **model}),
        **activation,
    )  # fmt: skip
    (folder / "out").mkdir(exist_ok=True)
    return {
        "image": image, "model": folder / "m.safetensors", "window": 572, "runtime": "torch",
    }  # fmt: skip


def entropy_of(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(shares * np.log(np.maximum(shares, 1e-300))).sum(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "outputs"), [("softmax", 3), ("sigmoid", 1), ("sigmoid", 3)]
)
def test_the_entropy_is_that_of_one_pass_over_the_image(
    tmp_path: Path, activation: str, outputs: int
) -> None:
    request = prepared(tmp_path, outputs=outputs, activation=activation)
    path = tmp_path / "m.ome.zarr"
    summary = tilepipe.run(outputs=path, uncertainty="float16", verify=2, **request)
    assert summary.verification is not None
    assert summary.verification.exact
    logits = whole_image_logits(tilepipe.load_model(request["model"]), make_image(*SIZE))
    shares = 1 / (1 + np.exp(-logits))
    if activation == "softmax":
        shares = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        expected = entropy_of(shares) / np.log(3)
    else:
        each = [entropy_of(np.stack([share, 1 - share])) for share in shares]
        expected = np.max(each, axis=0) / np.log(2)
    layer = open_zarr_mask(path).layer("entropy")
    read = layer.read(Window(0, 0, *SIZE))
    np.testing.assert_allclose(read, expected, atol=2e-3)
    assert read.max() <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_name_asks_for_a_product_and_needs_no_zarr(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    names = ("m.tif", "m.probabilities.tif", "m.entropy.tif", "m.entropy.ome.tif")
    outputs = [tmp_path / "out" / name for name in names]
    tilepipe.run(outputs=outputs, **request_)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    sides = {"m.tif.aux.xml", "m.probabilities.qml", "m.entropy.qml", "m.run.json"}
    assert made == {*names, *sides}
    with rasterio.open(outputs[1]) as file, rasterio.open(outputs[0]) as labels:
        shares = file.read().astype(float) * file.scales[0] + file.offsets[0]
        np.testing.assert_allclose(shares.sum(0), 1, atol=2 / 254)
        sure = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 2 / 254
        assert (shares.argmax(0) == labels.read(1))[sure].all()
    assert tilepipe.run(outputs=outputs, verify=1, **request_).resumed
    with pytest.raises(InputError, match="probabilities was uint8, now float16"):
        tilepipe.run(outputs=outputs, probabilities="float16", **request_)
    tilepipe.run(outputs=tmp_path / "out/m.tif", overwrite=True, **request_)
    assert (tmp_path / "out/m.entropy.qml").exists(), "another output's"


@pytest.mark.slow
def test_overwriting_removes_the_styles(request_: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    tilepipe.run(outputs=out / "m.entropy.tif", **request_)
    assert (out / "m.entropy.qml").exists()

    class Stop(RunCallbacks):
        def block(self, report: BlockReport) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tilepipe.run(outputs=out / "m.entropy.tif", overwrite=True, watch=Stop(), **request_)
    assert not (out / "m.entropy.qml").exists()


@pytest.mark.slow
def test_a_mask_begun_with_older_bytes_is_resumed_with_them(
    request_: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(RunCallbacks):
        def block(self, report: BlockReport) -> None:
            raise KeyboardInterrupt

    options = {**request_, "probabilities": "uint8"}
    trees = []
    for name, watch in (("whole", None), ("resumed", Stop())):
        path = tmp_path / name / "m.ome.zarr"
        path.parent.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(RunOptions, "stored_probabilities", property(lambda _: "uint8"))
            try:
                tilepipe.run(outputs=path, watch=watch, **options)
            except KeyboardInterrupt:
                assert watch is not None
        assert tilepipe.run(outputs=path, **options).resumed >= 1
        mask = open_zarr_mask(path)
        assert mask.extras == ("probabilities:uint8",)
        np.testing.assert_allclose(
            mask.read_probabilities(Window(0, 0, *SIZE)).sum(0), 1, atol=2 / 254
        )
        assert tilepipe.verify(path, windows=2, scrub=True).exact
        trees.append(digest(path.parent))
    assert trees[0] == trees[1]


@pytest.mark.slow
def test_channels_are_frozen_with_the_run(request_: dict[str, Any], tmp_path: Path) -> None:
    outputs = [tmp_path / "out/m.ome.zarr", tmp_path / "out/m.ome.tif"]
    tilepipe.run(outputs=outputs, channels=True, **request_)
    with pytest.raises(InputError, match="channels was on, now off"):
        tilepipe.run(outputs=outputs, **request_)
    assert tilepipe.run(outputs=outputs, channels=True, **request_).resumed
    assert tilepipe.verify(outputs[0], windows=1).exact


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["m.tif"], {"channels": True}, "add -o MASK.ome.tif"),
        (["m.entropy.ome.tif"], {"channels": True}, "add -o MASK.ome.tif"),
        (["m.tif"], {"uncertainty": "uint8"}, "add -o MASK.ome.zarr, or -o MASK.entropy.tif"),
        (["m.entropy.ome.zarr"], {}, "holds entropy inside the mask; name the mask, m.ome.zarr"),
        (["m.probabilities.png"], {}, "no pictures of probabilities"),
        (["m.ome.zarr"], {"uncertainty": "uint8", "products": ["entropy"]}, "named twice"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    request_: dict[str, Any], tmp_path: Path, names: list[str], options: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        tilepipe.run(outputs=[tmp_path / "out" / name for name in names], **options, **request_)
    assert not list((tmp_path / "out").iterdir())


def test_a_product_that_an_option_asks_for_keeps_its_form() -> None:
    asked = RunOptions("i.tif", outputs=("a.probabilities.tif",), probabilities="float16")
    assert asked.extras == ("probabilities:float16",)
    named = RunOptions("i.tif", outputs=("a.probabilities.tif", "a.entropy.ome.tif"))
    assert named.extras == ("probabilities:uint8-from-1", "entropy:uint8")
    added = RunOptions("i.tif", outputs=("a.entropy.tif",), products=("entropy:float16",))
    assert added.extras == ("entropy:float16",)


def test_a_product_that_tiff_does_not_hold_is_refused_before_the_run(
    request_: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distances(Values):
        name = "distances"
        is_main = False
        dtype = np.dtype("float64")

        def unavailable(self, output: Any) -> str | None:
            return None

    register_product(Distances)
    try:
        with pytest.raises(InputError, match="distances: cannot be written as TIFF"):
            tilepipe.run(outputs=tmp_path / "out/m.distances.tif", **request_)
    finally:
        monkeypatch.delitem(product_module._registered, "distances")
        product_module.product_named.cache_clear()
