"""What distinguishes one U-Net from another, and what follows for its weights; without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

Padding = Literal["valid", "same"]
Normalisation = Literal["none", "batch"]
Upsampling = Literal["transposed", "interpolation"]


@dataclass(frozen=True, slots=True)
class UNetArguments:
    """What distinguishes one U-Net from another: the `network.arguments` of its model file."""

    kind: ClassVar[str] = "unet"
    """The `network.name` of its model file."""

    bands: int = 3
    """Input channels."""
    outputs: int = 2
    """Output channels: classes for softmax and sigmoid, quantities for linear."""
    width: int = 64
    """Channels of the first level; each level below has twice as many."""
    depth: int = 4
    """Number of 2x2 poolings; the stride factor is ``2 ** depth``."""
    padding: Padding = "valid"
    """``valid``: unpadded 3x3, as in the paper. ``same``: zero-padded, output as large as input."""
    normalisation: Normalisation = "none"
    """``batch``: batch normalisation between each 3x3 convolution and its ReLU."""
    upsampling: Upsampling = "transposed"
    """``transposed``: 2x2 up-convolution (paper). ``interpolation``: bilinear, then 1x1."""
    dropout: float = 0.0
    """Dropout at the end of the contracting path, in training only (paper, section 3.1)."""

    def __post_init__(self) -> None:
        for name in ("bands", "outputs", "width", "depth"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.depth > 8:
            raise ValueError(f"depth must be at most 8, not {self.depth}")
        for name, allowed in (
            ("padding", ("valid", "same")),
            ("normalisation", ("none", "batch")),
            ("upsampling", ("transposed", "interpolation")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}"
                )
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout!r}")

    @property
    def stride_factor(self) -> int:
        """Total downsampling, 2^depth."""
        return int(2**self.depth)


PRESETS: dict[str, UNetArguments] = {
    "unet": UNetArguments(),
    "unet-small": UNetArguments(width=16),
    "unet-padded": UNetArguments(padding="same", normalisation="batch"),
    "unet-three-level": UNetArguments(depth=3, padding="same", normalisation="batch", width=32),
    "unet-regression": UNetArguments(outputs=1, padding="same", normalisation="batch", width=32),
}
"""Variants in common use: the paper's network, a small one, the padded and batch-normalised one
(the form most repositories call "U-Net"), the three-level one, and one for regression."""


def preset(name: str, **changes: Any) -> UNetArguments:
    """The arguments of a named preset, with ``changes`` applied.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    try:
        return replace(PRESETS[name], **changes)
    except KeyError:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}") from None


def tensor_shapes(arguments: UNetArguments) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a `UNet` that its model file holds."""
    a, shapes = arguments, dict[str, tuple[int, ...]]()

    def add(name: str, weight: tuple[int, ...], channels: int) -> None:
        shapes.update({f"{name}.weight": weight, f"{name}.bias": (channels,)})

    def double(name: str, given: int, taken: int) -> None:
        batch = a.normalisation == "batch"
        for place, channels in ((0, given), (3 if batch else 2, taken)):
            add(f"{name}.{place}", (taken, channels, 3, 3), taken)
            if batch:
                add(f"{name}.{place + 1}", (taken,), taken)
                shapes[f"{name}.{place + 1}.running_mean"] = (taken,)
                shapes[f"{name}.{place + 1}.running_var"] = (taken,)

    widths = [a.width * 2**level for level in range(a.depth + 1)]
    for level, (given, taken) in enumerate(zip([a.bands, *widths[:-1]], widths, strict=True)):
        double(f"down.{level}", given, taken)
    for number, width in enumerate(reversed(widths[:-1])):
        transposed = a.upsampling == "transposed"
        weight = (2 * width, width, 2, 2) if transposed else (width, 2 * width, 1, 1)
        add(f"up.{number}.convolution", weight, width)
    for number, width in enumerate(reversed(widths[:-1])):
        double(f"merge.{number}", 2 * width, width)
    add("head", (a.outputs, a.width, 1, 1), a.outputs)
    return shapes
