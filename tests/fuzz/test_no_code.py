"""No file makes tilepipe run code, reach the network, or read files that it was not given."""

from __future__ import annotations

import html
import json
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
import zarr

from tests.making import make_image, write_tiff
from tests.models.making_onnx import network, node, onnx, write, write_unet
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.models.file import import_state_dict, load_model
from tilepipe.models.unet import UNetArguments
from tilepipe.options import read_yaml


class Evil:
    """A pickle of it writes the file ``marker`` when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code out of a file was run"


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address, and who asked there."""
    asked: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            asked.append("somebody")
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    assert not asked, "the network was asked on behalf of a file"


def test_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.onnx"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_under_any_name(tmp_path: Path, marker: Path, name: str, legacy: bool) -> None:
    path = tmp_path / name
    torch.save({"w": Evil(marker)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError):
        load_model(path)
    with pytest.raises(InputError, match="not a state dict of tensors alone"):
        import_state_dict(path, UNetArguments(), None, None)  # type: ignore[arg-type]
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(InputError):
        load_model(path)


def python_vrt(marker: Path, part: Path) -> str:
    code = f"open({str(marker)!r}, 'w')\ndef f(a, out, *_, **__): open({str(marker)!r}, 'w')"
    return (
        '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType>'
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode><![CDATA[\n{code}\n]]></PixelFunctionCode><SimpleSource>"
        f"<SourceFilename>{part}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )


def mosaic(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "part.tif", make_image(20, 20, 1)[..., 0])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_python_in_a_vrt_and_in_a_part_of_one(
    tmp_path: Path, marker: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    inner, outer = tmp_path / "inner.vrt", tmp_path / "outer.vrt"
    inner.write_text(python_vrt(marker, part))
    outer.write_text(mosaic(str(inner)))
    for path in (inner, outer):
        with pytest.raises(InputError, match="code in a file is not run"):
            open_image(path)
    # And GDAL itself would not, were it asked to.
    with pytest.raises(rasterio.errors.RasterioError), rasterio.open(inner) as dataset:
        dataset.read()


WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>URL/${z}/${x}/${y}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>10</UpperLeftY><LowerRightX>10</LowerRightX>"
    "<LowerRightY>0</LowerRightY><TileLevel>1</TileLevel></DataWindow><BandsCount>1</BandsCount>"
    "</GDAL_WMS>"
)


@pytest.mark.parametrize(
    "content",
    [
        mosaic("/vsicurl/URL/a.tif"),
        mosaic("URL/a.tif"),
        mosaic("/vsizip//vsicurl/URL/a.zip"),
        mosaic("/vsis3/bucket/a.tif"),
        mosaic(html.escape(WMS)),
        mosaic("WMS:URL"),
        mosaic("wms.xml"),
        WMS,
        "<GDAL_WMTS><GetCapabilitiesUrl>URL</GetCapabilitiesUrl></GDAL_WMTS>",
        "<WCS_GDAL><ServiceURL>URL?</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>",
        '<VRTDataset rasterXSize="9" rasterYSize="9" subClass="VRTWarpedDataset"><GDALWarpOptions>'
        "<SourceDataset>/vsicurl/URL/w.tif</SourceDataset></GDALWarpOptions></VRTDataset>",
        "<MRF_META><CachedSource><Source>/vsicurl/URL/s.tif</Source></CachedSource><Raster>"
        '<Size x="64" y="64" c="1"/></Raster></MRF_META>',
        "<GDALTileIndexDataset><IndexDataset>/vsicurl/URL/i.gpkg</IndexDataset>"
        "</GDALTileIndexDataset>",
        '{"type": "Feature", "stac_extensions": ["tiled-assets"], "asset_templates": '
        '{"a": {"href": "URL/{TileMatrix}/{TileRow}/{TileCol}.tif"}}}',
    ],
)
def test_files_that_are_but_an_address(
    tmp_path: Path, listener: tuple[str, list[str]], content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wms.xml").write_text(WMS.replace("URL", listener[0]))
    path = tmp_path / "image.vrt"
    path.write_text(content.replace("URL", listener[0]))
    with pytest.raises(InputError, match=r"only local files|lies elsewhere"):
        open_image(path)


def test_a_mosaic_of_itself_and_one_without_end(tmp_path: Path) -> None:
    path = tmp_path / "image.vrt"
    path.write_text(mosaic("image.vrt").replace('relativeToVRT="0"', 'relativeToVRT="1"'))
    with pytest.raises(InputError, match="nested too deeply"):
        open_image(path)


def test_an_honest_mosaic_is_read(tmp_path: Path, part: Path) -> None:
    path = tmp_path / "image.vrt"
    path.write_text(mosaic(str(part)))
    pixels = open_image(path).read(Window(0, 0, 20, 20))
    np.testing.assert_array_equal(pixels[..., 0], make_image(20, 20, 1)[..., 0])


def test_yaml_tags_and_laughs(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "run.yaml"
    tags = [
        f"window: !!python/object/apply:pathlib.Path.touch [{marker}]",
        "window: !!python/name:os.system",
        f"!!python/object/new:os.system ['touch {marker}']",
    ]
    for text in tags:
        path.write_text(text)
        with pytest.raises(InputError, match="is not valid YAML"):
            read_yaml(path)
    lines = ["a: &a [x, x]"] + [f"b{i}: &b{i} [*{'b' + str(i - 1) if i else 'a'}, *a]"
                                for i in range(9)]  # fmt: skip
    path.write_text("\n".join(lines))
    assert yaml.safe_load(path.read_text())  # aliases are not copies: laughs cost nothing here
    assert read_yaml(path)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_codecs_named_as_python_objects(tmp_path: Path, marker: Path, version: int) -> None:
    path = tmp_path / "image.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    root.create_array("0", shape=(8, 8), chunks=(8, 8), dtype=np.uint8)[...] = 1
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    file = path / "0" / ("zarr.json" if version == 3 else ".zarray")
    document = json.loads(file.read_text())
    chunk = next(p for p in (path / "0").rglob("*") if p.is_file() and p.name != file.name)
    chunk.write_bytes(pickle.dumps(Evil(marker)))
    changes: list[dict[str, Any]] = (
        [{"filters": [{"id": "pickle"}], "dtype": "|O", "compressor": None},
         {"compressor": {"id": "pickle"}}, {"compressor": {"id": "os.system"}}]
        if version == 2
        else [{"codecs": [{"name": "numcodecs.pickle"}]}, {"codecs": [{"name": "os.system"}]},
              {"data_type": "object"}]
    )  # fmt: skip
    for change in changes:
        file.write_text(json.dumps({**document, **change}))
        with pytest.raises(InputError):
            open_image(path).read(Window(0, 0, 8, 8))


@pytest.mark.parametrize("place", ["/etc/passwd", "../../../../etc/passwd", "weights.bin"])
def test_onnx_weights_in_other_files(tmp_path: Path, place: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(4096))
    path = write_unet(tmp_path / "m.onnx", network())
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value=place)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="keeps weights in other files"):
        load_model(path)


def test_onnx_loops_and_operators_from_elsewhere(tmp_path: Path) -> None:
    h = onnx.helper
    body = h.make_graph(
        [h.make_node("Identity", ["c"], ["d"])], "body",
        [h.make_tensor_value_info("i", 7, []), h.make_tensor_value_info("c", 9, [])],
        [h.make_tensor_value_info("d", 9, [])],
    )  # fmt: skip
    forever = h.make_node("Loop", ["", "true"], ["y"], body=body)
    path = write(tmp_path / "loop.onnx", [forever], {"true": np.array(True)})
    with pytest.raises(InputError, match="decided as it runs"):
        load_model(path)
    path = write(
        tmp_path / "own.onnx", [node("Run", ["x"], "y", domain="evil")],
        domains=(("", 17), ("evil", 1)),
    )  # fmt: skip
    with pytest.raises(InputError, match="foreign code"):
        load_model(path)
