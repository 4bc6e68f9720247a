"""Windows as numpy arrays come out as torch's tensors do; facts of torch are torch's own."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.making import make_image, make_model
from tilepipe.engine.work import torch_facts
from tilepipe.engine.work.array_backend import ArrayBackend
from tilepipe.engine.work.device import Device
from tilepipe.errors import NonFiniteError
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.predictors.unet import UNetPredictor
from tilepipe.models.runtimes import Runtime
from tilepipe.models.specs import Model, OutputSpec
from tilepipe.models.unet import UNetArguments
from tilepipe.products.product import product_named

LOGITS = {
    "softmax of two": (2, "softmax", ()),
    "softmax of four": (4, "softmax", ()),
    "one sigmoid": (1, "sigmoid", (0.3,)),
    "three sigmoids": (3, "sigmoid", (0.3, 0.5, 0.9)),
    "values": (3, "linear", ()),
}


class TorchOnArrays(Runtime):
    """Torch, as a runtime that takes arrays, and takes the memory of its logits again."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network
        self._logits = np.empty(0, np.float32)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            given = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            logits: NDArray[np.float32] = self._network(given).numpy()
        if logits.shape != self._logits.shape:
            self._logits = np.empty_like(logits)
        self._logits[...] = logits
        return self._logits


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's place is torch's, so that both have the same logits."""

    def opened(self: UNetPredictor, *_: Any) -> Runtime:
        return TorchOnArrays(self.network)

    monkeypatch.setattr(UNetPredictor, "open", opened)


def logits_of(outputs: int, levels: list[float]) -> NDArray[np.float32]:
    """With ties, values at thresholds and beside them, infinities and NaN."""
    rng = np.random.default_rng(0)
    found = rng.integers(-2, 3, (1, outputs, 40, 50)).astype(np.float32)
    found[..., 20:, :] = rng.normal(size=(1, outputs, 20, 50))
    for level in map(np.float32, levels):
        near = [level, np.nextafter(level, np.float32(9)), np.nextafter(level, np.float32(-9))]
        found[0, :, 0, :3] = near
    found[0, 0, 1, :4] = np.inf, -np.inf, np.nan, -0.0
    return found


@pytest.mark.parametrize("kind", LOGITS)
def test_products_are_the_same_to_the_bit(kind: str) -> None:
    outputs, activation, thresholds = LOGITS[kind]
    model = make_model(UNetArguments(width=1, depth=1, outputs=outputs), activation=activation)  # type: ignore[arg-type]
    output = model.output if not thresholds else _with(model, thresholds)
    logits = logits_of(outputs, [float(np.log(t / (1 - t))) for t in thresholds])
    keys = ("labels", "planes", "values", "probabilities:float32", "entropy:float16")
    products = [p for p in map(product_named, keys) if p.unavailable(output) is None]
    assert products
    for product in products:
        for given in (logits, logits[..., 3:-3, 5:-2]):
            expected = product.encode(torch.from_numpy(given), output).numpy()
            found = product.encode_array(given, output)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(product.stored(found), product.stored(expected))


def _with(model: Model, thresholds: tuple[float, ...]) -> OutputSpec:
    return replace(model.output, thresholds=thresholds)


@pytest.mark.usefixtures("arrays")
def test_windows_are_answered_as_by_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(UNetArguments(width=2, depth=2, outputs=3))
    side = model.geometry.input_for(64)
    pixels, valid = make_image(side, side), np.ones((side, side, 1), np.bool_)
    valid[side // 2 :, : side // 2] = False
    products = product_named("labels"), product_named("probabilities:float32")
    with closing(Device(model, "cpu", "fp32", 1, "openvino")) as ours:
        assert isinstance(ours.backend, ArrayBackend)
        monkeypatch.setattr(UNetPredictor, "open", Predictor.open)  # layer by layer
        with closing(Device(model, "cpu", "fp32", 1, "torch")) as theirs:
            for there in (None, valid):
                found = ours.answer(pixels, there, (64, 48), products).result()
                expected = theirs.answer(pixels, there, (64, 48), products).result()
                for a, b in zip(found.arrays, expected.arrays, strict=True):
                    np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(
                ours.logits(pixels, valid, (64, 48)), theirs.logits(pixels, valid, (64, 48))
            )


@pytest.mark.usefixtures("arrays")
def test_products_do_not_share_memory() -> None:
    model = make_model(UNetArguments(width=1, depth=1, outputs=2), activation="linear")
    side = model.geometry.input_for(16)
    values = product_named("values")
    with closing(Device(model, "cpu", "fp32", 1, "openvino")) as device:
        answer = device.answer(make_image(side, side), None, (16, 16), (values, values)).result()
    assert not np.may_share_memory(*answer.arrays)


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize("many", [1, 2])
def test_the_next_window_leaves_an_answer_alone(many: int) -> None:
    model = make_model(UNetArguments(width=1, depth=1, outputs=2), activation="linear")
    side = model.geometry.input_for(16)
    products = (product_named("values"),) * many
    with closing(Device(model, "cpu", "fp32", 1, "openvino")) as device:
        first = device.answer(make_image(side, side), None, (16, 16), products).result()
        kept = [array.copy() for array in first.arrays]
        logits = device.logits(make_image(side, side), None, (16, 16))
        second = device.answer(make_image(side, side)[::-1], None, (16, 16), products).result()
    for before, after, other in zip(kept, first.arrays, second.arrays, strict=True):
        np.testing.assert_array_equal(before, after)
        assert not np.array_equal(before, other)
    np.testing.assert_array_equal(logits, kept[0])


@pytest.mark.usefixtures("arrays")
def test_logits_that_are_not_finite_are_never_labels() -> None:
    model = make_model(UNetArguments(width=1, depth=1), dtype="float32")
    side = model.geometry.input_for(16)
    pixels = make_image(side, side).astype(np.float32)
    with closing(Device(model, "cpu", "fp32", 1, "openvino")) as device:
        device.answer(pixels, None, (16, 16)).result()
        pixels[side // 2, side // 2] = np.nan
        with pytest.raises(NonFiniteError, match="not finite in fp32"):
            device.answer(pixels, None, (16, 16)).result()


def test_torch_is_told_of_as_it_tells_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path))
    monkeypatch.setattr(torch_facts, "is_loaded", lambda: False)
    capability = torch.backends.cpu.get_cpu_capability()
    assert torch_facts.torch_version() == torch.__version__
    assert torch_facts.cuda_is_available() == torch.cuda.is_available()
    assert torch_facts.cpu_capability() == capability
    monkeypatch.setattr(torch_facts, "_asked_capability", lambda: "another")
    assert torch_facts.cpu_capability() == capability, "remembered"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert torch_facts.cpu_capability() == "another", "of this setting"


def test_a_build_for_gpus_is_asked_where_there_may_be_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = type("build", (), {"__version__": "2", "cuda": "12.8"})
    monkeypatch.setattr(torch_facts, "is_loaded", lambda: False)
    monkeypatch.setattr(torch_facts, "_build", lambda: build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_facts, "GPUS", ("null",))
    assert torch_facts.cuda_is_available()
    monkeypatch.setattr(torch_facts, "GPUS", ("no such device",))
    monkeypatch.setattr(torch_facts.sys, "platform", "linux")
    assert not torch_facts.cuda_is_available()
    monkeypatch.setattr(torch_facts.sys, "platform", "win32")
    assert torch_facts.cuda_is_available()
