"""The U-Net of Ronneberger, Fischer and Brox (2015), and its variants in common use."""

from __future__ import annotations

from tilepipe._torch import Tensor, functional, nn, torch
from tilepipe.models.unet_arguments import PRESETS, UNetArguments, preset

__all__ = ["PRESETS", "DoubleConvolution", "UNet", "UNetArguments", "Upsample", "preset"]


class DoubleConvolution(nn.Sequential):
    """Two 3x3 convolutions, each followed by (normalisation and) ReLU."""

    def __init__(self, given: int, taken: int, arguments: UNetArguments) -> None:
        layers: list[nn.Module] = []
        padding = 1 if arguments.padding == "same" else 0
        for channels in (given, taken):
            layers.append(nn.Conv2d(channels, taken, 3, padding=padding))
            if arguments.normalisation == "batch":
                layers.append(nn.BatchNorm2d(taken))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Upsample(nn.Module):
    """Doubles height and width and halves the channels (2x2 up-convolution, or bilinear + 1x1)."""

    def __init__(self, channels: int, arguments: UNetArguments) -> None:
        super().__init__()
        self.transposed = arguments.upsampling == "transposed"
        self.convolution: nn.Module = (
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
            if self.transposed
            else nn.Conv2d(channels, channels // 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, C, H, W) to (N, C / 2, 2 H, 2 W)."""
        if not self.transposed:
            # A 1x1 convolution and an interpolation commute; before it, it costs a quarter.
            x = self.convolution(x)
            return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        result: Tensor = self.convolution(x)
        return result


class UNet(nn.Module):
    """Contracting path, expanding path, centre-cropped skips, and a 1x1 convolution to logits.

    Ronneberger et al. 2015 (arXiv 1505.04597), figure 1. With the default arguments: 23
    convolutions, 572 x 572 in, 388 x 388 out. The activation is not part of the network: it
    returns logits (or, for regression, the values).
    """

    def __init__(self, arguments: UNetArguments | None = None) -> None:
        super().__init__()
        self.arguments = a = arguments or UNetArguments()
        widths = [a.width * 2**level for level in range(a.depth + 1)]
        self.down = nn.ModuleList(
            DoubleConvolution(given, taken, a)
            for given, taken in zip([a.bands, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(Upsample(width, a) for width in reversed(widths[1:]))
        self.merge = nn.ModuleList(
            DoubleConvolution(2 * width, width, a) for width in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(a.width, a.outputs, 1)
        if not self.head.weight.is_meta:
            self.apply(_he_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (N, outputs, h, w) for pixels of shape (N, bands, H, W)."""
        skips: list[Tensor] = []
        for level, convolve in enumerate(self.down):
            if level:
                x = functional.max_pool2d(x, 2)
            x = convolve(x)
            skips.append(x)
        skips.pop()
        if self.arguments.dropout:
            x = functional.dropout(x, self.arguments.dropout, self.training)
        for upsample, convolve in zip(self.up, self.merge, strict=True):
            x = upsample(x)
            x = torch.cat((_centre_crop(skips.pop(), x), x), dim=1)
            x = convolve(x)
        logits: Tensor = self.head(x)
        return logits


def _centre_crop(x: Tensor, like: Tensor) -> Tensor:
    top = (x.shape[-2] - like.shape[-2]) // 2
    left = (x.shape[-1] - like.shape[-1]) // 2
    return x[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _he_initialise(module: nn.Module) -> None:
    # Gaussian with standard deviation sqrt(2 / N), N the incoming nodes of a neuron (section 3).
    # On the meta device, where only shapes matter, there is nothing to draw, and drawing nothing
    # would load torch's compiler: most of a second.
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
