"""`dask.array.map_overlap` with the threaded scheduler: chunks of 388 with 92 around them.

The image is read lazily, by its own tiles, and the mask goes to Zarr chunk by chunk. There are as
many Dask threads as cores, and each pass takes one (`OMP_NUM_THREADS`, set before torch is
imported): with the defaults, every Dask thread would start as many threads as there are cores.
``--threads-per-pass`` tells it otherwise.

At the image's edge, Dask's ``reflect`` repeats the outermost pixel and numpy's does not.
"""

from __future__ import annotations

import os
import sys

_PASS = "--threads-per-pass"
os.environ["OMP_NUM_THREADS"] = sys.argv[sys.argv.index(_PASS) + 1] if _PASS in sys.argv else "1"

import dask.array as da  # noqa: E402
import numpy as np  # noqa: E402
import tifffile  # noqa: E402
import torch  # noqa: E402
from network import MARGIN, OUTPUT, Network, arguments  # noqa: E402


def main() -> None:
    """Build the graph and compute it into the mask."""
    parser = arguments(__doc__)
    parser.add_argument(_PASS, type=int, default=1)
    parser.add_argument("--chunk", type=int, default=OUTPUT, help="388 and every 16 more")
    options = parser.parse_args()
    network = Network(options.model, options.precision)

    def segment(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = network(torch.from_numpy(np.ascontiguousarray(pixels))[None])
            return logits.argmax(1)[0].to(torch.uint8).numpy()

    image = da.from_zarr(tifffile.imread(options.image, level=0, aszarr=True))
    height, width = image.shape[:2]
    # The network takes certain sizes only, so the last chunks are filled up.
    chunk = min(options.chunk, OUTPUT + -(-(max(height, width) - OUTPUT) // 16) * 16)
    whole = da.pad(image, ((0, -height % chunk), (0, -width % chunk), (0, 0)), mode="reflect")
    labels = da.map_overlap(
        segment, whole.rechunk((chunk, chunk, -1)), depth=(MARGIN, MARGIN, 0),
        boundary=("reflect", "reflect", "none"), trim=False, drop_axis=2, dtype=np.uint8,
        chunks=(chunk, chunk), meta=np.empty((0, 0), np.uint8),
    )  # fmt: skip
    labels[:height, :width].rechunk((chunk, chunk)).to_zarr(
        str(options.output), compute=False
    ).compute(scheduler="threads", num_workers=options.threads)


if __name__ == "__main__":
    main()
