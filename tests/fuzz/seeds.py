"""Small sound files to begin with, written by tilepipe and by the libraries that it reads with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.making import make_image, make_model

Files = dict[str, bytes]
"""A file, or a folder of files, by path; the first path is what is opened."""

SIDE = 96


def read_files(path: Path) -> Files:
    """What lies at a path, as `Files`."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "lock")
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files}


def tiffs(folder: Path) -> list[Files]:
    """TIFFs of each codec, layout and maker that the readers know."""
    import tifffile

    colour = make_image(SIDE, SIDE)
    grey = colour[..., 0]
    tiled: dict[str, Any] = {"tile": (32, 32), "metadata": None}
    resolution: dict[str, Any] = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
    wanted: list[tuple[str, Any, dict[str, Any]]] = [
        ("raw", colour, {**resolution, "photometric": "rgb", "metadata": None}),
        ("strips", grey, {"rowsperstrip": 16, "compression": "zlib", "metadata": None}),
        ("big", colour, {**tiled, "bigtiff": True, "photometric": "rgb", "compression": "zlib"}),
        ("motorola", grey, {**tiled, "byteorder": ">", "compression": "lzw", "predictor": True}),
        ("float", grey.astype(np.float32), {**tiled, "compression": "zstd", "predictor": True}),
        ("deep", grey.astype(np.uint16), {**tiled, "compression": "packbits"}),
        ("bits", grey > 100, {**tiled}),
        ("palette", grey, {**tiled, "photometric": "palette",
                           "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 80}),
        ("alpha", make_image(SIDE, SIDE, 4), {**tiled, "photometric": "rgb", "extrasamples": [2],
                                              "compression": "zlib"}),
        ("planes", colour.transpose(2, 0, 1), {**tiled, "photometric": "rgb",
                                               "planarconfig": "separate", "compression": "zlib"}),
        ("imagej", grey, {"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "um"}}),
        ("ome.ome", colour, {"tile": (32, 32), "photometric": "rgb", "compression": "zlib",
                             "metadata": {"axes": "YXS", "PhysicalSizeX": 0.25,
                                          "PhysicalSizeY": 0.25}}),
        ("channels.ome", colour.transpose(2, 0, 1), {"metadata": {"axes": "CYX"}}),
    ]  # fmt: skip
    for codec in ("jpeg", "jpeg2000", "lzw", "zlib", "zstd", "lzma", "webp", "png", "deflate",
                  "lerc", "jpegxl"):  # fmt: skip
        wanted.append((codec, colour, {**tiled, "photometric": "rgb", "compression": codec}))
    found = []
    for name, pixels, options in wanted:
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, pixels, **options)
        found.append(read_files(path))
    return [*found, *_pyramids(folder), *_geotiffs(folder)]


def _pyramids(folder: Path) -> list[Files]:
    import tifffile

    pixels = make_image(2 * SIDE, 2 * SIDE)
    found = []
    path = folder / "slide.svs"
    description = "Aperio Image Library v1\n192x192 (32x32) JPEG Q=70|AppMag = 40|MPP = 0.2500"
    with tifffile.TiffWriter(path) as file:
        for level, tile in ((1, 32), (2, 32)):
            options = {"tile": (tile, tile), "compression": "jpeg", "photometric": "rgb"}
            file.write(pixels[::level, ::level], description=description, metadata=None, **options)
        file.write(pixels[::4, ::4], description="Aperio label", metadata=None, photometric="rgb")
    found.append(read_files(path))
    path = folder / "pyramid.ome.tif"
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (32, 32), "compression": "zlib", "photometric": "rgb"}
        file.write(pixels, subifds=1, metadata={"axes": "YXS", "PhysicalSizeX": 0.5}, **options)
        file.write(pixels[::2, ::2], subfiletype=1, **options)
    found.append(read_files(path))
    return found


def _geotiffs(folder: Path) -> list[Files]:
    import rasterio
    from rasterio.transform import from_origin

    pixels = make_image(SIDE, SIDE).transpose(2, 0, 1)
    found = []
    for name, driver, options in (
        ("deflate", "GTiff", {"tiled": True, "blockxsize": 32, "blockysize": 32, "nodata": 7}),
        ("jpeg", "GTiff", {"tiled": True, "blockxsize": 32, "blockysize": 32,
                           "compress": "JPEG", "photometric": "YCBCR"}),
        ("strips", "GTiff", {"compress": "LZW", "interleave": "band"}),
        ("masked", "GTiff", {"compress": "ZSTD"}),
        ("cog", "COG", {"compress": "DEFLATE", "blocksize": 64}),
    ):  # fmt: skip
        path = folder / f"geo_{name}.tif"
        if name == "deflate":
            options["compress"] = "DEFLATE"
        profile = {"height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8",
                   "crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10)}  # fmt: skip
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver=driver, **profile, **options) as file,
        ):
            file.write(pixels)
            if name == "masked":
                file.write_mask(pixels[0] > 60)
        if name == "deflate":
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2], rasterio.enums.Resampling.nearest)
        found.append(read_files(path))
    return found


def others(folder: Path) -> list[Files]:
    """PNG, JPEG, JPEG 2000, BMP, GIF and VRT."""
    import rasterio
    from PIL import Image

    colour = make_image(SIDE, SIDE)
    found = []
    for name, pixels, options in (
        ("rgb.png", colour, {}),
        ("grey.png", colour[..., 0], {}),
        ("alpha.png", make_image(SIDE, SIDE, 4), {}),
        ("deep.png", colour[..., 0].astype(np.uint16) * 200, {}),
        ("rgb.jpg", colour, {"quality": 60}),
        ("progressive.jpg", colour, {"progressive": True}),
        ("grey.jpg", colour[..., 0], {}),
        ("rgb.bmp", colour, {}),
        ("rgb.jp2", colour, {}),
        ("palette.gif", colour[..., 0], {}),
    ):  # fmt: skip
        Image.fromarray(pixels).save(folder / name, **options)
        found.append(read_files(folder / name))
    palette = Image.fromarray(colour).convert("P")
    palette.info["transparency"] = 3
    palette.save(folder / "palette.png", transparency=3)
    found.append(read_files(folder / "palette.png"))
    with rasterio.open(folder / "part.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=1,
                       dtype="uint8") as file:  # fmt: skip
        file.write(colour[..., 0], 1)
    found.append({"mosaic.vrt": VRT.encode(), "part.tif": (folder / "part.tif").read_bytes()})
    return found


VRT = """<VRTDataset rasterXSize="150" rasterYSize="150">
  <SRS>EPSG:32633</SRS><GeoTransform>0,2,0,0,0,-2</GeoTransform>
  <VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue>
    <ComplexSource><SourceFilename relativeToVRT="1">part.tif</SourceFilename>
      <SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="96" ySize="96"/>
      <DstRect xOff="10" yOff="10" xSize="96" ySize="96"/><NODATA>3</NODATA>
    </ComplexSource>
  </VRTRasterBand>
</VRTDataset>
"""


def zarrs(folder: Path) -> list[Files]:
    """OME-Zarr 0.4 and 0.5 of several codecs, sharded too, and with a georeference and validity."""
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

    colour = make_image(SIDE, SIDE).transpose(2, 0, 1)
    variants: list[tuple[str, int, dict[str, Any]]] = [
        ("zstd", 3, {"compressors": [ZstdCodec()]}),
        ("blosc", 3, {"compressors": [BloscCodec(cname="lz4")]}),
        ("gzip", 3, {"compressors": [GzipCodec(), Crc32cCodec()]}),
        ("big", 3, {"serializer": BytesCodec(endian="big"), "compressors": None}),
        ("sharded", 3, {"shards": (3, 64, 64), "compressors": [ZstdCodec()]}),
        ("two", 2, {}),
        ("two_raw", 2, {"compressors": None}),
    ]
    import numcodecs

    for name in ("Zlib", "LZMA", "BZ2", "LZ4", "Blosc", "Zstd"):
        variants.append((f"two_{name}", 2, {"compressors": getattr(numcodecs, name)()}))
    variants.append(("two_delta", 2, {"filters": [numcodecs.Delta(dtype="u2")],
                                      "compressors": numcodecs.GZip()}))  # fmt: skip
    found = []
    for name, version, options in variants:
        path = folder / f"{name}.ome.zarr"
        root = zarr.open_group(path, mode="w", zarr_format=version)
        dtype = np.uint16 if name in ("big", "two_delta") else np.uint8
        for level in (0, 1):
            data = colour[:, :: 2**level, :: 2**level].astype(dtype)
            array = root.create_array(
                str(level), shape=data.shape, chunks=(3, 32, 32), dtype=dtype,
                **({**options, "shards": None} if level and "shards" in options else options),
            )  # fmt: skip
            array[...] = data
        root.attrs.update(_multiscales("0.5" if version == 3 else "0.4"))
        found.append(read_files(path))
    found.append(_converted(folder))
    return found


def _converted(folder: Path) -> Files:
    from tilepipe.images.convert import convert

    source = folder / "convert.tif"
    source.write_bytes(_geotiffs(folder)[3]["geo_masked.tif"])
    path = folder / "converted.ome.zarr"
    convert(source, path)
    return read_files(path)


def _multiscales(version: str) -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": name, "type": "space", "unit": "micrometer"} for name in "yx"
    ]
    datasets = [
        {"path": str(level), "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, 0.25 * 2**level, 0.25 * 2**level]}]}
        for level in (0, 1)
    ]  # fmt: skip
    multiscale = {"axes": axes, "datasets": datasets, "name": "image"}
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **multiscale}]}
    return {"ome": {"version": "0.5", "multiscales": [multiscale]}}


def models(folder: Path) -> list[Files]:
    """Model files of several networks, as safetensors and as ONNX."""
    from tilepipe.models.file import save_model
    from tilepipe.models.unet import UNetArguments

    found = []
    for name, arguments, options in (
        ("softmax", UNetArguments(width=2, depth=2), {}),
        ("planes", UNetArguments(width=2, depth=2, outputs=3, padding="same",
                                 normalisation="batch"), {"activation": "sigmoid"}),
        ("values", UNetArguments(width=2, depth=1, outputs=1, upsampling="interpolation",
                                 padding="same"), {"activation": "linear", "pixel_size_um": None}),
    ):  # fmt: skip
        path = folder / f"{name}.safetensors"
        save_model(path, make_model(arguments, **options))
        found.append(read_files(path))
    return found


def onnx_models(folder: Path) -> list[Files]:
    """Model files of ONNX networks."""
    from tests.models.making_onnx import input_spec, network, output_spec, write_unet
    from tilepipe.models import import_onnx, save_model
    from tilepipe.models.unet import UNetArguments

    found = []
    for name, arguments, options, inputs in (
        ("valid", UNetArguments(width=2, depth=1, outputs=3), {}, {}),
        ("nhwc", UNetArguments(width=2, depth=1, outputs=3, padding="same"),
         {"nhwc": True, "last": "Softmax"}, {"layout": "NHWC", "gives": "probabilities"}),
    ):  # fmt: skip
        bare = write_unet(folder / f"{name}_bare.onnx", network(arguments), **options)  # type: ignore[arg-type]
        model = import_onnx(bare, input_spec(), output_spec(), tile=188, **inputs)  # type: ignore[arg-type]
        path = folder / f"{name}.onnx"
        save_model(path, model)
        found.append(read_files(path))
    return found


def masks(folder: Path) -> list[Files]:
    """Masks with all that a run leaves beside them: plan, ledger, run, record."""
    import tilepipe
    from tests.making import save_tiny, write_tiff
    from tilepipe.models.unet import UNetArguments

    image = write_tiff(folder / "image.tif", make_image(200, 180))
    save_tiny(folder / "tiny.safetensors", UNetArguments(width=2, depth=2))
    found = []
    for name, options in (("one", {}), ("two", {"probabilities": "uint8"})):
        made = folder / f"{name}.ome.zarr"
        tilepipe.run(
            image, model=folder / "tiny.safetensors", outputs=[made], window=188, threads=1,
            precision="fp32", device="cpu", memory="2GB", **options,
        )  # fmt: skip
        record = folder / f"{name}.run.json"
        found.append({**read_files(made), record.name: record.read_bytes()})
    exported = folder / "three.ome.tif"
    tilepipe.run(
        image, model=folder / "tiny.safetensors", window=188, threads=1, memory="2GB",
        outputs=[exported, folder / "three.tif"],
    )  # fmt: skip
    for path in (exported, folder / "three.tif"):
        record = next(folder.glob("three*.run.json"))
        found.append({path.name: path.read_bytes(), record.name: record.read_bytes()})
    return found


def configurations(folder: Path) -> list[Files]:
    """Run configurations: those of `workflows/`, and one with every option."""
    found = [
        {path.name: path.read_bytes()}
        for path in sorted((Path(__file__).parents[2] / "workflows").glob("*.yaml"))
    ]
    text = (
        "model: tiny.safetensors\nwindow: 188\nmemory: 2GB\nprecision: fp32\nthreads: 1\n"
        "device: cpu\nlevel: 0\npixel-size: 0.25\nlike_image: false\nprobabilities: uint8\n"
        "retries: 1\nverify: 2\nallow_mixed: true\noutput: [mask.ome.zarr, mask.png]\n"
    )
    return [*found, {"all.yaml": text.encode()}]


SEEDS: dict[str, Callable[[Path], list[Files]]] = {
    "tiff": tiffs,
    "picture": others,
    "zarr": zarrs,
    "model": models,
    "onnx": onnx_models,
    "mask": masks,
    "config": configurations,
}
"""What makes the seeds of each family in an empty folder."""
