"""Each loss against its formula in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilepipe.errors import InputError
from tilepipe.training.losses import make_loss
from tilepipe.training.options import TrainOptions

Array = NDArray[np.float64]


def drawn(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels with some ignored, and weights."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(2, classes, 6, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(0, classes, (2, 6, 5), generator=generator)
    labels[0, :2, :2] = 255
    weight = torch.rand(2, 6, 5, generator=generator, dtype=torch.float64) + 0.1
    return logits, labels, weight * (labels != 255)


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def cross_entropy(logits: Array, labels: NDArray[Any], weight: Array) -> float:
    total = 0.0
    shares = softmax(logits)
    for n, y, x in np.ndindex(labels.shape):
        if weight[n, y, x]:
            total -= weight[n, y, x] * np.log(shares[n, labels[n, y, x], y, x])
    return float(total / weight.sum())


def tversky(p: Array, g: Array, alpha: float, beta: float) -> float:
    """1 - the index of each class, averaged; p and g of shape (classes, pixels)."""
    index = [
        ((a * b).sum() + 1)
        / ((a * b).sum() + alpha * (a * (1 - b)).sum() + beta * ((1 - a) * b).sum() + 1)
        for a, b in zip(p, g, strict=True)
    ]
    return 1 - float(np.mean(index))


def foreground(logits: Tensor, labels: Tensor) -> tuple[Array, Array]:
    known = (labels != 255).numpy()
    shares = softmax(logits.numpy())
    p = np.stack([shares[:, c][known] for c in range(1, logits.shape[1])])
    g = np.stack([(labels.numpy()[known] == c).astype(float) for c in range(1, logits.shape[1])])
    return p, g


@pytest.mark.parametrize("classes", [2, 4])
def test_cross_entropy_is_the_weighted_mean_of_minus_log_p(classes: int) -> None:
    logits, labels, weight = drawn(classes)
    loss = make_loss("cross-entropy", softmax=True)(logits, labels, weight)
    assert float(loss) == pytest.approx(
        cross_entropy(logits.numpy(), labels.numpy(), weight.numpy())
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_dice_is_tversky_of_halves_over_the_classes_but_background(classes: int) -> None:
    logits, labels, weight = drawn(classes)
    p, g = foreground(logits, labels)
    dice = make_loss("dice", softmax=True)(logits, labels, weight)
    assert float(dice) == pytest.approx(tversky(p, g, 0.5, 0.5))
    both, size = (p * g).sum(1), p.sum(1) + g.sum(1)
    assert float(dice) == pytest.approx(1 - np.mean((2 * both + 2) / (size + 2)))


def test_tversky_weighs_false_positives_and_negatives_as_told() -> None:
    logits, labels, weight = drawn(3)
    loss = make_loss("tversky", softmax=True, tversky=(0.2, 0.9))(logits, labels, weight)
    assert float(loss) == pytest.approx(tversky(*foreground(logits, labels), 0.2, 0.9))


def test_bce_and_dice_of_a_single_output() -> None:
    logits, labels, weight = drawn(2)
    logits, target = logits[:, :1], (labels == 1).double()[:, None]
    p = 1 / (1 + np.exp(-logits.numpy()))
    t, w = target.numpy(), weight.numpy()
    each = -(t * np.log(p) + (1 - t) * np.log(1 - p))[:, 0]
    bce = make_loss("bce", softmax=False)(logits, target, weight)
    assert float(bce) == pytest.approx((each * w).sum() / w.sum())
    known = w > 0
    dice = make_loss("dice", softmax=False)(logits, target, weight)
    flat = (p[:, 0][known][None], t[:, 0][known][None])
    assert float(dice) == pytest.approx(tversky(*flat, 0.5, 0.5))


@pytest.mark.parametrize(("name", "power"), [("mse", 2), ("mae", 1)])
def test_losses_of_values_are_means_over_what_has_a_value(name: str, power: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    truth = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    weight = torch.ones(2, 4, 4, dtype=torch.float64)
    weight[0, 0] = 0
    each = (np.abs(values.numpy() - truth.numpy()) ** power).mean(1)
    loss = make_loss(name, softmax=False)(values, truth, weight)
    assert float(loss) == pytest.approx(each[weight.numpy() > 0].mean())


@pytest.mark.parametrize(
    "pair", ["cross-entropy+dice", "cross-entropy+tversky", "dice+tversky", "dice+cross-entropy"]
)
def test_two_losses_are_added(pair: str) -> None:
    given = drawn(3)
    parts = [float(make_loss(name, softmax=True)(*given)) for name in pair.split("+")]
    assert float(make_loss(pair, softmax=True)(*given)) == pytest.approx(sum(parts))


@pytest.mark.parametrize("name", ["cross-entropy", "dice", "tversky", "cross-entropy+dice"])
def test_ignored_pixels_have_no_influence_on_value_or_gradient(name: str) -> None:
    logits, labels, weight = drawn(3)
    logits.requires_grad_()
    loss = make_loss(name, softmax=True)
    value = loss(logits, labels, weight)
    value.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    ignored = (labels == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()
    other = logits.detach().clone()
    other[ignored] = 50.0
    assert float(loss(other, labels, weight)) == pytest.approx(float(value.detach()))


@pytest.mark.parametrize("name", ["cross-entropy", "dice", "cross-entropy+dice"])
def test_a_batch_that_says_nothing_at_all_has_a_finite_loss_and_no_gradient(name: str) -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    loss = make_loss(name, softmax=True)(logits, labels, torch.zeros(1, 4, 4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", ["", "focal", "dice+", "dice+focal", "mse+mae+mse", "Dice"])
def test_names_that_are_no_loss_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="loss"):
        TrainOptions(data=("x",), output="y.safetensors", loss=name)
