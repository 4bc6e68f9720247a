"""U-Nets of tilepipe: computed by torch, or by what is faster on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from tilepipe._torch import torch
from tilepipe.grid import Geometry
from tilepipe.models.fold import fold_batch_normalisation
from tilepipe.models.geometry import geometry_of
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.runtimes import MEASURABLE, RUNTIMES, Runtime, installed
from tilepipe.models.runtimes.strips import Strips, pass_bytes
from tilepipe.models.unet import UNet, UNetArguments


class UNetPredictor(Predictor):
    """A U-Net. Batch normalisation is folded into its convolutions when it is opened."""

    arguments_type = UNetArguments
    runtimes = tuple(RUNTIMES)
    quantisable = True
    arguments: UNetArguments
    network: UNet

    @classmethod
    def build(cls, arguments: UNetArguments) -> UNet:
        """A U-Net with random weights."""
        return UNet(arguments)

    @classmethod
    def geometry(cls, arguments: UNetArguments) -> Geometry:
        """The geometry counted layer by layer."""
        return geometry_of(arguments)

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
        return fold_batch_normalisation(self.network) if folds else self.network

    def graph(self) -> bytes:
        """The network, without batch normalisation, as an ONNX model."""
        from tilepipe.models.runtimes.graph import as_onnx

        return as_onnx(self.inference_network(Precision.FP32))

    def live_bytes(
        self, geometry: Geometry, precision: Precision, runtime: str, device: str
    ) -> Callable[[int, int], int]:
        """Peak bytes of the tensors that are alive during a pass; see `Predictor.live_bytes`."""
        if not _in_strips(runtime, device):
            return super().live_bytes(geometry, precision, runtime, device)
        item = precision.dtype.itemsize
        return lambda height, width: pass_bytes(self.arguments, height, width, item)

    def open(
        self, device: torch.device, precision: Precision, threads: int, runtime: str
    ) -> Runtime:
        """Make the network ready on a device; see `Predictor.open`."""
        if _in_strips(runtime, device.type):
            self.check(runtime, str(device), precision)
            return Strips(self.inference_network(precision), device, precision.dtype)
        if runtime not in MEASURABLE:
            return super().open(device, precision, threads, runtime)
        self.check(runtime, str(device), precision)
        network = self.inference_network(precision)
        if runtime == "openvino":
            from tilepipe.models.runtimes.graph import as_onnx
            from tilepipe.models.runtimes.openvino_cpu import OpenVino

            return OpenVino(as_onnx(network), precision, threads)
        from tilepipe.models.runtimes.onnxruntime_cpu import OnnxRuntime

        return OnnxRuntime(network, threads)


def _in_strips(runtime: str, device: str) -> bool:
    """Whether torch computes in strips: on a CPU, where fresh memory costs time."""
    return runtime == "torch" and device == "cpu"
