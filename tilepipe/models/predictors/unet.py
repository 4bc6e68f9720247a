"""U-Nets of tilepipe: computed by torch, or by what is faster on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tilepipe.grid import Geometry
from tilepipe.models.fold import fold_batch_normalisation, folded
from tilepipe.models.geometry import geometry_of
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.runtimes import MEASURABLE, RUNTIMES, Runtime, installed
from tilepipe.models.unet_arguments import UNetArguments, tensor_shapes
from tilepipe.models.unet_memory import bytes_by_layers, bytes_in_strips

if TYPE_CHECKING:
    from tilepipe.models.unet import UNet


class UNetPredictor(Predictor):
    """A U-Net. Batch normalisation is folded into its convolutions when it is opened."""

    arguments_type = UNetArguments
    runtimes = tuple(RUNTIMES)
    quantisable = True
    arguments: UNetArguments

    @classmethod
    def build(cls, arguments: UNetArguments) -> UNet:
        """A U-Net with random weights."""
        from tilepipe.models.unet import UNet

        return UNet(arguments)

    @classmethod
    def shapes(cls, arguments: UNetArguments) -> dict[str, tuple[int, ...]]:
        """The name and shape of each tensor that the model file must hold."""
        return tensor_shapes(arguments)

    @classmethod
    def geometry(cls, arguments: UNetArguments) -> Geometry:
        """The geometry counted layer by layer."""
        return geometry_of(arguments)

    @property
    def weights(self) -> int:
        """Number of weights, without the statistics of batch normalisation."""
        shapes = tensor_shapes(self.arguments).items()
        return sum(math.prod(shape) for name, shape in shapes if ".running_" not in name)

    @property
    def _folds(self) -> bool:
        return self.arguments.normalisation == "batch"

    def describe(self) -> str:
        """The network in a few words, for a person."""
        a = self.arguments
        words = [
            f"U-Net, {a.width} channels wide, {a.depth} poolings deep",
            "unpadded 3x3 convolutions" if a.padding == "valid" else "padded 3x3 convolutions",
        ]
        if self._folds:
            words.append("batch normalisation")
        bilinear = a.upsampling == "interpolation"
        words.append("bilinear up-sampling" if bilinear else "2x2 up-convolutions")
        return ", ".join(words)

    def alternatives(self) -> tuple[str, ...]:
        """The first of `MEASURABLE` that is installed."""
        return tuple(name for name in MEASURABLE if installed(name))[:1]

    def versions(self, runtime: str) -> dict[str, str]:
        """The runtime's version, and whether normalisation is folded."""
        return super().versions(runtime) | ({"normalisation": "folded"} if self._folds else {})

    def weight_copies(self, runtime: str) -> float:
        """Copies of the weights that are held at most, the folded one among them."""
        return super().weight_copies(runtime) + self._folds

    def inference_network(self, precision: Precision) -> UNet:
        """The network without batch normalisation."""
        # Folding rounds to float32, so float64, which is for proofs, goes without.
        folds = self._folds and precision is not Precision.FP64
        network: UNet = self.network
        return fold_batch_normalisation(network) if folds else network

    def graph(self) -> bytes:
        """The network, without batch normalisation, as an ONNX model."""
        from tilepipe.models.runtimes.graph import as_onnx

        return as_onnx(*folded(self.arguments, self.tensors))

    def live_bytes(
        self, geometry: Geometry, precision: Precision, runtime: str, device: str
    ) -> Callable[[int, int], int]:
        """Peak bytes of the tensors that are alive during a pass; see `Predictor.live_bytes`."""
        found = bytes_in_strips if _in_strips(runtime, device) else bytes_by_layers
        return lambda height, width: found(self.arguments, height, width, precision.itemsize)

    def takes_arrays(self, runtime: str) -> bool:
        """Whether a runtime takes and gives numpy's arrays; see `Predictor.takes_arrays`."""
        return runtime in MEASURABLE

    def open(self, device: str, precision: Precision, threads: int, runtime: str) -> Runtime:
        """Make the network ready on a device; see `Predictor.open`."""
        self.check(runtime, device, precision)
        if _in_strips(runtime, device):
            from tilepipe._torch import torch
            from tilepipe.models.runtimes.strips import Strips

            network = self.inference_network(precision)
            return Strips(network, torch.device(device), precision.dtype)
        if runtime == "torch" and device.startswith("cuda") and precision.is_half:
            from tilepipe._torch import torch
            from tilepipe.models.runtimes.fused import Fused, can_fuse

            if can_fuse(device, precision.dtype):
                network = self.inference_network(precision)
                return Fused(network, torch.device(device), precision.dtype)
        if runtime == "openvino":
            from tilepipe.models.runtimes.openvino_cpu import OpenVino

            return OpenVino(self.graph(), precision, threads)
        if runtime == "onnxruntime":
            from tilepipe.models.runtimes.onnxruntime_cpu import OnnxRuntime

            return OnnxRuntime(self.graph(), threads)
        return super().open(device, precision, threads, runtime)


def _in_strips(runtime: str, device: str) -> bool:
    """Whether torch computes in strips: on a CPU, where fresh memory costs time."""
    return runtime == "torch" and device == "cpu"
