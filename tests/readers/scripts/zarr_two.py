"""What zarr 2, and an ome-zarr-py that is built on it, make of an OME-Zarr, as JSON: PATH."""

import json
import sys

import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader


def of_zarr(path):
    group = zarr.open_group(path, mode="r")
    array = group["0"]
    return {
        "shape": list(array.shape),
        "fill": str(array.fill_value),
        "classes": sorted({int(n) for n in array[::50, ::50].ravel()}),
        "attributes": sorted(group.attrs),
    }


def of_ome_zarr_py(path):
    return [
        {
            "levels": [list(level.shape) for level in node.data],
            "properties": {str(k): v for k, v in node.metadata.get("properties", {}).items()},
        }
        for node in Reader(parse_url(path))()
    ]


def main():
    facts = {"version": zarr.__version__}
    for function in (of_zarr, of_ome_zarr_py):
        try:
            found = function(sys.argv[1])
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:400]}
        facts[function.__name__.removeprefix("of_")] = found
    sys.stdout.write(json.dumps(facts) + "\n")


main()
