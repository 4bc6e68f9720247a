"""What rasterio, rio-cogeo, xarray and rioxarray make of a path, as JSON: PATH [ROW,COLUMN]..."""

import json
import sys
import warnings

import rasterio
import rioxarray
import xarray

warnings.simplefilter("ignore")


def of_rasterio(path, places):
    with rasterio.open(path) as dataset:
        facts = {
            "driver": dataset.driver,
            "shape": [dataset.count, *dataset.shape],
            "crs": dataset.crs.to_epsg() if dataset.crs else None,
            "transform": list(dataset.transform)[:6],
            "nodata": dataset.nodata,
            "names": list(dataset.descriptions),
            "overviews": dataset.overviews(1) if dataset.count else [],
            "subdatasets": len(dataset.subdatasets),
        }
        if dataset.count:
            facts["interpretation"] = [c.name for c in dataset.colorinterp]
            read = dataset.read(1)
            facts["values"] = [float(read[y, x]) for y, x in places]
        if dataset.count and "palette" in facts["interpretation"]:
            facts["colours"] = {k: v for k, v in dataset.colormap(1).items() if k in (0, 1, 2, 3)}
        return facts


def of_rio_cogeo(path, places):
    from rio_cogeo.cogeo import cog_validate

    valid, errors, warned = cog_validate(path, strict=True, quiet=True)
    return {"valid": valid, "said": [*errors, *warned]}


def of_rioxarray(path, places):
    with rioxarray.open_rasterio(path, masked=True) as found:
        return _of_array(found, places)


def of_xarray(path, places):
    with xarray.open_zarr(path, consolidated=False) as found:
        names = [str(n) for n in found.data_vars]
        return {"variables": names, **_of_array(found[names[0]], places)}


def of_xarray_tree(path, places):
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as found:
        return {"groups": list(found.groups)}


def _of_array(array, places):
    return {
        "shape": list(array.shape),
        "dims": [str(d) for d in array.dims],
        "crs": array.rio.crs.to_epsg() if array.rio.crs else None,
        "transform": list(array.rio.transform())[:6],
        "values": [str(float(array.squeeze()[..., y, x].min())) for y, x in places],
        "attributes": {
            k: str(v) for k, v in array.attrs.items() if k.startswith(("flag_", "CLASS_"))
        },
    }


def main():
    path = sys.argv[1]
    places = [[int(n) for n in text.split(",")] for text in sys.argv[2:]]
    facts = {"gdal": rasterio.__gdal_version__}
    for function in (of_rasterio, of_rio_cogeo, of_rioxarray, of_xarray, of_xarray_tree):
        try:
            found = function(path, places)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        facts[function.__name__.removeprefix("of_")] = found
    sys.stdout.write(json.dumps(facts) + "\n")


main()
