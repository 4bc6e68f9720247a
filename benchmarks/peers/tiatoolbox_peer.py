"""TIAToolbox's `SemanticSegmentor`: patches of 572 in, 388 out, 388 apart, over the whole slide.

The slide itself is given to it, and its own reader reads it, at level 0. No tissue mask is made,
because the other tools compute the whole slide too. The mask is written as Zarr. The network is
wrapped as the models of TIAToolbox are: ``infer_batch`` gives probabilities.
"""

from __future__ import annotations

import shutil

import numpy as np
import torch

# The compiled part of torchvision may be absent (see install.py); its Python part wants the names
# of these operators before it can be imported. Nothing calls them.
if not hasattr(torch.ops.torchvision, "nms"):
    _TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _TORCHVISION.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from network import OUTPUT, TILE, Network, arguments
from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC


class Wrapped(ModelABC):
    """Our network as a model of TIAToolbox."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.class_dict = {0: "background", 1: "nucleus"}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of pixels."""
        return self.network(pixels)

    @staticmethod
    def infer_batch(model: Wrapped, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """Probabilities (N, h, w, classes) of pixels (N, H, W, bands)."""
        with torch.inference_mode():
            shares = torch.softmax(model(batch_data.to(device)).float(), 1)
        return shares.permute(0, 2, 3, 1).cpu().numpy()

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        """Labels of probabilities."""
        return image.argmax(-1)


def main() -> None:
    """Run the engine, and put its mask where it is expected."""
    parser = arguments(__doc__)
    parser.add_argument("--loaders", type=int, default=0, help="processes that read (num_workers)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = SemanticSegmentor(
        model=Wrapped(Network(options.model, options.precision)),
        batch_size=options.batch, num_workers=options.loaders, device="cpu", verbose=False,
    )  # fmt: skip
    level_0 = [{"units": "baseline", "resolution": 1.0}]
    folder = options.output.with_name(f"{options.output.name}.run")
    shutil.rmtree(folder, ignore_errors=True)
    made = engine.run(
        [options.image], patch_mode=False, auto_get_mask=False, output_type="zarr",
        save_dir=folder, overwrite=True,
        ioconfig=IOSegmentorConfig(
            input_resolutions=level_0, output_resolutions=level_0, patch_input_shape=(TILE, TILE),
            patch_output_shape=(OUTPUT, OUTPUT), stride_shape=(OUTPUT, OUTPUT),
        ),
    )  # fmt: skip
    (result,) = made.values()
    shutil.move(result, options.output)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
