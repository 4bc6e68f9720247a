"""What training makes small: losses over weighted pixels, and the paper's weight map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilepipe._torch import Tensor, functional, torch

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (N, K, H, W), target, weight (N, H, W)) to a scalar.

The target is int64 (N, H, W) where the K logits are classes, else float32 (N, K, H, W). A pixel of
weight 0 says nothing.
"""

GAP_REACH = 5.0
"""Beyond so many sigmas the border term is below 4e-6 of w0."""


def weight_map(
    labels: Tensor, gaps: Tensor | None, class_weights: Tensor, w0: float, sigma: float
) -> Tensor:
    """The weight of each pixel: w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Ronneberger et al. 2015 (arXiv 1505.04597), equation 2; the second term on background, label 0,
    where the lines between objects are to be learnt.

    Parameters
    ----------
    labels
        (N, H, W) int64, 255 for pixels that weigh nothing.
    gaps
        (N, H, W), d1 + d2 in pixels; None for no border term.
    class_weights
        (classes,): w_c.
    w0, sigma
        10 and about 5 pixels in the paper.
    """
    known = labels != 255
    weight = class_weights[labels.where(known, torch.zeros_like(labels))]
    if gaps is not None and w0:
        weight = weight + w0 * torch.exp(-(gaps**2) / (2 * sigma**2)) * (labels == 0)
    return weight * known


def make_loss(
    name: str, *, softmax: bool, tversky: Sequence[float] = (0.3, 0.7), background: bool = True
) -> Loss:
    """The loss of a name such as ``cross-entropy+dice``.

    Parameters
    ----------
    name
        One of `tilepipe.training.options.LOSSES`, or two with ``+`` between.
    softmax
        Whether the logits are classes that exclude each other.
    tversky
        Weights of false positives and false negatives.
    background
        Whether label 0 is background, and so left out of Dice and Tversky.
    """

    def shares(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if not softmax:
            return torch.sigmoid(logits), target
        classes = logits.shape[1]
        kept = target.where(target < classes, torch.zeros_like(target))
        first = 1 if background and classes > 1 else 0
        hot = functional.one_hot(kept, classes).movedim(-1, 1).to(logits.dtype)
        return logits.softmax(1)[:, first:], hot[:, first:]

    def overlap(alpha: float, beta: float) -> Loss:
        def loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            # Overlaps count pixels, so of the weights only "says nothing" matters.
            counts = (weight > 0).to(logits.dtype)[:, None]
            predicted, true = shares(logits, target)
            axes = (0, 2, 3)
            both = (predicted * true * counts).sum(axes)
            false_positive = (predicted * (1 - true) * counts).sum(axes)
            false_negative = ((1 - predicted) * true * counts).sum(axes)
            # The one pixel added keeps a batch without the class from dividing by zero.
            index = (both + 1) / (both + alpha * false_positive + beta * false_negative + 1)
            return 1 - index.mean()

        return loss

    def entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        kept = target.where(target < logits.shape[1], torch.zeros_like(target))
        return _weighted(functional.cross_entropy(logits, kept, reduction="none"), weight)

    def binary(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return _weighted(each.mean(1), weight)

    def squared(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return _weighted(((logits - target) ** 2).mean(1), weight)

    def absolute(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return _weighted((logits - target).abs().mean(1), weight)

    losses: dict[str, Loss] = {
        "cross-entropy": entropy,
        "bce": binary,
        "dice": overlap(0.5, 0.5),
        "tversky": overlap(*tversky),
        "mse": squared,
        "mae": absolute,
    }
    parts = [losses[part] for part in name.split("+")]

    def total(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        result = parts[0](logits, target, weight)
        for part in parts[1:]:
            result = result + part(logits, target, weight)
        return result

    return total


def _weighted(each: Tensor, weight: Tensor) -> Tensor:
    return (each * weight).sum() / weight.sum().clamp_min(1e-6)
