"""What OpenSlide, tiffslide, large_image and tifffile make of a slide.

As JSON: PATH [ROW,COLUMN]... Each reads the pixels at the places as a viewer would show them.
"""

import json
import sys

import numpy as np


def of_openslide(path, places):
    import openslide

    with openslide.OpenSlide(path) as slide:
        return _of_slide(slide, places) | {"library": openslide.__library_version__}


def of_tiffslide(path, places):
    import tiffslide

    with tiffslide.TiffSlide(path) as slide:
        return _of_slide(slide, places)


def _of_slide(slide, places):
    mpp = [slide.properties.get(f"{slide.__class__.__name__.lower()}.mpp-{axis}") for axis in "yx"]
    return {
        "levels": [list(size[::-1]) for size in slide.level_dimensions],
        "mpp": [None if n is None else float(n) for n in mpp],
        "colours": [
            [np.asarray(slide.read_region((x, y), level, (1, 1)))[0, 0].tolist() for y, x in places]
            for level in range(slide.level_count)
        ],
    }


def of_large_image(path, places):
    import large_image

    source = large_image.open(path)
    metadata = source.getMetadata()
    shown, _ = source.getRegion(format=large_image.constants.TILE_FORMAT_NUMPY)
    return {
        "source": source.name,
        "levels": metadata["levels"],
        "size": [metadata["sizeY"], metadata["sizeX"]],
        "mm": [metadata["mm_y"], metadata["mm_x"]],
        "channels": metadata.get("channels"),
        "colours": [shown[y, x].tolist() for y, x in places],
    }


def of_tifffile(path, places):
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        values = series.asarray()
        return {
            "kind": series.kind,
            "axes": series.axes,
            "levels": [list(level.shape) for level in series.levels],
            "values": [values[..., y, x].tolist() for y, x in places],
        }


def main():
    path = sys.argv[1]
    places = [[int(n) for n in text.split(",")] for text in sys.argv[2:]]
    facts = {}
    for function in (of_openslide, of_tiffslide, of_large_image, of_tifffile):
        try:
            found = function(path, places)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        facts[function.__name__.removeprefix("of_")] = found
    sys.stdout.write(json.dumps(facts, default=str) + "\n")


main()
