"""A U-Net on an NVIDIA GPU in half precision: convolution, bias and ReLU are one kernel."""

from __future__ import annotations

from tilepipe._torch import Tensor, functional, nn, torch
from tilepipe.models.runtimes.eager import Eager
from tilepipe.models.unet import DoubleConvolution, UNet


class Fused(Eager):
    """A U-Net whose biases and ReLUs are computed by cuDNN with their convolutions.

    As steps of their own they read and write each activation again, a third of a pass.

    A kernel may turn NaN into 0 in its ReLU; then an overflow could be lost on its way to the
    logits. cuDNN chooses a kernel for each shape, so before the first window of a shape, each
    convolution is given NaN, and where NaN does not come out everywhere, it is not fused. (If a
    GPU is so full that cuDNN has to choose again later, that is not tried.)
    """

    network: UNet

    def __init__(self, network: UNet, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
        self._layers: list[ConvolutionReLU] = []
        for block in (*self.network.down, *self.network.merge):
            assert isinstance(block, DoubleConvolution)
            self._layers += _fuse(block)

    @property
    def apart(self) -> int:
        """How many convolutions are not fused, of all shapes so far."""
        return sum(len(layer.apart) for layer in self._layers)

    def prepare(self, x: Tensor) -> None:
        """Find the convolutions that lose NaN in windows of this shape."""
        try:
            for layer in self._layers:
                layer.trying = True
            self.network(x.clone())
        finally:
            for layer in self._layers:
                layer.trying = False


class ConvolutionReLU(nn.Module):
    """A convolution with bias and its ReLU, fused where NaN is kept."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None, "of a network without batch normalisation"
        assert not isinstance(convolution.padding, str), "a U-Net counts its own"
        self.weight, self.bias = convolution.weight, convolution.bias
        self._padding = convolution.padding
        self.trying = False
        """Whether what is given is overwritten by NaN, to see whether NaN comes out."""
        self.apart: set[torch.Size] = set()
        """The shapes of inputs for which convolution and ReLU are two steps."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, C, H, W) to (N, C', H', W')."""
        if self.trying:
            y = self._fused(x.fill_(torch.nan))
            if not bool(y.isnan().all()):
                self.apart.add(x.shape)
            return y
        if x.shape in self.apart:
            y = functional.conv2d(x, self.weight, self.bias, padding=self._padding)
            return functional.relu_(y)
        return self._fused(x)

    def _fused(self, x: Tensor) -> Tensor:
        return convolution_relu(x, self.weight, self.bias, self._padding)


def convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]) -> Tensor:
    """``relu(conv2d(x, weight, bias))`` in one kernel of cuDNN."""
    found: Tensor = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), padding, (1, 1), 1)
    return found


def can_fuse(device: str, dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this GPU, computes fused convolutions."""
    if torch.version.cuda is None or not torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        return False
    one = torch.ones((8, 8, 3, 3), device=device, dtype=dtype)
    try:
        convolution_relu(one, one, one[0, :, 0, 0], (0, 0))
    except torch.OutOfMemoryError:
        raise  # which says nothing about convolutions
    except RuntimeError:
        return False
    return True


def _fuse(block: DoubleConvolution) -> list[ConvolutionReLU]:
    """Replace each convolution of a block, and the ReLU after it."""
    convolutions = [layer for layer in block if isinstance(layer, nn.Conv2d)]
    assert len(block) == 2 * len(convolutions), "each has a ReLU, and nothing else is there"
    fused = [ConvolutionReLU(convolution) for convolution in convolutions]
    for number, layer in enumerate(fused):
        block[2 * number] = layer
        block[2 * number + 1] = nn.Identity()
    return fused
