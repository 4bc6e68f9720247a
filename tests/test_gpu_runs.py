"""Whole runs on a real GPU; without one, they are skipped, and say so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import tilepipe
from tests.making import digest, make_image, make_model, save_tiny, write_tiff
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.models.file import load_model, save_model
from tilepipe.models.runtimes.fused import Fused
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for the convolutions that GPUs have for real networks."""
    path = tmp_path_factory.mktemp("network") / "wide.safetensors"
    save_tiny(
        path, UNetArguments(width=16, depth=4, normalisation="batch", outputs=3), pixel_size_um=None
    )
    return path


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of several windows of any size, none of them a multiple of what it has."""
    return write_tiff(tmp_path_factory.mktemp("slide") / "slide.tif", make_image(2345, 1800))


def labels(store: Path) -> Any:
    return zarr.open_array(str(store / "0"), mode="r")[...]


def segmented(image: Path, network: Path, store: Path, **options: Any) -> Any:
    tilepipe.run(image, model=network, outputs=store, device="cuda", **options)
    return labels(store)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("window", ["auto", 572])
def test_a_run_is_verified_and_gives_the_same_bytes_again(
    precision: str, window: Any, network: Path, slide: Path, tmp_path: Path
) -> None:
    stores = [tmp_path / folder / "mask.ome.zarr" for folder in ("one", "two")]
    for store in stores:
        store.parent.mkdir()
        segmented(slide, network, store, precision=precision, window=window)
    first, again = (digest(store) for store in stores)
    assert first == again
    report = tilepipe.verify(stores[0], windows=8)
    assert report.exact, report


def test_labels_are_those_of_a_cpu_but_for_ties(network: Path, slide: Path, tmp_path: Path) -> None:
    found = segmented(slide, network, tmp_path / "gpu.ome.zarr", precision="fp32")
    cpu = tmp_path / "cpu.ome.zarr"
    tilepipe.run(slide, model=network, outputs=cpu, device="cpu", precision="fp32", runtime="torch")
    assert (found != labels(cpu)).mean() < 1e-4
    half = segmented(slide, network, tmp_path / "half.ome.zarr", precision="fp16")
    assert 0 < (half != labels(cpu)).mean() < 2e-2, "half precision decides some ties otherwise"


def test_what_has_no_data_gets_no_answer(network: Path, tmp_path: Path) -> None:
    pixels = make_image(1500, 1500)
    pixels[300:700, 200:1400] = 0
    path = tmp_path / "holes.tif"
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(
        path, "w", driver="GTiff", width=1500, height=1500, count=3, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6), tiled=True,
    ) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    found = segmented(path, network, tmp_path / "holes.ome.zarr")
    nowhere = np.zeros((1500, 1500), np.bool_)
    nowhere[300:700, 200:1400] = True
    assert ((found == 255) == nowhere).all()


def test_a_gpu_that_is_nearly_full_gets_smaller_windows(
    network: Path, slide: Path, tmp_path: Path
) -> None:
    whole = segmented(slide, network, tmp_path / "free.ome.zarr", precision="fp32")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    filler = torch.empty(free - (1000 << 20), dtype=torch.uint8, device="cuda")
    try:
        store = tmp_path / "full.ome.zarr"
        found = segmented(slide, network, store, precision="fp32")
        with pytest.raises(InputError, match="GPU"):
            segmented(slide, network, tmp_path / "no.ome.zarr", precision="fp32", window=2044)
    finally:
        del filler
        torch.cuda.empty_cache()
    assert (found != whole).mean() < 1e-4


def test_probabilities_come_with_the_labels(network: Path, slide: Path, tmp_path: Path) -> None:
    store = tmp_path / "both.ome.zarr"
    found = segmented(slide, network, store, probabilities="uint8")
    assert tilepipe.verify(store, windows=4).exact
    assert found.shape == (2345, 1800)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_window_gives_the_same_bits_wherever_and_whenever(precision: str, network: Path) -> None:
    model = load_model(network)
    side = model.geometry.input_for(384)
    pixels = make_image(side, side)
    found = []
    for setting in ("0", "1", "0"):
        os.environ["TILEPIPE_CUDA_GRAPHS"] = setting
        device = Device(model, "cuda", precision, threads=1)
        found += [device.answer(pixels, None, (384, 384)).result().mask for _ in range(3)]
        found.append(device.logits(pixels, None, (384, 384)).argmax(0).astype(np.uint8))
        device.close()
    del os.environ["TILEPIPE_CUDA_GRAPHS"]
    assert all(np.array_equal(mask, found[0]) for mask in found)


def test_an_overflow_is_noticed_behind_fused_layers(slide: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    model = make_model(UNetArguments(width=16, depth=2), pixel_size_um=None)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(12)
    save_model(path, model)
    for precision in ("fp32", "bf16"):
        segmented(slide, path, tmp_path / f"{precision}.ome.zarr", precision=precision)
    with pytest.raises(NonFiniteError, match="not finite in fp16"):
        segmented(slide, path, tmp_path / "fp16.ome.zarr", precision="fp16")


def test_float32_takes_little_more_memory_than_its_activations() -> None:
    """cuDNN would take 69 GiB for this window, and twice the time."""
    device = Device(make_model(UNetArguments(width=64)), "cuda", "fp32", threads=1)
    side = device.geometry.input_for(1024)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    device.answer(make_image(side, side), None, (1024, 1024)).result()
    most = torch.cuda.max_memory_reserved()
    device.close()
    assert most < 10 << 30


def test_fused_convolutions_are_used_and_keep_nan() -> None:
    device = Device(make_model(UNetArguments(width=64)), "cuda", "fp16", threads=1)
    device.answer(make_image(572, 572), None, (384, 384)).result()
    runtime = device.backend.ready.runtime
    assert isinstance(runtime, Fused)
    assert runtime.apart == 0, "on GPUs where this fails, some layers are slower, and as safe"
    device.close()
