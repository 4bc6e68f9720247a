"""`tilepipe models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tilepipe.models.specs import Model


@click.command("models")
def command() -> None:
    """List the models that come with tilepipe; `tilepipe info NAME` shows a model's card."""
    from rich.table import Table

    from tilepipe.cli.terminal import Terminal
    from tilepipe.images.base import show_pixel_size
    from tilepipe.models.file import DEFAULT_MODEL, load_model, shipped_models

    table = Table(box=None, pad_edge=False)
    for column in ("name", "finds", "input", "pixel size", "on unseen images"):
        table.add_column(column, overflow="fold")
    for name in shipped_models():
        model = load_model(name)
        size = model.input.pixel_size
        table.add_row(
            name + (" (default)" if name == DEFAULT_MODEL else ""),
            str(model.about.get("finds", "")),
            f"{model.input.bands} x {model.input.dtype}",
            "none" if size is None else show_pixel_size(size),
            _headline(model),
        )
    Terminal().print(table)
    click.echo("\ntilepipe info NAME shows a model's card: data, licence, figures, limits.")


def _headline(model: Model) -> str:
    """The first figure of a card: ``Dice 0.82 (0.80 to 0.84)``."""
    metrics: Any = model.about.get("metrics")
    if not isinstance(metrics, dict) or "dice" not in metrics:
        return ""
    low_high = metrics.get("dice_95_percent")
    interval = f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if isinstance(low_high, list) else ""
    return f"Dice {metrics['dice']:.3f}{interval}"
