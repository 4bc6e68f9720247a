"""However a file tells GDAL to open another one, no request is sent, and no other file is read."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import rasterio
import tifffile

from tests.making import make_image, save_tiny
from tilepipe.cli import call
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIDE = 128
SRS = "<SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>"


SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    with open(sys.argv[1], "a") as file:
        file.write("x")
    connection.close()
"""


class Listener:
    """Counts who connects to an address of this machine.

    A process of its own: where GDAL does ask, it waits for the answer with Python's lock held.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        log.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, log], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._host = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self._numbers = count()

    @property
    def url(self) -> str:
        """Another one each time: GDAL remembers what there was not."""
        return f"{self._host}/{next(self._numbers)}"

    def requests(self) -> int:
        """How many there were since it was asked last."""
        requests = self._log.stat().st_size
        self._log.write_text("")
        return requests

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    found = Listener(tmp_path_factory.mktemp("listener") / "log")
    yield found
    found.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_tiny(path, UNetArguments(bands=1, outputs=2, width=2, depth=1), pixel_size_um=None)
    return path


def tiff(path: Path, metadata: str = "") -> Path:
    """A GeoTIFF of one band, with GDAL's metadata in it."""
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint8", nodata=255,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), photometric="minisblack",
    ) as file:  # fmt: skip
        file.write(make_image(SIDE, SIDE, 1)[..., 0], 1)
        if metadata:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=metadata)
    if metadata:
        path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
        assert metadata.encode() in path.read_bytes(), "it is in the file itself"
    return path


def aux(path: Path, content: str) -> Path:
    path.with_name(path.name + ".aux.xml").write_text(f"<PAMDataset>{content}</PAMDataset>")
    return path


def overviews_at(address: str) -> str:
    return f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{address}</MDI></Metadata>'


def source(name: str, kind: str = "SimpleSource", relative: int = 1) -> str:
    return (
        f'<{kind}><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'
        f"<SourceBand>1</SourceBand></{kind}>"
    )


def vrt(path: Path, band: str, after: str = "", attributes: str = "", top: str = SRS) -> Path:
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}" {attributes}>{top}'
        f'<VRTRasterBand dataType="Byte" band="1">{band}</VRTRasterBand>{after}</VRTDataset>'
    )
    return path


WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>URL/${z}/${x}/${y}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>10</UpperLeftY><LowerRightX>10</LowerRightX>"
    "<LowerRightY>0</LowerRightY><TileLevel>1</TileLevel></DataWindow><BandsCount>1</BandsCount>"
    "</GDAL_WMS>"
)

Maker = Callable[[Path, str], Path]


def companion(suffix: str, content: str) -> Maker:
    def make(folder: Path, url: str) -> Path:
        path = tiff(folder / "image.tif")
        path.with_name(path.name + suffix).write_text(content.replace("URL", url))
        return path

    return make


def document(content: str, name: str = "image.vrt") -> Maker:
    def make(folder: Path, url: str) -> Path:
        tiff(folder / "part.tif")
        (folder / name).write_text(content.replace("URL", url))
        return folder / name

    return make


def whole(band: str, **options: str) -> Maker:
    """A VRT of a band."""

    def make(folder: Path, url: str) -> Path:
        tiff(folder / "part.tif")
        path = vrt(folder / "image.vrt", band, **options)
        path.write_text(path.read_text().replace("URL", url))
        return path

    return make


REMOTE = (
    f'<VRTDataset rasterXSize="64" rasterYSize="64">{SRS}<VRTRasterBand dataType="Byte" band="1">'
    f"{source('/vsicurl/URL/a.tif', relative=0)}</VRTRasterBand></VRTDataset>"
)


def in_a_companion(suffix: str) -> Maker:
    def make(folder: Path, url: str) -> Path:
        path = tiff(folder / "image.tif")
        tiff(folder / f"image.tif{suffix}", f"/vsicurl/{url}/o.tif")
        return path

    return make


def beside_a_companion(folder: Path, url: str) -> Path:
    path = tiff(folder / "image.tif")
    with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    aux(folder / "image.tif.ovr", overviews_at(f"/vsicurl/{url}/o.tif"))
    return path


def in_a_part(folder: Path, url: str) -> Path:
    tiff(folder / "part.tif", f"/vsicurl/{url}/o.tif")
    return vrt(folder / "image.vrt", source("part.tif"))


def beside_a_part(folder: Path, url: str) -> Path:
    aux(tiff(folder / "part.tif"), overviews_at(f"/vsicurl/{url}/o.tif"))
    return vrt(folder / "image.vrt", source("part.tif"))


def in_a_part_of_a_part(folder: Path, url: str) -> Path:
    aux(tiff(folder / "part.tif"), overviews_at(f"/vsicurl/{url}/o.tif"))
    vrt(folder / "inner.vrt", source("part.tif"))
    return vrt(folder / "image.vrt", source("inner.vrt"))


def beside_a_picture(folder: Path, url: str) -> Path:
    path = folder / "image.png"
    with rasterio.open(
        path, "w", driver="PNG", height=64, width=64, count=1, dtype="uint8"
    ) as file:
        file.write(make_image(64, 64, 1)[..., 0], 1)
    return aux(path, overviews_at(f"/vsicurl/{url}/o.tif"))


def vrt_in_the_head_of_a_tiff(folder: Path, url: str) -> Path:
    path = folder / "image.tif"
    text = REMOTE.replace("URL", url)
    tifffile.imwrite(
        path,
        make_image(64, 64, 1)[..., 0],
        description=text,
        metadata=None,
        photometric="minisblack",
    )
    return path


def crs_of_a_jpeg_2000(folder: Path, url: str) -> Path:
    path = folder / "image.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=64, width=64, count=1, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), geojp2=False,
    ) as file:  # fmt: skip
        file.write(make_image(64, 64, 1)[..., 0], 1)
    name = b"http://www.opengis.net/def/crs/EPSG/0/32633"
    content = path.read_bytes()
    old = name if name in content else b"urn:ogc:def:crs:EPSG::32633"
    assert old in content
    path.write_bytes(content.replace(old, f"{url}/".encode().ljust(len(old), b"x")))
    return path


def erdas(folder: Path, url: str) -> Path:
    path = folder / "image.ers"
    path.write_text(
        'DatasetHeader Begin\n\tVersion = "6.0"\n\tDataFile = "/vsicurl/' + url + '/a.tif"\n'
        "\tDataSetType = Translated\n\tDataType = Raster\n\tRasterInfo Begin\n\t\tCellType = "
        "Unsigned8BitInteger\n\t\tNrOfLines = 64\n\t\tNrOfCellsPerLine = 64\n\t\tNrOfBands = 1\n"
        "\tRasterInfo End\nDatasetHeader End\n"
    )
    return path


FORMS: dict[str, Maker] = {
    "metadata of a GeoTIFF": lambda f, u: tiff(f / "image.tif", f"/vsicurl/{u}/o.tif"),
    "metadata: streaming": lambda f, u: tiff(f / "image.tif", f"/vsicurl_streaming/{u}/o.tif"),
    "metadata: a bare address": lambda f, u: tiff(f / "image.tif", f"{u}/o.tif"),
    "metadata: a service": lambda f, u: tiff(f / "image.tif", f"WMS:{u}"),
    "aux.xml": lambda f, u: aux(tiff(f / "image.tif"), overviews_at(f"/vsicurl/{u}/o.tif")),
    "aux.xml: CRS": lambda f, u: aux(tiff(f / "image.tif"), f"<SRS>{u}/crs</SRS>"),
    "aux.xml of a picture": beside_a_picture,
    ".ovr is a mosaic": companion(".ovr", REMOTE),
    ".msk is a mosaic": companion(".msk", REMOTE),
    ".ovr is a service": companion(".ovr", WMS),
    ".msk is a service": companion(".msk", WMS),
    "metadata of an .ovr": in_a_companion(".ovr"),
    "metadata of a .msk": in_a_companion(".msk"),
    "aux.xml of an .ovr": beside_a_companion,
    "metadata of a part": in_a_part,
    "aux.xml of a part": beside_a_part,
    "aux.xml of a part of a part": in_a_part_of_a_part,
    "VRT: part": document(REMOTE),
    "VRT: lower case": document(REMOTE.lower().replace("url/", "URL/")),
    "VRT: after other text": document("  text " + REMOTE),
    "VRT: in a TIFF": vrt_in_the_head_of_a_tiff,
    "VRT: metadata": whole(source("part.tif"), top=overviews_at("/vsicurl/URL/o.tif")),
    "VRT: overview": whole(
        source("part.tif") + "<Overview><SourceFilename>/vsicurl/URL/o.tif</SourceFilename>"
        "<SourceBand>1</SourceBand></Overview>"
    ),
    "VRT: mask": whole(
        source("part.tif"),
        after='<MaskBand><VRTRasterBand dataType="Byte">'
        + source("/vsicurl/URL/m.tif", relative=0) + "</VRTRasterBand></MaskBand>",
    ),
    "VRT: CRS": whole(source("part.tif"), top="<SRS>URL/crs</SRS>"),
    "VRT: archive": whole(source("/vsizip//vsicurl/URL/a.zip", relative=0)),
    "VRT: bucket": whole(source("/vsis3/bucket/a.tif", relative=0)),
    "VRT: service": whole(source(html.escape(WMS), relative=0)),
    "VRT: subdataset": whole(source("GTIFF_DIR:1:/vsicurl/URL/a.tif", relative=0)),
    "VRT: raw band": document(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTRawRasterBand"><SourceFilename>/vsicurl/URL/a</SourceFilename>'
        "</VRTRasterBand></VRTDataset>"
    ),
    "VRT: warped": document(
        '<VRTDataset rasterXSize="9" rasterYSize="9" subClass="VRTWarpedDataset"><GDALWarpOptions>'
        "<SourceDataset>/vsicurl/URL/w.tif</SourceDataset></GDALWarpOptions></VRTDataset>"
    ),
    "VRT: elevations of a warp": whole(
        source("part.tif"), after="<GDALWarpOptions><DEMPath>/vsicurl/URL/d.tif</DEMPath></GDALWarpOptions>"
    ),
    "VRT: geolocation": whole(
        source("part.tif"),
        top='<Metadata domain="GEOLOCATION"><MDI key="X_DATASET">/vsicurl/URL/x.tif</MDI></Metadata>',
    ),
    "VRT: sharpened": document(
        '<VRTDataset rasterXSize="9" rasterYSize="9" subClass="VRTPansharpenedDataset">'
        "<PansharpeningOptions><PanchroBand><SourceFilename>/vsicurl/URL/p.tif</SourceFilename>"
        "<SourceBand>1</SourceBand></PanchroBand></PansharpeningOptions></VRTDataset>"
    ),
    "VRT: processed": document(
        '<VRTDataset subClass="VRTProcessedDataset"><Input><SourceFilename>/vsicurl/URL/p.tif'
        "</SourceFilename></Input></VRTDataset>"
    ),
    "WMS": document(WMS, "image.xml"),
    "WMTS": document("<GDAL_WMTS><GetCapabilitiesUrl>URL</GetCapabilitiesUrl></GDAL_WMTS>"),
    "WCS": document(
        "<WCS_GDAL><ServiceURL>URL?</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>"
    ),
    "MRF": document(
        "<MRF_META><CachedSource><Source>/vsicurl/URL/s.tif</Source></CachedSource><Raster>"
        '<Size x="64" y="64" c="1"/></Raster></MRF_META>', "image.mrf",
    ),
    "tile index": document(
        "<GDALTileIndexDataset><IndexDataset>/vsicurl/URL/i.gpkg</IndexDataset>"
        "</GDALTileIndexDataset>", "image.gti",
    ),
    "STAC tiles": document(
        '{"type": "Feature", "stac_extensions": ["tiled-assets"], "asset_templates": '
        '{"a": {"href": "URL/{TileMatrix}/{TileRow}/{TileCol}.tif"}}}', "image.json",
    ),
    "STAC items": document(
        '{"stac_version": "1.0.0", "type": "FeatureCollection", "features": [{"type": "Feature", '
        '"stac_version": "1.0.0", "stac_extensions": [], "properties": {"proj:epsg": 32633}, '
        '"assets": {"a": {"href": "URL/a.tif", "proj:transform": [10,0,0,0,-10,0,0,0,1], '
        '"proj:shape": [64, 64]}}}]}', "image.json",
    ),
    "pipeline": document(
        '{"type": "gdal_streamed_alg", "command_line": "gdal raster pipeline read /vsicurl/URL/a"}',
        "image.gdalg.json",
    ),
    "zarr by reference": document(
        json.dumps({".zgroup": "{}", "x/0.0": ["/vsicurl/URL/a", 0, 9]}), "image.json"
    ),
    "KML": document(
        '<?xml version="1.0"?><kml><Document><Region><LatLonAltBox><north>1</north></LatLonAltBox>'
        "</Region><GroundOverlay><Icon><href>URL/a.png</href></Icon></GroundOverlay>"
        "</Document></kml>", "image.kml",
    ),
    "ERS": erdas,
    "JPEG 2000: CRS": crs_of_a_jpeg_2000,
}  # fmt: skip
"""Ways in which a file can tell GDAL to open another one, by name."""


def test_gdal_alone_does_call_out(tmp_path: Path, listener: Listener) -> None:
    path = tiff(tmp_path / "image.tif", f"/vsicurl/{listener.url}/o.tif")
    with rasterio.open(path) as file:
        assert file.overviews(1) == []
    assert listener.requests()


@pytest.mark.parametrize("form", FORMS)
def test_no_request_is_sent(tmp_path: Path, listener: Listener, model: Path, form: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = FORMS[form](folder, listener.url)
    use = ["-m", str(model)]
    codes = {
        call(["info", str(path)]),
        call(["plan", str(path), *use]),
        call(["run", str(path), *use, "-o", str(tmp_path / "m.tif"), "-q"]),
    }
    assert listener.requests() == 0
    harmless = "CRS" in form
    assert codes <= ({0, 2} if harmless else {2}), "it is read without the other file, or refused"
