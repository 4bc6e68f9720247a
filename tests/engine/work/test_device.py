"""The device: precision, devices of workers, and what it makes of logits."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from tests.making import make_image, make_model
from tilepipe.engine.planning.runtime_selection import choose_precision
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.environment import (
    GPU_PASSES,
    choose_device,
    environment,
    gpu_of_worker,
    relevant_to,
)
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.models.precision import Precision
from tilepipe.models.unet import UNetArguments
from tilepipe.products.product import product_named


def test_a_gpu_takes_half_precision_and_a_cpu_single_unless_told() -> None:
    model = make_model(UNetArguments(width=2, depth=1))
    assert choose_precision("auto", "cuda", model) == "fp16"
    assert choose_precision("auto", "cpu", model) == "fp32"
    assert choose_precision("fp32", "cuda", model) == "fp32"


def test_workers_share_the_gpus_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [gpu_of_worker("cuda", n) for n in range(5)] == [
        "cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1",
    ]  # fmt: skip
    assert gpu_of_worker("cuda", "tcp://elsewhere:1") == "cuda:0", "a worker that sees its own GPU"
    assert gpu_of_worker("cuda", 2, bound=True) == "cuda:0", "dask-cuda shows each its own first"
    assert gpu_of_worker("cpu", 2) == "cpu"


def test_cuda_is_taken_where_it_is_and_refused_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(InputError, match="sees no CUDA device"):
        choose_device("cuda")


def test_the_gpu_of_a_mac_is_used_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="no GPU of a Mac"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == "cpu"
    assert choose_device("mps") == "mps"
    assert gpu_of_worker("mps", 3) == "mps"
    assert environment("mps", 2) == environment("cpu", 2) | {
        "device": "mps", "instruction_set": "", "half": "", "int8": "",
    }  # fmt: skip


def test_the_gpu_of_a_mac_computes_fp32_and_has_no_fp64() -> None:
    model = make_model(UNetArguments(width=2, depth=1))
    assert choose_precision("auto", "mps", model) == "fp32"
    assert choose_precision("fp16", "mps", model) == "fp16"
    with pytest.raises(InputError, match=r"precision fp64: .* only, on device mps"):
        choose_precision("fp64", "mps", model)
    model.predictor.check("torch", "mps", Precision.FP32)
    with pytest.raises(InputError, match="computes on CPUs only"):
        model.predictor.check("openvino", "mps", Precision.FP32)
    with pytest.raises(InputError, match="has none"):  # `verify --device mps` of an fp64 mask
        Device(model, "mps", "fp64", threads=1)


def test_results_of_a_gpu_depend_on_how_tilepipe_lets_it_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H100")
    found = environment("cuda:0", 4)
    assert found == environment("cuda:1", 4)
    assert found["passes"] == GPU_PASSES, "so that a run begun by an older version says so"
    assert "passes" not in environment("cpu", 4)
    assert "passes" in relevant_to(found, "fp16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("fp16", 2e-2), ("bf16", 1e-1)])
def test_a_gpu_gives_the_logits_of_a_cpu(precision: str, bound: float) -> None:
    pixels = make_image(572, 572)
    logits = []
    for device, kind in (("cpu", "fp32"), ("cuda", precision)):
        runner = Device(make_model(UNetArguments(width=4)), device, kind, threads=1)
        logits.append(runner.logits(pixels, None, (384, 384)))
        runner.close()
    assert np.abs(logits[0] - logits[1]).max() <= bound * np.ptp(logits[0])


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 5e-2), ("fp16", 5e-3)])
def test_half_precision_runs_on_a_cpu_and_is_near(precision: str, bound: float) -> None:
    pixels = make_image(572, 572)
    exact = Device(make_model(UNetArguments(width=4)), "cpu", "fp64", threads=1)
    near = Device(make_model(UNetArguments(width=4)), "cpu", precision, threads=1)
    truth = exact.logits(pixels, None, (384, 384))
    found = near.logits(pixels, None, (384, 384))
    assert 0 < np.abs(truth - found).max() <= bound * np.ptp(truth)
    exact.close()
    near.close()


def test_passes_run_one_at_a_time_on_one_thread() -> None:
    runner = Device(make_model(UNetArguments(width=2)), "cpu", "fp32", threads=1)
    seen: list[Any] = []
    forward = runner.backend.ready.runtime

    def spy(x: torch.Tensor) -> Any:
        seen.append(threading.current_thread().name)
        return forward(x)

    spy.dtype = forward.dtype  # type: ignore[attr-defined]
    runner.backend.ready.runtime = spy  # type: ignore[assignment]
    pixels = make_image(572, 572)
    answers = [runner.answer(pixels, None, (384, 384)) for _ in range(3)]
    assert all((a.result().mask == answers[0].result().mask).all() for a in answers)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert "tilepipe-device" in seen[0]
    runner.close()


def test_logits_that_are_not_finite_are_never_labels() -> None:
    model = make_model(UNetArguments(width=2))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(30)
    runner = Device(model, "cpu", "fp16", threads=1)
    with pytest.raises(NonFiniteError, match="bf16"):
        runner.answer(make_image(572, 572), None, (384, 384)).result()
    runner.close()


def test_a_nan_among_the_pixels_does_not_reach_valid_ones() -> None:
    model = make_model(UNetArguments(width=2), dtype="float32")
    pixels = make_image(572, 572).astype(np.float32)
    clean = pixels.copy()
    valid = np.ones((572, 572), np.bool_)
    valid[300:310, 300:310] = False
    clean[~valid] = 127.0
    pixels[~valid] = np.nan
    runner = Device(model, "cpu", "fp64", threads=1)
    products = product_named("labels"), product_named("probabilities:float32")
    answer = runner.answer(pixels, valid[..., None], (384, 384), products).result()
    expected = runner.answer(clean, None, (384, 384)).result()
    hole = np.s_[300 - 92 : 310 - 92, 300 - 92 : 310 - 92]
    assert (answer.arrays[0][hole] == 255).all()
    assert np.isnan(answer.arrays[1][:, 208:218, 208:218]).all()
    assert (answer.arrays[0] == expected.mask).sum() == answer.arrays[0].size - 100
    runner.close()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_device_leaves_a_models_weights_alone_and_does_not_keep_them(precision: str) -> None:
    model = make_model(UNetArguments(width=2, depth=1))
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    runner = Device(model, "cpu", precision, threads=1)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    network = weakref.ref(model.network)
    del model, after
    gc.collect()
    assert network() is None
    runner.close()


def test_ties_go_to_the_lower_label() -> None:
    model = make_model(UNetArguments(width=1, depth=1, outputs=4))
    logits = torch.tensor([[1.0, 1, 0, 0], [0, 2, 2, 1], [3, 3, 3, 3], [0, 0, 0, 5]]).T
    labels = product_named("labels").encode(logits[None, :, :, None], model.output)
    assert labels.flatten().tolist() == [0, 1, 0, 3]
    assert labels.dtype == torch.uint8


def test_a_sigmoid_is_cut_at_its_threshold() -> None:
    from dataclasses import replace

    model = make_model(UNetArguments(width=1, depth=1, outputs=1), activation="sigmoid")
    model = replace(model, output=replace(model.output, thresholds=(0.8,)))
    shares = torch.tensor([0.1, 0.5, 0.79, 0.81, 0.99])
    logits = torch.log(shares / (1 - shares))
    assert product_named("labels").encode(
        logits.reshape(1, 1, 1, 5), model.output
    ).flatten().tolist() == [0, 0, 0, 1, 1]
