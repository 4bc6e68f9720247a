"""Quantised networks: near those of float32, the same bytes each time, exact under tiling."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.making import make_model
from tests.models.making import OnTensors
from tilepipe.errors import InputError
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.quantised import network_hash, with_network
from tilepipe.models.quantise import missing_package, quantised, unpacked
from tilepipe.models.specs import Model
from tilepipe.models.unet import UNetArguments

needs_nncf = pytest.mark.skipif(missing_package() is not None, reason="needs the extra int8")


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model(UNetArguments(width=4, depth=2, outputs=3))


def pixels(model: Model, rows: int, columns: int, seed: int = 1) -> torch.Tensor:
    """What a network takes to keep so many outputs."""
    shape = (model.geometry.input_for(rows), model.geometry.input_for(columns))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, model.input.bands, *shape), generator=generator)


def quantise(model: Model) -> bytes:
    inputs = [pixels(model, 32, 32, seed).numpy() for seed in range(3)]
    return quantised(model.predictor.graph(), inputs, saturates=False)


@pytest.fixture(scope="module")
def network(model: Model) -> bytes:
    return quantise(model)


@pytest.fixture(scope="module")
def compute(model: Model, network: bytes) -> Callable[[torch.Tensor], Any]:
    """The logits of the quantised network."""
    predictor = with_network(model, network).predictor
    return OnTensors(predictor.open("cpu", Precision.INT8, 1, "openvino"))


@needs_nncf
def test_the_same_pixels_give_the_same_network(model: Model, network: bytes) -> None:
    assert quantise(model) == network


@needs_nncf
def test_logits_are_near_those_of_float32(
    model: Model, compute: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = pixels(model, 64, 48)
    with torch.inference_mode():
        truth = model.network(x)
    apart = (compute(x) - truth).abs().max() / (truth.max() - truth.min())
    assert 1e-4 < apart < 0.08


@needs_nncf
def test_logits_do_not_depend_on_the_window(
    model: Model, compute: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = pixels(model, 96, 128)
    whole = compute(x).clone()
    factor, (height, width) = model.geometry.stride_factor, pixels(model, 48, 48).shape[2:]
    for y, left in ((0, 0), (factor, 3 * factor), (8 * factor, 5 * factor)):
        part = compute(x[:, :, y : y + height, left : left + width])
        rows, columns = part.shape[2:]
        assert torch.equal(part, whole[:, :, y : y + rows, left : left + columns])


@needs_nncf
def test_the_first_and_the_last_layer_stay_as_they_are(model: Model, network: bytes) -> None:
    import openvino

    layers = [
        op
        for op in openvino.Core().read_model(*unpacked(network)).get_ordered_ops()
        if op.get_type_name().startswith("Convolution")
    ]
    plain = [op.input_value(1).get_node().get_type_name() == "Constant" for op in layers]
    assert plain == [True, *[False] * (len(layers) - 2), True]


@needs_nncf
def test_a_model_with_a_network_is_another_model(model: Model, network: bytes) -> None:
    found = with_network(model, network)
    assert found.fingerprint != model.fingerprint
    assert found.predictor.precisions("cpu") == (Precision.INT8,)
    assert found.predictor.runtimes == ("openvino",)
    assert found.predictor.describe().endswith(", quantised to int8")
    assert len(network_hash(network)) == 64
    with pytest.raises(InputError, match="computes on CPUs only"):
        found.predictor.check("openvino", "cuda", Precision.INT8)


def zipped(kind: int = zipfile.ZIP_STORED, **members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 and no more",
        zipped(model_xml="<net/>"),
        zipped(zipfile.ZIP_DEFLATED, model_xml="<net/>", model_bin=""),
        zipped(model_xml="<net/>", model_bin="weights")[:-30],
    ],
)
def test_what_is_no_network_is_refused(model: Model, content: bytes) -> None:
    with pytest.raises(ValueError, match="no quantised network: "):
        with_network(model, content)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino here")
def test_what_openvino_cannot_read_is_said(model: Model) -> None:
    found = with_network(model, zipped(model_xml="<net/>", model_bin=""))
    with pytest.raises(InputError, match="OpenVINO cannot read the quantised network"):
        found.predictor.open("cpu", Precision.INT8, 1, "openvino")


def test_a_missing_package_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "nncf" else found(name)
    )
    assert missing_package() == "nncf"
    with pytest.raises(InputError, match=r'needs nncf.*pip install "tilepipe\[int8\]"'):
        quantised(b"", [np.zeros((1, 3, 8, 8), np.float32)], saturates=False)
