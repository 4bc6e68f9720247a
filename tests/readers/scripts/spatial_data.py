"""What spatialdata makes of an OME-Zarr as people would read it, as JSON: PATH."""

import json
import sys
import warnings

import spatialdata

warnings.simplefilter("ignore")


def main():
    try:
        found = spatialdata.read_zarr(sys.argv[1])
        facts = {
            "images": list(found.images),
            "labels": list(found.labels),
            "shapes": {k: len(v) for k, v in found.shapes.items()},
            "tables": list(found.tables),
        }
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}"[:400]}
    sys.stdout.write(json.dumps({"version": spatialdata.__version__, **facts}) + "\n")


main()
