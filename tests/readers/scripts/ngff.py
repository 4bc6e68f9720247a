"""What ome-zarr-py, ome-zarr-models and ngio say of an OME-Zarr, as JSON: PATH."""

import json
import sys

import ome_zarr_models
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader


def of_ome_zarr_py(path):
    nodes = list(Reader(parse_url(path))())
    return [
        {
            "levels": [list(level.shape) for level in node.data],
            "name": node.metadata.get("name"),
            "colours": {
                str(k): [round(255 * c) if isinstance(c, float) else c for c in v]
                for k, v in node.metadata.get("color", {}).items()
            },
            "properties": {str(k): v for k, v in node.metadata.get("properties", {}).items()},
            "axes": [axis["name"] for axis in node.metadata.get("axes", [])],
        }
        for node in nodes
    ]


def of_ome_zarr_models(path):
    group = ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))
    return {"type": type(group).__name__, "version": group.ome_zarr_version}


def of_ngio(path):
    import ngio  # once it is there, ome-zarr-models refuses OME-Zarr 0.4

    container = ngio.open_ome_zarr_container(path)
    image = container.get_image()
    return {
        "type": type(container).__name__,
        "levels": container.level_paths,
        "pixel": [image.pixel_size.y, image.pixel_size.x],
        "unit": str(image.space_unit),
        "shape": list(image.shape),
        "labels": container.list_labels(),
    }


def of_ngio_label(path):
    from ngio import open_label

    label = open_label(path)
    return {"shape": list(label.shape), "pixel": [label.pixel_size.y, label.pixel_size.x]}


def tried(function, path):
    try:
        return function(path)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def main():
    path = sys.argv[1]
    facts = {
        function.__name__.removeprefix("of_"): tried(function, path)
        for function in (of_ome_zarr_py, of_ome_zarr_models, of_ngio, of_ngio_label)
    }
    sys.stdout.write(json.dumps(facts, default=str) + "\n")


main()
