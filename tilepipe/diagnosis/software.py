"""Check versions of packages, and the codecs and drivers of readers and writers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

from tilepipe.diagnosis.findings import Finding

CODECS = {
    "jpeg8": "JPEG, as in most slides",
    "jpeg2k": "JPEG 2000, as in some slides",
    "lzw": "LZW, as in many TIFFs",
    "deflate": "Deflate, as in many TIFFs",
    "zstd": "Zstandard, as in recent TIFFs",
    "lerc": "LERC, as in some GeoTIFFs",
    "jpegxl": "JPEG XL, as in a few TIFFs",
    "webp": "WebP, as in a few TIFFs",
}
"""Of imagecodecs, by which tifffile decodes."""
NEEDED = ("jpeg8", "lzw", "deflate")
DRIVERS = {
    "GTiff": "GeoTIFF", "COG": "cloud-optimised GeoTIFF, the output .tif", "VRT": "VRT",
    "JP2OpenJPEG": "JPEG 2000, as Sentinel-2 scenes are", "PNG": "PNG",
}  # fmt: skip
"""Of GDAL."""
WRITERS = ("GTiff", "COG")


def check_packages(asked: list[str] | None = None) -> list[Finding]:
    """Check Python and every package that tilepipe needs against the oldest that will do.

    Parameters
    ----------
    asked
        Requirements [those of the tilepipe that is installed].
    """
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        own = version("tilepipe")
        asked = (requires("tilepipe") or []) if asked is None else asked
        python = metadata("tilepipe")["Requires-Python"] or ""
    except PackageNotFoundError:
        return [
            Finding("versions", "slow", "tilepipe is not installed here, so versions were not "
                    "checked", "pip install . in its folder")
        ]  # fmt: skip
    findings = []
    here = platform.python_version()
    if not SpecifierSet(python).contains(here, prereleases=True):
        findings.append(
            Finding("versions", "fails", f"Python {here}, and tilepipe needs {python}",
                    "install another Python")
        )  # fmt: skip
    wanted = [Requirement(line) for line in asked]
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in wanted:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            what = f"{requirement.name} is missing"
        else:
            if requirement.specifier.contains(found, prereleases=True):
                continue
            what = f"{requirement.name} is {found}, and tilepipe needs {requirement.specifier}"
        command = f"pip install '{requirement.name}{requirement.specifier}'"
        findings.append(Finding("versions", "fails", what, command))
    if not findings:
        what = f"tilepipe {own}, Python {here}; all {len(wanted)} required packages fit"
        findings.append(Finding("versions", "ok", what))
    return findings


def check_codecs(library: Any = None) -> list[Finding]:
    """Check that images and chunks decode, by decoding something small with each codec.

    Parameters
    ----------
    library
        With functions as imagecodecs has them [imagecodecs].
    """
    import imagecodecs
    import numpy as np

    library = library or imagecodecs

    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    missing = []
    for name in CODECS:
        try:
            encoded = getattr(library, f"{name}_encode")(pixels)
            decoded = getattr(library, f"{name}_decode")(encoded)
            size = decoded.size if isinstance(decoded, np.ndarray) else len(decoded)
            if size != pixels.size:
                raise ValueError(f"gave {size} values for {pixels.size}")
        except Exception as error:  # ImportError, or whatever a broken library raises
            missing.append((name, f"{type(error).__name__}"))
    findings = [
        Finding(
            "codecs", "fails" if name in NEEDED else "slow",
            f"{CODECS[name]}: cannot be decoded here ({why})",
            "pip install --force-reinstall imagecodecs",
        )
        for name, why in missing
    ]  # fmt: skip
    findings += _chunks(pixels.tobytes())
    if not findings:
        names = ", ".join(what.split(",")[0] for what in CODECS.values())
        findings.append(Finding("codecs", "ok", f"{names}; chunks by Zstandard and Blosc"))
    return findings


def _chunks(content: bytes) -> list[Finding]:
    import numcodecs

    makers: dict[str, Callable[[], Any]] = {
        "Zstandard": lambda: numcodecs.Zstd(),
        "Blosc": lambda: numcodecs.Blosc(),
    }
    findings = []
    for name, make in makers.items():
        try:
            codec = make()
            if bytes(codec.decode(codec.encode(content))) != content:
                raise ValueError("other bytes")
        except Exception as error:
            findings.append(
                Finding("codecs", "fails", f"{name}, which compresses OME-Zarr, does not "
                        f"work here ({type(error).__name__})",
                        "pip install --force-reinstall numcodecs")
            )  # fmt: skip
    return findings


def check_gdal(drivers: Collection[str] | None = None) -> list[Finding]:
    """Check the drivers of GDAL, and that PROJ finds its database.

    Parameters
    ----------
    drivers
        Names [of the GDAL that is installed].
    """
    import rasterio
    from rasterio.crs import CRS
    from rasterio.env import Env

    with Env() as env:
        there = set(env.drivers()) if drivers is None else drivers
    findings = [
        Finding(
            "GDAL", "fails" if name in WRITERS else "slow", f"has no driver {name}: {what}",
            "pip install --force-reinstall rasterio",
        )
        for name, what in DRIVERS.items()
        if name not in there
    ]  # fmt: skip
    try:
        CRS.from_epsg(32632).to_wkt()
    except Exception as error:  # rasterio raises many
        findings.append(
            Finding("GDAL", "fails", "its PROJ does not find coordinate systems "
                    f"({' '.join(str(error).split())[:120]}), so georeferenced images cannot be "
                    "placed", "unset PROJ_LIB, PROJ_DATA and GDAL_DATA: those of another "
                    "installation get in the way")
        )  # fmt: skip
    if not findings:
        text = f"{rasterio.__gdal_version__} with {', '.join(DRIVERS)}; coordinate systems"
        findings.append(Finding("GDAL", "ok", text))
    return findings
