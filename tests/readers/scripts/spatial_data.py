"""What spatialdata makes of a zarr, as JSON: PATH."""

import json
import sys
import warnings

import spatialdata
from spatialdata.transformations import get_transformation

warnings.simplefilter("ignore")


def facts_of(found):
    facts = {
        "images": list(found.images),
        "labels": list(found.labels),
        "shapes": {name: len(frame) for name, frame in found.shapes.items()},
        "tables": {name: list(table.shape) for name, table in found.tables.items()},
        "systems": sorted(found.coordinate_systems),
    }
    for name, frame in found.shapes.items():
        facts["bounds"] = [float(n) for n in frame.total_bounds]
        facts["transformations"] = sorted(get_transformation(found[name], get_all=True))
        moved = spatialdata.transform(frame, to_coordinate_system="micrometer")
        facts["bounds_um"] = [float(n) for n in moved.total_bounds]
    for labels in found.labels.values():
        extent = spatialdata.get_extent(labels, coordinate_system="global")
        facts["labels_extent"] = [float(n) for axis in "xy" for n in extent[axis]]
    for table in found.tables.values():
        facts["classes"] = [str(name) for name in table.obs["class"]]
        facts["annotates"] = table.uns["spatialdata_attrs"]["region"]
    return facts


def main():
    try:
        facts = facts_of(spatialdata.read_zarr(sys.argv[1]))
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}"[:400]}
    sys.stdout.write(json.dumps({"version": spatialdata.__version__, **facts}) + "\n")


main()
