"""Make a model of clouds and cloud shadows from the networks that ukis-csmask carries.

    pip install "tilepipe[clouds]"
    python workflows/make_clouds_model.py out/clouds-6band.onnx

ukis-csmask (German Aerospace Center, Apache-2.0) holds U-Nets with an EfficientNet-B4 encoder for
Sentinel-2 and Landsat 5 to 9. This copies one of them out of the installed package, leaves its
height and width open, and adds the description that tilepipe needs. Nothing of ukis-csmask runs.

These networks cannot be tiled exactly: squeeze and excitation averages over the whole tile, 32
times. The description says so, and tilepipe repeats it with every plan. docs/clouds.md says how
far from exact they are.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata, resources
from pathlib import Path

from tilepipe import save_model
from tilepipe.images import PixelSize
from tilepipe.models import ClassSpec, InputSpec, OutputSpec, import_onnx

# Measured on a Sentinel-2 scene (docs/clouds.md): nearer to the whole image than their own tiles
# of 256, in less than half of the time.
TILE, MARGIN, STRIDE_FACTOR = 512, 64, 32

CLASSES = (
    ClassSpec("clear", "#000000"),
    ClassSpec("cloud", "#ffd400"),
    ClassSpec("cloud shadow", "#b000ff"),
)


def main() -> None:
    """Write the model and say what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument(
        "--bands", type=int, choices=[4, 6], default=6, help="blue, green, red, NIR (SWIR1, SWIR2)"
    )
    parser.add_argument(
        "--level", choices=["l1c", "l2a"], default="l1c", help="top of atmosphere, or surface"
    )
    parser.add_argument(
        "--offset",
        type=int,
        default=0,
        help="added to the pixels before they are divided by 10000: -1000 for Sentinel-2 products "
        "of processing baseline 04.00 and later (since January 2022), unless it was removed",
    )
    given = parser.parse_args()

    package = resources.files("ukis_csmask")
    stem = f"model_{given.bands}b_{given.level}"
    facts = json.loads((package / f"{stem}.json").read_text())
    mean, std = facts["data"]["dataset_statistics"]["img"]
    names = facts["data"]["dataset_statistics"]["band_names"]
    with resources.as_file(package / f"{stem}.onnx") as network:
        model = import_onnx(
            network,
            InputSpec(
                bands=given.bands,
                dtype="uint16",
                scale=1e-4,
                # (x + offset) / 10000 - mean = x / 10000 - (mean - offset / 10000)
                mean=tuple(value - given.offset / 10000 for value in mean),
                std=tuple(std),
                pixel_size=PixelSize(30.0, 30.0, "meter"),
            ),
            OutputSpec("softmax", CLASSES, background=0),
            tile=TILE,
            margin=MARGIN,
            stride_factor=STRIDE_FACTOR,
            exact=False,
            about={
                "source": f"ukis-csmask {metadata.version('ukis-csmask')}, {stem}.onnx "
                f"(model {facts['model']['version']}), https://github.com/dlr-eoc/ukis-csmask",
                "licence": "Apache-2.0",
                "copyright": "2020 German Aerospace Center (DLR), German Remote Sensing Data "
                "Center, Department: Geo-Risks and Civil Security",
                "changes": "description added; height and width left open",
                "bands": names,
                "reflectance": {"l1c": "top of atmosphere", "l2a": "surface"}[given.level],
                "offset": given.offset,
                "data": "SPARCS, CloudSEN12+ and samples of its authors",
                "paper": "Wieland, Li and Martinis 2019, https://doi.org/10.1016/j.rse.2019.05.022",
            },
        )
    given.path.parent.mkdir(parents=True, exist_ok=True)
    save_model(given.path, model)
    print(f"{given.path}: {', '.join(names)} as uint16, reflectance times 10000, at about 30 m")


if __name__ == "__main__":
    main()
