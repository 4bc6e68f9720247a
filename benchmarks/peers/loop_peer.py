"""A plain PyTorch loop, as a competent person writes it: the whole image in memory, tile by tile.

Tiles of 572 in, 388 out, 388 apart; the image is mirrored at its edges. Labels are taken from the
logits at once, so that no plane of floats is kept.
"""

from __future__ import annotations

import numpy as np
import tifffile
import torch
from network import MARGIN, OUTPUT, TILE, Network, arguments


def main() -> None:
    """Read, loop, write."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    network = Network(options.model, options.precision)
    image = tifffile.imread(options.image, level=0)
    height, width = image.shape[:2]
    rows, columns = -(-height // OUTPUT), -(-width // OUTPUT)
    pad = [(MARGIN, n * OUTPUT - s + MARGIN) for n, s in ((rows, height), (columns, width))]
    image = np.pad(image, (*pad, (0, 0)), mode="reflect")
    mask = np.empty((rows * OUTPUT, columns * OUTPUT), np.uint8)
    corners = [(y * OUTPUT, x * OUTPUT) for y in range(rows) for x in range(columns)]
    with torch.inference_mode():
        for first in range(0, len(corners), options.batch):
            some = corners[first : first + options.batch]
            tiles = np.stack([image[y : y + TILE, x : x + TILE] for y, x in some])
            labels = network(torch.from_numpy(tiles)).argmax(1).to(torch.uint8).numpy()
            for (y, x), tile in zip(some, labels, strict=True):
                mask[y : y + OUTPUT, x : x + OUTPUT] = tile
    tifffile.imwrite(
        options.output, mask[:height, :width], tile=(512, 512), compression="zlib", metadata=None
    )


if __name__ == "__main__":
    main()
