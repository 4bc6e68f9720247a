"""geoai's `predict_geotiff`, with its defaults: spline blending, an overlap of a quarter of a tile.

For networks whose output is as large as their input: the padded U-Net. It reads the GeoTIFF tile by
tile, and holds the sums of logits and weights of the whole image in float64. Its tiles are 256 by
default; larger ones are tried.
"""

from __future__ import annotations

import numpy as np
import torch
from geoai.inference import predict_geotiff
from network import Network, arguments


def main() -> None:
    """Predict, and write labels."""
    parser = arguments(__doc__)
    parser.add_argument("--tile", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = Network(options.model, options.precision)
    scale = np.float32(network.scale)
    mean, std = (t.numpy()[0] for t in (network.mean, network.std))
    predict_geotiff(
        network.unet, str(options.image), str(options.output), tile_size=options.tile,
        overlap=options.tile // 4, batch_size=options.batch, num_classes=len(network.classes),
        output_dtype="uint8", output_nodata=255, compress="deflate", device="cpu", verbose=False,
        preprocess_fn=lambda pixels: (pixels * scale - mean) / std,
        postprocess_fn=lambda logits: logits.argmax(0).astype(np.uint8),
    )  # fmt: skip


if __name__ == "__main__":
    main()
