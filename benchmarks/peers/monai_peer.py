"""MONAI's `sliding_window_inference`, with its defaults: overlap 0.25, constant blending.

For networks whose output is as large as their input: the padded U-Net. Windows of 512 overlapping
by a quarter, which are 384 apart. The whole image is one tensor, as the function wants it, in the
precision of the network.
"""

from __future__ import annotations

import tifffile
import torch
from monai.inferers import sliding_window_inference
from network import Network, arguments


def main() -> None:
    """Read, infer, write."""
    parser = arguments(__doc__)
    parser.add_argument("--window", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = Network(options.model, options.precision)
    with torch.inference_mode():
        pixels = torch.from_numpy(tifffile.imread(options.image, level=0))[None]
        image = network.normalised(pixels)
        del pixels
        logits = sliding_window_inference(
            image, roi_size=(options.window,) * 2, sw_batch_size=options.batch,
            predictor=network.unet,
        )  # fmt: skip
        del image
        labels = logits.argmax(1)[0].to(torch.uint8).numpy()
    tifffile.imwrite(options.output, labels, tile=(512, 512), compression="zlib", metadata=None)


if __name__ == "__main__":
    main()
