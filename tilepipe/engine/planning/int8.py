"""Where int8 is possible, what it may change, and who is told of it."""

from __future__ import annotations

import numpy as np

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.resources import Offer, Resources
from tilepipe.models.quantise import PACKAGES, missing_package
from tilepipe.models.specs import Model

MOST_CHANGE = {"int8": 0.05, "fastest": 0.005}
"""The values of ``--precision`` that are tried on the image, and the largest share of labels that
each may change by default."""


TRIAL_SECONDS = 30
"""Of a run in fp32, below which quantising takes about as long as it would save."""
COMPARING_SECONDS = 10
"""The same, where the network comes quantised with the model and is only compared."""


def allowed_change(options: RunOptions) -> float:
    """The largest share of labels that a precision which is tried may change."""
    asked = options.max_label_change
    return MOST_CHANGE[options.precision] if asked is None else asked


def unquantisable(model: Model) -> str | None:
    """Why a model has no int8 network and can have none; None if it can."""
    if not model.predictor.quantisable:
        return f"model {model.name} cannot be quantised, which only tilepipe's own U-Nets can be"
    if model.output.activation == "linear":
        return f"model {model.name} gives values, and what int8 changes is measured in labels"
    return None


def obstacle(model: Model, image: ImageFacts, device: str, runtime: str = "auto") -> str | None:
    """Why int8 is not possible, and what to do; None if it is."""
    if device != "cpu":
        return "is for CPUs only; use --device cpu, or another precision"
    if reason := unquantisable(model):
        return f"{reason}; use another precision"
    if np.dtype(image.dtype).kind not in "ui":
        return (
            f"{image.path} holds {image.dtype}, in which an overflow must be noticed, and int8 "
            "hides it; use another precision"
        )
    if runtime not in ("auto", "openvino"):
        return f"runtime {runtime} does not compute it; leave --runtime out"
    return None


def offer(
    model: Model, image: ImageFacts, resources: Resources, seconds: float | None
) -> Offer | None:
    """What a user is told who could have int8 (or bf16 by AMX) and has not asked; or None.

    ``seconds`` is how long the run takes without it, if that is known.
    """
    if not resources.environment.get("int8") or obstacle(model, image, resources.device):
        return None
    comes = model.int8 is not None
    if seconds is not None and seconds < (COMPARING_SECONDS if comes else TRIAL_SECONDS):
        return None
    package = missing_package(("openvino",) if comes else PACKAGES) if resources.local else None
    extra = "openvino" if comes else "int8"
    needs = "" if package is None else f' (needs pip install "tilepipe[{extra}]")'
    # With AMX, bf16 may well be the faster of the two, and changes fewer labels; which, can be
    # measured on this machine only.
    matrices = resources.local and "amx_bf16" in resources.environment.get("half", "")
    precision, measured = ("fastest", "bf16 and int8, and ") if matrices else ("int8", "")
    return Offer(
        f"--precision {precision}",
        f"{needs} may be several times as fast on this processor; it first measures {measured}how "
        "many labels differ",
    )
