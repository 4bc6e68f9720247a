"""What is exported beside the mask itself: probabilities, entropy, channels, and their styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from numpy.typing import NDArray

from tests.products.making import CLASSES, MemoryImage, make_content, make_mask, make_spec, whole
from tilepipe.errors import InputError
from tilepipe.products import export, open_mask
from tilepipe.products.base import ForViewersError
from tilepipe.products.content import Form
from tilepipe.products.formats import is_mask, product_in_name, remove_side_files
from tilepipe.products.product import product_named
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.store import ZarrMask, create_mask

SHAPE = (1025, 700)


def mask_with(path: Path, *extras: str, kind: str = "labels") -> ZarrMask:
    """A mask with other products; the first fifth of it has no answer."""
    mask = create_mask(path, make_spec(SHAPE, kind), extras)
    mask.write(whole(SHAPE), make_content(mask.spec))
    for layer in mask.layers[1:]:
        shares = np.random.default_rng(1).random(layer.product.shape(3, SHAPE)).astype(np.float32)
        shares[..., : SHAPE[1] // 5] = np.nan
        layer.write(whole(SHAPE), layer.product.stored(shares))
    build_pyramid(mask)
    return mask


def exported(mask: ZarrMask, name: str, **options: Any) -> Path:
    path = mask.path.parent / name
    assert isinstance(path, Path)
    export(mask, path, MemoryImage(np.zeros((*SHAPE, 3), np.uint8)), **options)
    return path


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("a.tif", None),
        ("a.probabilities.tif", "probabilities"),
        ("dir.entropy.tif/a.tif", None),
        ("s3://b/a.b.ENTROPY.ome.TIFF", "entropy"),
        ("a.entropy.ome.zarr", "entropy"),
        ("entropy.tif", None),
        (".entropy.tif", None),
        ("a.labels.tif", None),
        ("entropy/", None),
    ],
)
def test_the_name_of_a_file_says_what_it_holds(name: str, product: str | None) -> None:
    assert product_in_name(name) == product


def test_only_masks_can_be_opened_as_masks() -> None:
    names = ("a.ome.zarr", "a.tif", "a.ome.tif", "a.png", "a.entropy.tif")
    assert [is_mask(Path(name)) for name in names] == [True, True, True, False, False]
    assert not is_mask(Path("a.ome.tif"), channels=True)
    assert is_mask(Path("a.tif"), channels=True)


def decoded(path: Path) -> NDArray[Any]:
    """Shares as GDAL reads them, NaN for nodata."""
    with rasterio.open(path) as dataset:
        read = dataset.read(masked=True)
        scales = np.array(dataset.scales)[:, None, None]
        offsets = np.array(dataset.offsets)[:, None, None]
        return np.where(np.ma.getmaskarray(read), np.nan, read.data * scales + offsets)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("form", ["float16", "uint8", "uint8-from-1"])
@pytest.mark.parametrize("product", ["probabilities", "entropy"])
def test_gdal_reads_the_shares_with_their_scale_and_nodata(
    tmp_path: Path, product: str, form: str
) -> None:
    mask = mask_with(tmp_path / "m.ome.zarr", f"{product}:{form}")
    path = exported(mask, f"m.{product}.tif")
    layer = mask.layer(product)
    shares: Any = layer.product
    expected = shares.decoded(layer.read(whole(SHAPE)))
    read = decoded(path)
    np.testing.assert_allclose(read, np.broadcast_to(expected, read.shape), atol=1e-6)
    assert np.isnan(read[:, :, : SHAPE[1] // 5]).all()
    with rasterio.open(path) as dataset:
        names = [named.name for named in CLASSES] if product == "probabilities" else ["entropy"]
        assert list(dataset.descriptions) == names
        if form == "uint8-from-1":  # or QGIS would take a share of 0 for nodata
            assert 0 < dataset.scales[0] + dataset.offsets[0] < 1e-8
            assert dataset.nodata == 0
        assert dataset.overviews(1) == [2, 4]


@pytest.mark.parametrize("form", ["float16", "uint8-from-1"])
def test_shares_as_ome_tiff_have_the_pyramid_and_the_names(tmp_path: Path, form: str) -> None:
    mask = mask_with(tmp_path / "m.ome.zarr", f"probabilities:{form}", f"entropy:{form}")
    for name, axes in (("probabilities", "CYX"), ("entropy", "YX")):
        layer = mask.layer(name)
        with tifffile.TiffFile(exported(mask, f"m.{name}.ome.tif")) as file:
            series = file.series[0]
            assert (series.kind, series.axes) == ("ome", axes)
            for level, read in enumerate(series.levels):
                expected = layer.read(whole(layer.levels[level]), level)
                np.testing.assert_array_equal(read.asarray(), expected)
            root = ElementTree.fromstring(file.ome_metadata)
        channels = [c.get("Name") for c in root.iter() if c.tag.endswith("}Channel")]
        assert channels == ([c.name for c in CLASSES] if axes == "CYX" else ["entropy"])


@pytest.mark.parametrize("kind", ["labels", "planes"])
def test_channels_are_255_inside_a_class_and_0_elsewhere(tmp_path: Path, kind: str) -> None:
    mask = mask_with(tmp_path / "m.ome.zarr", kind=kind)
    content = mask.read(whole(SHAPE))
    with tifffile.TiffFile(exported(mask, "m.ome.tif", channels=True)) as file:
        read = file.series[0].asarray()
        assert len(file.series[0].levels) == len(mask.levels)
        root = ElementTree.fromstring(file.ome_metadata)
    expected = [content == n if kind == "labels" else content[n] == 1 for n in (1, 2)]
    np.testing.assert_array_equal(read, np.stack(expected) * np.uint8(255))
    assert (read[:, :, : SHAPE[1] // 5] == 0).all(), "no answer is in no class"
    channels = [c for c in root.iter() if c.tag.endswith("}Channel")]
    assert [c.get("Name") for c in channels] == [named.name for named in CLASSES[1:]]
    assert all(int(c.get("Color", "0")) != 0 for c in channels)


def test_values_have_no_channels_of_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="channels already"):
        exported(mask_with(tmp_path / "m.ome.zarr", kind="values"), "m.ome.tif", channels=True)


@pytest.mark.parametrize(
    ("name", "options", "holds"),
    [
        ("m.ome.tif", {"channels": True}, "channels"),
        ("m.entropy.ome.tif", {}, "entropy"),
        ("m.probabilities.tif", {}, "probabilities"),
    ],
)
def test_what_is_for_viewers_is_never_read_as_a_mask(
    tmp_path: Path, name: str, options: dict[str, Any], holds: str
) -> None:
    mask = mask_with(tmp_path / "m.ome.zarr", "probabilities:uint8-from-1", "entropy:float16")
    path = exported(mask, name, **options)
    with pytest.raises(ForViewersError, match=f"{name}: holds {holds} for viewers, not a mask"):
        open_mask(path)


def test_a_mask_itself_does_not_change_with_the_products_beside_it(tmp_path: Path) -> None:
    with_, without = mask_with(tmp_path / "a.ome.zarr", "entropy:float16"), tmp_path / "b.ome.zarr"
    other = mask_with(without)
    for suffix in (".ome.tif", ".tif"):
        one, two = exported(with_, f"a{suffix}"), exported(other, f"b{suffix}")
        assert one.read_bytes() == two.read_bytes()


def test_labels_have_the_colour_of_their_only_class_or_white() -> None:
    assert Form.of_mask(make_spec()).planes[0].colour == "#ffffff"
    assert Form.of_mask(make_spec(classes=CLASSES[:2])).planes[0].colour == CLASSES[1].colour


def style(path: Path) -> ElementTree.Element:
    found = ElementTree.parse(path).find("pipe/rasterrenderer")
    assert found is not None
    return found


def test_qgis_shows_planes_from_0_to_1(tmp_path: Path) -> None:
    exported(mask_with(tmp_path / "m.ome.zarr", kind="planes"), "m.tif")
    renderer = style(tmp_path / "m.qml")
    assert renderer.get("type") == "multibandcolor"
    bands = [renderer.get(f"{colour}Band") for colour in ("red", "green", "blue")]
    assert bands == ["2", "3", "-1"], "the background is not shown"
    ranges = {(s.findtext("minValue"), s.findtext("maxValue")) for s in renderer.iter() if len(s)}
    assert ("0", "1") in ranges


def test_qgis_shows_values_in_their_own_range(tmp_path: Path) -> None:
    mask = mask_with(tmp_path / "m.ome.zarr", kind="values")
    exported(mask, "m.tif")
    renderer = style(tmp_path / "m.qml")
    assert (renderer.get("type"), renderer.get("band")) == ("singlebandpseudocolor", "2")
    low, high = (float(renderer.get(f"classification{end}", "nan")) for end in ("Min", "Max"))
    level = len(mask.levels) - 1
    smallest = mask.read(whole(mask.levels[level]), level)[1]
    share = np.mean((smallest >= low) & (smallest <= high)) / np.mean(np.isfinite(smallest))
    assert 0.97 < share < 0.99


def test_qgis_shows_shares_from_0_to_1(tmp_path: Path) -> None:
    exported(mask_with(tmp_path / "m.ome.zarr", "entropy:uint8-from-1"), "m.entropy.tif")
    renderer = style(tmp_path / "m.entropy.qml")
    assert (renderer.get("classificationMin"), renderer.get("classificationMax")) == ("0.0", "1.0")


def test_a_style_of_the_user_stays_and_ours_goes(tmp_path: Path) -> None:
    planes, labels = (mask_with(tmp_path / f"{k}.ome.zarr", kind=k) for k in ("planes", "labels"))
    path = exported(planes, "m.tif")
    ours = tmp_path / "m.qml"
    assert ours.exists()
    exported(labels, "m.tif")
    assert not ours.exists(), "it was the style of planes"
    ours.write_text("<qgis/>")
    exported(planes, "m.tif")
    remove_side_files(path)
    assert ours.read_text() == "<qgis/>"
    assert not (tmp_path / "m.tif.aux.xml").exists()


def test_bytes_of_shares_start_from_1() -> None:
    product: Any = product_named("probabilities:uint8-from-1")
    shares = np.array([[[0.0, 1.0, 0.5, np.nan]]], np.float32)
    stored = product.stored(shares)
    assert stored.tolist() == [[[1, 255, 128, 0]]]
    np.testing.assert_allclose(product.decoded(stored), shares, atol=0.5 / 254)
    assert product.unanswered(stored).tolist() == [[[False, False, False, True]]]
    assert product.reduce(np.array([[[0, 9], [0, 0]]], np.uint8)).tolist() == [[[9]]]


def test_bytes_of_older_masks_are_read_as_they_were_written() -> None:
    product: Any = product_named("probabilities:uint8")
    assert product.stored(np.array([0, 1, np.nan], np.float32)).tolist() == [0, 254, 255]
    assert product.key == "probabilities:uint8"
    assert product.key_for_new == "probabilities:uint8-from-1"
    assert product.fill == 255
    assert np.isnan(product.decoded(np.array([255], np.uint8))).all()


@pytest.mark.parametrize("name", ["probabilities:int8", "entropy:5", "labels:uint8"])
def test_forms_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"stored as float16 or uint8|no variants"):
        product_named(name)


def test_a_mask_keeps_the_form_of_its_bytes(tmp_path: Path) -> None:
    for form in ("uint8", "uint8-from-1"):
        mask = make_mask(tmp_path / f"{form}.ome.zarr", make_spec((9, 9)), probabilities=form)
        opened = open_mask(mask.path)
        assert isinstance(opened, ZarrMask)
        assert opened.extras == (f"probabilities:{form}",)


def test_what_lies_beside_a_mask_is_valid_ome_zarr_and_shows_no_answer_as_black(
    tmp_path: Path,
) -> None:
    from ome_zarr_models.v05.image import Image

    extras = ("probabilities:uint8-from-1", "entropy:uint8-from-1")
    mask = mask_with(tmp_path / "m.ome.zarr", *extras)
    for name, labels in (("probabilities", [c.name for c in CLASSES]), ("entropy", ["entropy"])):
        group = zarr.open_group(mask.path / name, mode="r")
        Image.from_zarr(group)
        ome: Any = group.attrs["ome"]
        channels = ome["omero"]["channels"]
        assert [channel["label"] for channel in channels] == labels
        assert {(c["window"]["start"], c["window"]["end"]) for c in channels} == {(0.0, 255.0)}
