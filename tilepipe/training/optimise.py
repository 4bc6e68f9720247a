"""Optimisers, learning-rate schedules, mixed precision, and the moving average of weights."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tilepipe._torch import Tensor, nn, torch
from tilepipe.models.onednn import limit_leaves_bf16
from tilepipe.training.options import LOWER_IS_BETTER, TrainOptions

DEFAULT_RATE = 1e-3
FALLS_TO = 1e-3
"""The share of the learning rate that is left at the end of a cosine."""


def make_optimiser(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum as in the paper."""
    rate = options.lr or DEFAULT_RATE
    if options.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=options.momentum)
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=options.weight_decay)


class RateSchedule:
    """The learning rate over a training, by torch's schedulers."""

    def __init__(
        self, optimiser: torch.optim.Optimizer, options: TrainOptions, metric: str
    ) -> None:
        self._plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._by_step: torch.optim.lr_scheduler.LRScheduler | None = None
        rate = options.lr or DEFAULT_RATE
        warm = max(1, round(options.warmup * options.steps))

        def cosine(step: int) -> float:
            rise = min(1.0, (step + 1) / warm)
            if options.schedule == "constant":
                return rise
            done = min(1.0, step / options.steps)
            return rise * (FALLS_TO + (1 - FALLS_TO) * 0.5 * (1 + math.cos(math.pi * done)))

        if options.schedule == "plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser,
                mode="min" if metric in LOWER_IS_BETTER else "max",
                factor=0.5,
                patience=max(1, options.patience // 3),
            )
        elif options.schedule == "one-cycle":
            # SGD keeps its momentum: the paper's 0.99 is why one chooses it.
            self._by_step = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, rate, options.steps + 1, cycle_momentum=options.optimiser == "adamw"
            )
        else:
            self._by_step = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine)

    def step(self) -> None:
        """Advance by a step."""
        if self._by_step is not None:
            self._by_step.step()

    def validated(self, score: float) -> None:
        """Take note of the score of a validation."""
        if self._plateau is not None and math.isfinite(score):
            self._plateau.step(score)

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        state: dict[str, Any] = (self._plateau or self._by_step).state_dict()  # type: ignore[union-attr]
        # Functions are saved as None, which must not replace the functions.
        return {
            key: value
            for key, value in state.items()
            if key != "lr_lambdas" and isinstance(value, int | float | str | list)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        (self._plateau or self._by_step).__dict__.update(state)


def make_average(network: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """A moving average of a network's weights, which generalises better than the last ones."""
    average = torch.optim.swa_utils.AveragedModel(
        network, avg_fn=lambda a, b, n: _ema_update(a, b, n, decay), use_buffers=True
    )
    average.eval()
    return average


def _ema_update(average: Tensor, new: Tensor, count: Tensor | int, decay: float) -> Tensor:
    if not average.is_floating_point():
        return new
    # The memory is short at first, so that the random weights are soon forgotten.
    share = min(decay, (1 + int(count)) / (10 + int(count)))
    return torch.lerp(new, average, share)


class MixedPrecision:
    """The precision of training passes."""

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "auto":
            name = "bf16" if _computes_bf16(device) else "fp32"
        self.name = name
        self._device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def passes(self) -> AbstractContextManager[Any]:
        """The context for a forward pass."""
        if self.name == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.name == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype=dtype)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False  # not known
    # Where bf16 is emulated, it is slower than float32.
    if not limit_leaves_bf16():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
