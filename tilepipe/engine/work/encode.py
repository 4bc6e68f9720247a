"""From logits to what a run writes: labels, planes or values, and probabilities."""

from __future__ import annotations

import numpy as np

from tilepipe._torch import Tensor, torch
from tilepipe.models.specs import OutputSpec


def labels_of(logits: Tensor, output: OutputSpec) -> Tensor:
    """Labels (N, H, W) or planes (N, C, H, W) as uint8, or values (N, C, H, W) as float32.

    Ties go to the lower label.
    """
    if output.activation == "linear":
        return logits.float()
    if output.activation == "sigmoid":
        # Thresholds on the logits: the sigmoid is monotone, and nothing is rounded.
        levels = [float(np.log(t / (1 - t))) for t in output.thresholds]
        planes = torch.stack([logits[:, i] > levels[i] for i in range(logits.shape[1])], dim=1).to(
            torch.uint8
        )
        return planes[:, 0] if logits.shape[1] == 1 else planes
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).view(torch.uint8)
    best = logits[:, 0]
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for label in range(1, logits.shape[1]):
        higher = logits[:, label] > best
        labels.masked_fill_(higher, label)
        if label + 1 < logits.shape[1]:
            best = torch.where(higher, logits[:, label], best)
    return labels


def probabilities_of(logits: Tensor, output: OutputSpec) -> Tensor:
    """Class probabilities as float32, (N, classes, H, W)."""
    if output.activation == "sigmoid":
        probabilities = torch.sigmoid(logits.float())
        # A single sigmoid tells two classes apart.
        single = probabilities.shape[1] == 1
        return torch.cat((1 - probabilities, probabilities), 1) if single else probabilities
    return torch.softmax(logits.float(), dim=1)
