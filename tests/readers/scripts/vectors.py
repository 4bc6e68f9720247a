"""What geopandas makes of objects, as JSON: PATH."""

import json
import sys
import warnings

import geopandas

warnings.simplefilter("ignore")


def main():
    path = sys.argv[1]
    read = geopandas.read_parquet if path.endswith(".parquet") else geopandas.read_file
    try:
        found = read(path)
        facts = {
            "crs": found.crs.to_epsg() if found.crs else None,
            "bounds": [float(n) for n in found.total_bounds],
            "classes": [str(name) for name in found.get("class", [])],
            "areas": [float(n) for n in found.area],
            "valid": bool(found.is_valid.all()),
            "columns": list(found.columns),
        }
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}"[:400]}
    sys.stdout.write(json.dumps(facts) + "\n")


main()
