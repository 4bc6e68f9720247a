"""Whether OpenVINO, which computes int8, computes a network as its reference does."""

from __future__ import annotations

from contextlib import closing
from weakref import WeakSet

from tilepipe.engine.planning.measured import measurement_key, recall, remember
from tilepipe.engine.planning.runtime_selection import RuntimeChoice, apart, may_time
from tilepipe.engine.planning.timing import PassSettings, Sample
from tilepipe.engine.resources import Resources
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.specs import Model

_agreed: WeakSet[Predictor] = WeakSet()
"""The networks in use of which it is known."""


def check_agreement(model: Model, tile: Sample, resources: Resources, path: str) -> None:
    """Refuse OpenVINO where it does not compute the network, in fp32, as the reference does.

    That it does is remembered for this machine, as is what passes cost.

    Parameters
    ----------
    model
        Not quantised.
    tile
        Of the image, on which both are compared.
    resources
        Threads and environment of a pass.
    path
        The image, for messages.

    Raises
    ------
    InputError
        Where logits differ by more than two runtimes may.
    NonFiniteError
        Where the network overflows on the tile.
    """
    if model.predictor in _agreed:
        return
    reference = model.predictor.runtimes[0]
    key = measurement_key(
        agree=(reference, "openvino"), model=model.fingerprint, environment=resources.environment,
        versions=model.predictor.versions("openvino"),
    )  # fmt: skip
    if may_time() and recall(key) is not None:
        return
    logits = []
    for runtime in (reference, "openvino"):
        settings = PassSettings("cpu", Precision.FP32, resources.threads, runtime)
        with closing(Device(model, *settings)) as device:
            logits.append(device.logits(*tile))
    difference, bound = apart(logits[1], logits[0]), Precision.FP32.agreement
    if bound is None or not difference <= bound:  # NaN is not either
        raise InputError(
            f"precision int8: runtime openvino, which computes it, differs in fp32 from "
            f"{reference} by {difference:.1e} of the logits' range on {path}, more than "
            f"{bound:.0e}; use --precision fp32"
        )
    _agreed.add(model.predictor)
    remember(key, RuntimeChoice("openvino"))
