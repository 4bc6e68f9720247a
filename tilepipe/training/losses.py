"""Losses over weighted pixels, and the weight map of the U-Net paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tilepipe._torch import Tensor, functional, torch

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of logits (N, K, H, W), target and weight (N, H, W) that returns a scalar.

The target is int64 (N, H, W) if the K logits are classes, otherwise float32 (N, K, H, W). Pixels
with a weight of 0 do not count.
"""

GAP_REACH = 5.0
"""Beyond this many sigmas, the border term is below 4e-6 of w0."""


def weight_map(
    labels: Tensor, gaps: Tensor | None, class_weights: Tensor, w0: float, sigma: float
) -> Tensor:
    """The weight of each pixel: w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Ronneberger et al. 2015 (arXiv 1505.04597), equation 2. The second term acts on background,
    label 0, where the lines between objects are learnt.

    Parameters
    ----------
    labels
        Classes, (N, H, W) int64, 255 for pixels to ignore.
    gaps
        d1 + d2 in pixels, (N, H, W); None for no border term.
    class_weights
        w_c of each class, (classes,).
    w0, sigma
        Height and width of the border term; 10 and about 5 pixels in the paper.
    """
    known = labels != 255
    weight = class_weights[labels.where(known, torch.zeros_like(labels))]
    if gaps is not None and w0:
        weight = weight + w0 * torch.exp(-(gaps**2) / (2 * sigma**2)) * (labels == 0)
    return weight * known


def make_loss(
    name: str, *, softmax: bool, tversky: Sequence[float] = (0.3, 0.7), background: bool = True
) -> Loss:
    """The loss with a name such as ``cross-entropy+dice``.

    Parameters
    ----------
    name
        One of `tilepipe.training.options.LOSSES`, or two with a ``+`` between them.
    softmax
        Whether the logits are classes that exclude each other.
    tversky
        Weights of false positives and false negatives.
    background
        Whether label 0 is background, which Dice and Tversky leave out.
    """
    shares = partial(_class_probabilities, background=background) if softmax else _probabilities
    losses: dict[str, Loss] = {
        "cross-entropy": _cross_entropy,
        "bce": _by_plane(partial(functional.binary_cross_entropy_with_logits, reduction="none")),
        "dice": partial(_tversky, shares, (0.5, 0.5)),
        "tversky": partial(_tversky, shares, tversky),
        "mse": _by_plane(lambda logits, target: (logits - target) ** 2),
        "mae": _by_plane(lambda logits, target: (logits - target).abs()),
    }
    parts = [losses[part] for part in name.split("+")]

    def total(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        result = parts[0](logits, target, weight)
        for part in parts[1:]:
            result = result + part(logits, target, weight)
        return result

    return total


def _probabilities(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted and true probabilities of classes that do not exclude each other."""
    return torch.sigmoid(logits), target


def _class_probabilities(
    logits: Tensor, target: Tensor, *, background: bool
) -> tuple[Tensor, Tensor]:
    """Predicted and true probabilities of classes that exclude each other, without background."""
    classes = logits.shape[1]
    first = 1 if background and classes > 1 else 0
    hot = functional.one_hot(_as_classes(target, classes), classes).movedim(-1, 1)
    return logits.softmax(1)[:, first:], hot.to(logits.dtype)[:, first:]


def _as_classes(target: Tensor, classes: int) -> Tensor:
    """Labels, with class 0 for pixels to ignore, which have no weight."""
    return target.where(target < classes, torch.zeros_like(target))


def _tversky(
    shares: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    weights: Sequence[float],
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
) -> Tensor:
    """1 - the Tversky index, averaged over classes; with weights of 0.5, 1 - Dice."""
    # Overlaps count pixels: of their weights, only whether they are 0 matters.
    counting = (weight > 0).to(logits.dtype)[:, None]
    predicted, true = shares(logits, target)
    axes = (0, 2, 3)
    both = (predicted * true * counting).sum(axes)
    false_positive = (predicted * (1 - true) * counting).sum(axes)
    false_negative = ((1 - predicted) * true * counting).sum(axes)
    alpha, beta = weights
    # One pixel is added, so that a batch without the class does not divide by zero.
    index = (both + 1) / (both + alpha * false_positive + beta * false_negative + 1)
    return 1 - index.mean()


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    kept = _as_classes(target, logits.shape[1])
    return _weighted(functional.cross_entropy(logits, kept, reduction="none"), weight)


def _by_plane(error: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The loss of planes that are independent of each other."""
    return lambda logits, target, weight: _weighted(error(logits, target).mean(1), weight)


def _weighted(each: Tensor, weight: Tensor) -> Tensor:
    return (each * weight).sum() / weight.sum().clamp_min(1e-6)
