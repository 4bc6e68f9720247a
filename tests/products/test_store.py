from __future__ import annotations

import json
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.products.making import (
    CLASSES,
    KINDS,
    NO_ANSWER,
    SHAPES,
    extras_of,
    make_content,
    make_mask,
    make_spec,
    tree,
    whole,
)
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import PixelSize
from tilepipe.products.base import Mask, MaskClass, MaskSpec
from tilepipe.products.pyramid import pyramid_blocks
from tilepipe.products.store import ZarrMask, create_mask, open_zarr_mask


def attributes(path: Path) -> Any:
    return json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]


def chunk_windows(shape: tuple[int, int]) -> list[Window]:
    return [
        Window(y, x, min(CHUNK, shape[0] - y), min(CHUNK, shape[1] - x))
        for y in range(0, shape[0], CHUNK)
        for x in range(0, shape[1], CHUNK)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_is_read_back(tmp_path: Path, kind: Any, shape: tuple[int, int]) -> None:
    made = make_mask(tmp_path / "m.ome.zarr", make_spec(shape, kind))
    mask = open_zarr_mask(made.path)
    assert isinstance(mask, Mask)
    assert mask.spec == made.spec
    assert mask.shape == shape
    np.testing.assert_array_equal(mask.read(whole(shape)), make_content(made.spec))


def test_a_spec_survives_json() -> None:
    spec = make_spec(
        kind="planes",
        crs='LOCAL_CS["x"]',
        transform=(0.1, 1 / 3, 1e6 / 3, 0.0, -0.1, 7 / 3),
        origin=(1.5, 0.1),
        name="my mask",
    )
    assert MaskSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "broken",
    [{"kind": "colours"}, {"classes": []}, {"format": 3}, {"classes": [{"name": "a"}]}],
)
def test_a_distorted_spec_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        MaskSpec.from_json(make_spec().to_json() | broken)


def test_a_colour_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="#rrggbb"):
        MaskClass("a", "red")


def test_sizes_of_levels_are_halved_and_rounded_up() -> None:
    assert make_spec((1025, 700)).levels == ((1025, 700), (513, 350), (257, 175))
    assert make_spec((512, 512)).levels == ((512, 512),)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unwritten_chunk_reads_as_no_answer_and_none_is_stored(
    tmp_path: Path, kind: Any
) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec(kind=kind))
    for level, size in enumerate(mask.levels):
        pixels = mask.read(whole(size), level)
        assert np.isnan(pixels).all() if kind == "values" else (pixels == NO_ANSWER).all()
    assert {Path(file).name for file in tree(mask.path)} == {"zarr.json"}


def test_background_is_stored(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((600, 600)))
    mask.write(Window(0, 0, 512, 512), np.zeros((512, 512), np.uint8))
    assert (mask.path / "0" / "c" / "0" / "0").is_file()
    assert mask.read(Window(0, 0, 1, 1))[0, 0] == 0


@pytest.mark.parametrize(
    "window",
    [
        Window(1, 0, 511, 512),
        Window(0, 0, 511, 512),
        Window(0, 512, 512, 100),
        Window(0, 512, 512, 600),
        Window(-512, 0, 512, 512),
    ],
)
def test_a_window_that_cuts_a_chunk_is_refused(tmp_path: Path, window: Window) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((1025, 700)))
    with pytest.raises(ValueError, match=r"cuts through|outside"):
        mask.write(window, np.zeros(window.shape, np.uint8))


def test_an_array_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec())
    with pytest.raises(ValueError, match="shape"):
        mask.write(Window(0, 0, 512, 512), np.zeros((512, 511), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        mask.write(Window(0, 0, 512, 512), np.zeros((512, 512), np.int64))


def test_reading_outside_is_refused(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec())
    with pytest.raises(ValueError, match="outside"):
        mask.read(Window(1024, 0, 2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_order_threads_and_overwriting_do_not_show_in_the_bytes(tmp_path: Path, kind: Any) -> None:
    spec = make_spec((1025, 1100), kind)
    probabilities = None if kind == "values" else "uint8"
    straight = make_mask(tmp_path / "a.ome.zarr", spec, probabilities=probabilities)

    messy = create_mask(tmp_path / "b.ome.zarr", spec, extras_of(probabilities))
    content, other = make_content(spec), make_content(spec, seed=1)
    scores = np.random.default_rng(0).random((len(CLASSES), *messy.shape)).astype(np.float32)
    windows = chunk_windows(messy.shape)
    random.Random(0).shuffle(windows)

    def write(window: Window) -> None:
        part = ..., slice(window.y, window.stop_y), slice(window.x, window.stop_x)
        messy.write(window, other[part])
        messy.write(window, content[part])
        if probabilities is not None:
            layer = messy.layer("probabilities")
            layer.write(window, layer.product.stored(scores[part]))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, windows))
    from tilepipe.products.pyramid import downsample_block

    for level, units in pyramid_blocks(messy).items():
        for unit in reversed(units):
            downsample_block(messy, level, unit)
    assert tree(messy.path) == tree(straight.path)


def test_a_chunk_overwritten_by_no_answer_is_gone(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((600, 600)))
    before = tree(mask.path)
    window = Window(512, 512, 88, 88)
    mask.write(window, np.zeros(window.shape, np.uint8))
    mask.write(window, np.full(window.shape, NO_ANSWER, np.uint8))
    assert tree(mask.path) == before


def test_values_without_an_answer_have_one_bit_pattern(tmp_path: Path) -> None:
    spec = make_spec((4, 4), "values", classes=CLASSES[:1], background=None)
    trees = []
    for name, bits in (("a", 0x7FC00000), ("b", 0xFFC00001)):
        mask = create_mask(tmp_path / f"{name}.ome.zarr", spec)
        values = np.ones((1, 4, 4), np.float32)
        values.view(np.uint32)[0, 0, 0] = bits
        mask.write(whole(mask.shape), values)
        trees.append(tree(mask.path))
    assert trees[0] == trees[1]


@pytest.mark.parametrize(("precision", "error"), [("float16", 5e-4), ("uint8", 0.5 / 254 + 1e-6)])
def test_probabilities_come_back_within_their_precision(
    tmp_path: Path, precision: Any, error: float
) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((30, 20)), extras_of(precision))
    scores = np.random.default_rng(0).random((3, 30, 20)).astype(np.float32)
    scores[:, :5] = np.nan
    scores[:, 5], scores[:, 6] = 0, 1
    layer = mask.layer("probabilities")
    layer.write(whole((30, 20)), layer.product.stored(scores))
    mask = open_zarr_mask(mask.path)
    assert mask.extras == extras_of(precision)
    read = mask.read_probabilities(whole((30, 20)))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(read), np.isnan(scores))
    np.testing.assert_array_equal(read[:, 5:7], scores[:, 5:7])
    assert np.nanmax(np.abs(read - scores)) <= error


def test_a_mask_without_probabilities_says_so(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((9, 9)))
    assert mask.extras == ()
    with pytest.raises(ValueError, match="without probabilities"):
        mask.read_probabilities(whole((9, 9)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_metadata_is_valid_ome_zarr(tmp_path: Path, kind: Any) -> None:
    from ome_zarr_models.v05.image import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    probabilities = None if kind == "values" else "float16"
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec(kind=kind), extras_of(probabilities))
    group = zarr.open_group(mask.path, mode="r")
    image = Image.from_zarr(group)
    assert [axis.name for axis in image.attributes.ome.multiscales[0].axes][-2:] == ["y", "x"]
    if kind == "labels":
        label = ImageLabel.from_zarr(group).attributes.ome.image_label
        assert label is not None
        assert label.colors is not None
        assert [colour.label_value for colour in label.colors] == [0, 1, 2, 255]
    if probabilities is not None:
        Image.from_zarr(zarr.open_group(mask.path / "probabilities", mode="r"))


def test_levels_lie_on_each_other_in_ngff_coordinates(tmp_path: Path) -> None:
    spec = make_spec(pixel_size=PixelSize(2.0, 4.0, "micrometer"), origin=(0.75, 1.5))
    ome = attributes(create_mask(tmp_path / "m.ome.zarr", spec).path)["ome"]
    for level, dataset in enumerate(ome["multiscales"][0]["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        # The corner half a pixel before the first centre is the same for all levels.
        corner = [
            t - s / 2 for t, s in zip(translation["translation"], scale["scale"], strict=True)
        ]
        assert scale["scale"] == [2.0 * 2**level, 4.0 * 2**level]
        assert corner == [0.75 - 1.0, 1.5 - 2.0]
    assert [axis["unit"] for axis in ome["multiscales"][0]["axes"]] == ["micrometer"] * 2


@pytest.mark.parametrize("size", [None, PixelSize(4, 4, "pixel"), PixelSize(1e-4, 1e-4, "degree")])
def test_a_unit_that_ngff_does_not_know_is_left_out(tmp_path: Path, size: PixelSize | None) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec(pixel_size=size))
    multiscale = attributes(mask.path)["ome"]["multiscales"][0]
    assert all("unit" not in axis for axis in multiscale["axes"])
    first = multiscale["datasets"][0]["coordinateTransformations"]
    assert first == [{"type": "scale", "scale": [size.y, size.x] if size else [1.0, 1.0]}]


def test_what_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    create_mask(path, make_spec())
    with pytest.raises(InputError, match="already exists"):
        create_mask(path, make_spec())
    file = tmp_path / "n.ome.zarr"
    file.touch()
    with pytest.raises(InputError, match="is a file"):
        create_mask(file, make_spec())


def test_an_interrupted_creation_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "m.ome.zarr"
    zarr.open_group(path, mode="a")
    zarr.create_array(path, name="0", shape=(3, 3), dtype="uint8")
    (path / "ledger").write_text("ours")
    create_mask(path, make_spec())
    assert open_zarr_mask(path).shape == (1025, 700)
    assert (path / "ledger").read_text() == "ours"


def test_an_interrupted_creation_is_no_mask(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "m.ome.zarr", mode="a")
    with pytest.raises(InputError, match="cannot be opened as a mask"):
        open_zarr_mask(tmp_path / "m.ome.zarr")


def test_a_missing_level_is_the_users_to_know(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec())
    (mask.path / "1" / "zarr.json").unlink()
    with pytest.raises(InputError, match="cannot be opened as a mask"):
        open_zarr_mask(mask.path)


def test_half_written_chunks_of_killed_writers_can_be_removed(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    before = tree(mask.path)
    (mask.path / "0" / "c" / "0" / "0.00ff.partial").touch()
    assert mask.remove_partials() == 1
    assert tree(mask.path) == before


def test_a_torn_chunk_is_named_unreadable(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    chunk = mask.path / "0" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    for read in (mask.read, lambda window: mask.read_plane(0, window)):
        with pytest.raises(UnreadableError, match="is damaged"):
            read(Window(0, 0, 9, 9))
    assert mask.read(Window(512, 512, 9, 9)).shape == (9, 9)


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec())

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    opened = open_zarr_mask(mask.path)
    monkeypatch.setattr("zarr.storage._local._put", full)
    monkeypatch.setattr("tilepipe.storage.zarr_store._write", full)
    for each in (mask, opened):  # by zarr, and without it
        with pytest.raises(OSError, match="No space left") as caught:
            each.write(Window(0, 0, 512, 512), np.zeros((512, 512), np.uint8))
        assert caught.value.errno == 28


def test_a_level_is_a_lazy_dask_array(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(kind="planes"))
    array = mask.as_dask(1)
    assert array.shape == (3, 513, 350)
    assert array.chunks == ((3,), (512, 1), (350,))
    np.testing.assert_array_equal(array.compute(scheduler="sync"), mask.read(whole((513, 350)), 1))


def foreign(path: Path, axes: str, dtype: str, shape: tuple[int, ...], version: str) -> Path:
    multiscale = {
        "axes": [
            {"name": name, "type": "channel" if name == "c" else "space", "unit": "micrometer"}
            for name in axes
        ],
        "datasets": [
            {
                "path": "s0",
                "coordinateTransformations": [{"type": "scale", "scale": [0.5] * len(axes)}],
            }
        ],
    }
    document: dict[str, Any] = {
        "multiscales": [multiscale],
        "image-label": {
            "colors": [{"label-value": 3, "rgba": [255, 0, 16, 255]}],
            "properties": [{"label-value": 3, "name": "gland"}],
        },
    }
    kept = document if version == "0.4" else {"ome": document}
    zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3, attributes=kept)
    array = zarr.create_array(
        path, name="s0", shape=shape, dtype=dtype, zarr_format=2 if version == "0.4" else 3
    )
    array[...] = 3
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_others_are_understood_but_not_written_to(tmp_path: Path, version: str) -> None:
    mask = open_zarr_mask(foreign(tmp_path / "m.zarr", "yx", "uint8", (20, 30), version))
    assert (mask.kind, mask.shape) == ("labels", (20, 30))
    assert mask.pixel_size == PixelSize(0.5, 0.5, "micrometer")
    assert mask.classes is not None
    assert mask.classes[3] == MaskClass("gland", "#ff0010")
    assert (mask.read(whole((20, 30))) == 3).all()
    with pytest.raises(ValueError, match="not made by tilepipe"):
        mask.write(whole((20, 30)), np.zeros((20, 30), np.uint8))


@pytest.mark.parametrize(
    ("axes", "dtype", "shape"),
    [("yx", "int32", (9, 9)), ("yx", "float32", (9, 9)), ("zyx", "uint8", (2, 9, 9))],
)
def test_what_is_no_mask_is_refused_in_one_sentence(
    tmp_path: Path, axes: str, dtype: str, shape: tuple[int, ...]
) -> None:
    path = foreign(tmp_path / "m.zarr", axes, dtype, shape, "0.5")
    with pytest.raises(InputError, match="cannot be opened as a mask"):
        open_zarr_mask(path)


def test_nothing_there_is_the_users_to_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_zarr_mask(tmp_path / "m.ome.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="cannot be opened as a mask"):
        open_zarr_mask(tmp_path / "empty.zarr")


def test_opening_needs_no_right_to_write(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in mask.path.rglob("*"):
            file.chmod(0o555 if file.is_dir() else 0o444)
        assert isinstance(open_zarr_mask(mask.path), ZarrMask)
