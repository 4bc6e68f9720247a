"""A network in training: what one step does, and the weights that are validated and kept."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilepipe._torch import Tensor, nn, torch
from tilepipe.errors import NonFiniteError
from tilepipe.models.file import build_model
from tilepipe.models.geometry import geometry_of
from tilepipe.models.specs import Model
from tilepipe.models.unet import UNet
from tilepipe.training.losses import make_loss, weight_map
from tilepipe.training.optimise import MixedPrecision, RateSchedule, make_average, make_optimiser
from tilepipe.training.recipe import Recipe
from tilepipe.training.tiles import Tile


@dataclass(frozen=True, slots=True)
class ValueScale:
    """The unit in which values are learnt: standard deviations from their mean."""

    mean: Tensor
    """Mean of each plane of values, (planes,)."""
    std: Tensor
    """Standard deviation of each plane of values, (planes,)."""

    def standardised(self, values: Tensor) -> Tensor:
        """Values, (N, planes, H, W), in the unit in which they are learnt."""
        return (values - self.mean[:, None, None]) / self.std[:, None, None]

    def standardise_head(self, network: UNet) -> None:
        """Make a network on the CPU that predicts values predict them as they are learnt."""
        _rescale_head(network, 1 / self.std.cpu(), -(self.mean / self.std).cpu())

    def restore_head(self, network: UNet) -> None:
        """Make a network that predicts values as they are learnt predict them in their own unit."""
        _rescale_head(network, self.std, self.mean)


class PixelLoss:
    """The loss of a batch, with the weight of each pixel."""

    def __init__(self, recipe: Recipe, scale: ValueScale, device: torch.device) -> None:
        options = recipe.options
        self._activation = recipe.output.activation
        self._scale = scale
        softmax = self._activation == "softmax"
        self._loss = make_loss(recipe.loss, softmax=softmax, tversky=options.tversky)
        weights = recipe.survey.class_weights(options.class_weights)
        self._class_weights = torch.tensor(weights).to(device)
        self._border = options.border_weight, options.border_sigma

    def weights(self, target: Tensor, gaps: Tensor | None) -> Tensor:
        """The weight of each pixel of a batch of classes, (N, H, W)."""
        return weight_map(target, gaps, self._class_weights.to(target.device), *self._border)

    def __call__(self, logits: Tensor, target: Tensor, gaps: Tensor | None) -> Tensor:
        """The loss of a batch, a scalar."""
        if self._activation == "linear":
            known = target.isfinite()
            values = torch.where(known, self._scale.standardised(target), torch.zeros_like(target))
            return self._loss(logits, values, known.all(1).float())
        weight = self.weights(target, gaps)
        if self._activation == "sigmoid":
            target = (target == 1).float()[:, None]
        return self._loss(logits, target, weight)


class Learner:
    """A network in training, and everything that changes its weights."""

    def __init__(self, recipe: Recipe) -> None:
        options, found = recipe.options, recipe.survey
        self._recipe = recipe
        self._device = torch.device(recipe.device)
        self._scale = ValueScale(
            torch.tensor(found.value_mean or (0.0,)).to(self._device),
            torch.tensor(found.value_std or (1.0,)).to(self._device),
        )
        torch.manual_seed(options.seed)
        network = UNet(recipe.arguments)
        if recipe.start is not None:
            _copy_weights(network, recipe.start)
            if recipe.start.output.activation == recipe.output.activation == "linear":
                self._scale.standardise_head(network)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = make_average(self._network, options.average) if options.average else None
        self._optimiser = make_optimiser(self._network, options)
        self.schedule = RateSchedule(self._optimiser, options, recipe.metric)
        self._precision = MixedPrecision(options.precision, self._device)
        self.loss = PixelLoss(recipe, self._scale, self._device)

    @property
    def rate(self) -> float:
        """The present learning rate."""
        return float(self._optimiser.param_groups[0]["lr"])

    @property
    def network(self) -> UNet:
        """The network that is validated and kept: the moving average, if there is one."""
        network = self._average.module if self._average is not None else self._network
        assert isinstance(network, UNet)
        return network

    def step(self, batch: list[Tile], number: int) -> float:
        """Learn from a batch, and return its loss.

        Raises
        ------
        NonFiniteError
            The loss became NaN or infinite.
        """
        options = self._recipe.options
        # Dropout uses torch's random numbers; seeded by step, a resumed training draws the same.
        torch.manual_seed((options.seed * 1_000_003 + number) % 2**63)
        x = torch.stack([t.pixels for t in batch]).to(self._device)
        x = x.contiguous(memory_format=torch.channels_last)
        target = torch.stack([t.target for t in batch]).to(self._device)
        gaps = None
        if batch[0].gaps is not None:
            gaps = torch.stack([t.gaps for t in batch if t.gaps is not None]).to(self._device)
        self._network.train()
        geometry = geometry_of(self._recipe.arguments)
        start = geometry.margin - geometry.shrink
        kept = slice(start, start + target.shape[-1])
        with self._precision.passes():
            logits = self._network(x)[:, :, kept, kept]
        loss = self.loss(logits.float(), target, gaps)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss became {value} at step {number + 1}")
        self._descend(loss)
        return value

    def _descend(self, loss: Tensor) -> None:
        """Change the weights by the gradient of a loss."""
        clip, scaler = self._recipe.options.clip, self._precision.scaler
        self._optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if clip:
            scaler.unscale_(self._optimiser)
            nn.utils.clip_grad_norm_(self._network.parameters(), clip)
        scaler.step(self._optimiser)
        scaler.update()
        self.schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._network)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights of `network`."""
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def require_finite_weights(self, step: int) -> None:
        """Raise NonFiniteError if a weight of `network` became NaN or infinite."""
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NonFiniteError(
                    f"the weights {name} became NaN or infinite by the end of step {step}"
                )

    def model(self, network: UNet, about: dict[str, Any] | None = None) -> Model:
        """A network as a model, which predicts values in their own unit."""
        if self._recipe.output.activation == "linear":
            network = deepcopy(network)
            self._scale.restore_head(network)
        name = Path(self._recipe.options.output).stem
        return build_model(network, self._recipe.input, self._recipe.output, name=name, about=about)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training needs to continue from here."""
        return {
            "network": self._network.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
            "optimiser": self._optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self._precision.scaler.load_state_dict(state["scaler"])


def _rescale_head(network: UNet, factor: Tensor, shift: Tensor) -> None:
    """Multiply what a network predicts by ``factor``, and add ``shift``, for each output."""
    with torch.no_grad():
        network.head.weight.mul_(factor[:, None, None, None])
        assert network.head.bias is not None
        network.head.bias.mul_(factor).add_(shift)


def _copy_weights(network: UNet, start: Model) -> None:
    """Copy the weights of another network that fit; the others stay as they were drawn."""
    given = start.network.state_dict()
    own = network.state_dict()
    for name, tensor in own.items():
        source = given.get(name)
        if source is None:
            continue
        if source.shape == tensor.shape:
            tensor.copy_(source)
        elif name == "down.0.0.weight" and source.shape[0] == tensor.shape[0]:
            # Other bands: each begins as the mean of the old ones, with the same sum.
            mean = source.mean(1, keepdim=True) * source.shape[1] / tensor.shape[1]
            tensor.copy_(mean.expand_as(tensor))
    network.load_state_dict(own)
