"""What zarr 2 makes of an OME-Zarr, as JSON: PATH."""

import json
import sys

import zarr


def main():
    try:
        group = zarr.open_group(sys.argv[1], mode="r")
        facts = {"arrays": {name: list(array.shape) for name, array in group.arrays()}}
        facts["attributes"] = sorted(group.attrs)
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}"[:400]}
    sys.stdout.write(json.dumps({"version": zarr.__version__, **facts}) + "\n")


main()
