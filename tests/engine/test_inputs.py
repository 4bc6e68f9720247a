"""A run gets the bands and values that its model takes, or is refused with the way out."""

from __future__ import annotations

import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import tilepipe
from tests.images.making import geotiff
from tests.making import make_image, make_model, write_tiff
from tilepipe.engine.inputs import open_input, open_planned
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.describe import show_rescaling, show_selection
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.rescaling import Rescaling
from tilepipe.models.file import build_model, load_model, save_model
from tilepipe.models.unet import UNetArguments

RGB = ("red", "green", "blue")
SIZE = 300, 280


def save_named(
    path: Path, names: tuple[str, ...] = RGB, dtype: str = "uint8", scale: float = 1.0
) -> Path:
    """A model without a pixel size whose bands have names."""
    bands = len(names) or 3
    made = make_model(UNetArguments(width=2, depth=2, bands=bands), dtype=dtype, pixel_size_um=None)
    given = replace(made.input, band_names=names, scale=scale)
    save_model(path, build_model(made.network, given, made.output))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_named(tmp_path_factory.mktemp("model") / "named.safetensors")


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_named(tmp_path_factory.mktemp("model") / "nameless.safetensors", ())


def labels_of(image: Path, model: Path, output: Path, **options: Any) -> NDArray[Any]:
    tilepipe.run(image, model=model, outputs=output, **options)
    return np.asarray(tilepipe.open_mask(output).as_dask())


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[Any]:
    """The labels of the image of three bands in the model's order."""
    folder = tmp_path_factory.mktemp("expected")
    image = write_tiff(folder / "image.tif", make_image(*SIZE))
    labels = labels_of(image, model, folder / "m.ome.zarr")
    assert len(np.unique(labels)) > 1
    return labels


def planned(image: Path, model: Path, **options: Any) -> Plan:
    return tilepipe.plan(image, model=model, outputs="x.ome.zarr", **options)[0]


def four_bands(path: Path, names: list[str] | None = None) -> Path:
    """nir, blue, green, red."""
    pixels = make_image(*SIZE)[..., ::-1]
    return geotiff(path, np.concatenate([255 - pixels[..., :1], pixels], 2), names)


def test_bands_chosen_by_number_give_the_mask_of_these_bands(
    tmp_path: Path, model: Path, expected: NDArray[Any]
) -> None:
    image = four_bands(tmp_path / "image.tif")
    found = labels_of(image, model, tmp_path / "m.ome.zarr", bands=(4, 3, 2))
    np.testing.assert_array_equal(found, expected)
    assert tilepipe.verify(tmp_path / "m.ome.zarr", windows=2).exact


def test_where_image_and_model_name_their_bands_each_goes_where_it_belongs(
    tmp_path: Path, model: Path, expected: NDArray[Any]
) -> None:
    image = four_bands(tmp_path / "image.tif", ["NIR", "Blue", "Green", "Red"])
    found = labels_of(image, model, tmp_path / "m.ome.zarr")
    np.testing.assert_array_equal(found, expected)
    said = show_selection(planned(image, model))
    assert said == "red from band 4 Red, green from band 3 Green, blue from band 2 Blue"


def test_as_many_bands_in_another_order_are_matched_by_name_too(
    tmp_path: Path, model: Path, expected: NDArray[Any]
) -> None:
    pixels = make_image(*SIZE)[..., ::-1]
    image = geotiff(tmp_path / "image.tif", pixels, ["blue", "green", "red"])
    found = labels_of(image, model, tmp_path / "m.ome.zarr")
    np.testing.assert_array_equal(found, expected)


def test_the_order_that_a_user_gives_is_never_changed(tmp_path: Path, model: Path) -> None:
    image = geotiff(tmp_path / "image.tif", make_image(*SIZE), ["blue", "green", "red"])
    plan = planned(image, model, bands=(1, 2, 3))
    assert plan.image.reading.is_plain
    assert show_selection(plan) == (
        "red from band 1 blue, green from band 2 green, blue from band 3 red"
    )


def test_an_alpha_band_that_is_called_what_the_model_wants_is_that_band(tmp_path: Path) -> None:
    names = ["red", "green", "blue", "nir"]
    image = geotiff(tmp_path / "a.tif", make_image(*SIZE, 4), names, photometric="rgb", alpha="yes")
    model = save_named(tmp_path / "m.safetensors", tuple(names))
    plan = planned(image, model)
    assert plan.image.reading.bands == (1, 2, 3, 4)


def test_other_bands_than_the_models_are_refused_with_the_option_and_those_there_are(
    tmp_path: Path, model: Path
) -> None:
    image = four_bands(tmp_path / "image.tif")
    with pytest.raises(InputError) as error:
        planned(image, model)
    assert "has 4 bands (1, 2, 3, 4)" in str(error.value)
    assert "takes 3 (red, green, blue)" in str(error.value)
    assert "for example with --bands 1,2,3" in str(error.value)
    with pytest.raises(InputError, match=r"--bands names 2 bands, but .* takes 3"):
        planned(image, model, bands=(1, 2))


def test_the_plan_keeps_numbers_and_resume_and_verify_go_by_them(
    tmp_path: Path, model: Path
) -> None:
    image = four_bands(tmp_path / "image.tif", ["nir", "blue", "green", "red"])
    output = tmp_path / "m.ome.zarr"
    first = tilepipe.run(image, model=model, outputs=output)
    assert first.plan.image.reading.bands == (4, 3, 2)
    assert Plan.from_json(first.plan.to_json()) == first.plan
    again = tilepipe.run(image, model=model, outputs=output, bands=("red", "green", "blue"))
    assert again.resumed == again.blocks
    with pytest.raises(InputError, match="bands was 4,3,2, now 1,2,3"):
        tilepipe.run(image, model=model, outputs=output, bands=(1, 2, 3))
    assert tilepipe.verify(output, windows=2).exact


def warned(image: Path, model: Path, **options: Any) -> tuple[str, ...]:
    """The warnings about an image."""
    loaded, asked = load_model(str(model)), RunOptions(str(image), **options)
    with closing(open_input(asked, loaded)) as found:
        return plan_warnings(found, loaded, asked, choose_scale(found, loaded, asked))


def test_a_band_whose_name_belongs_elsewhere_is_warned_of(tmp_path: Path, model: Path) -> None:
    image = geotiff(tmp_path / "image.tif", make_image(*SIZE), ["nir", "red", "green"])
    (warning,) = warned(image, model)
    assert "1 nir, 2 red, 3 green" in warning
    assert warned(image, model, bands=(1, 2, 3)) == ()


def test_an_order_that_was_changed_by_name_is_warned_of(tmp_path: Path, model: Path) -> None:
    image = geotiff(tmp_path / "a.tif", make_image(*SIZE), ["blue", "green", "red"])
    (warning,) = warned(image, model)
    assert "3 red, 2 green, 1 blue" in warning
    assert warned(image, model, bands=(3, 2, 1)) == ()


def test_a_band_that_is_left_out_by_name_is_not(tmp_path: Path, model: Path) -> None:
    names = ["red", "green", "blue", "nir"]
    image = geotiff(tmp_path / "a.tif", make_image(*SIZE, 4), names)
    assert warned(image, model) == ()


def test_names_of_another_kind_are_no_reason_to_warn(tmp_path: Path, model: Path) -> None:
    image = geotiff(tmp_path / "image.tif", make_image(*SIZE), ["B4", "B3", "B2"])
    assert warned(image, model) == ()


def deep(path: Path) -> tuple[Path, NDArray[np.uint16]]:
    """16 bits, of which 12 are used."""
    pixels = make_image(*SIZE).astype(np.uint16) * 14 + 7
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", metadata=None)
    return path, pixels


def test_values_that_are_rescaled_give_the_mask_of_the_rescaled_image(
    tmp_path: Path, nameless: Path
) -> None:
    image, pixels = deep(tmp_path / "deep.tif")
    plain = write_tiff(tmp_path / "plain.tif", Rescaling(100, 3500, np.dtype("uint8"))(pixels))
    expected = labels_of(plain, nameless, tmp_path / "a.ome.zarr")
    found = labels_of(image, nameless, tmp_path / "b.ome.zarr", rescale=(100, 3500))
    np.testing.assert_array_equal(found, expected)
    assert tilepipe.verify(tmp_path / "b.ome.zarr", windows=2).exact
    with pytest.raises(InputError, match=r"rescale was 100\.0,3500\.0, now 0\.0,3500\.0"):
        tilepipe.run(image, model=nameless, outputs=tmp_path / "b.ome.zarr", rescale=(0, 3500))


def test_the_plan_says_what_becomes_of_values(tmp_path: Path, nameless: Path) -> None:
    image, _ = deep(tmp_path / "deep.tif")
    plan = planned(image, nameless, rescale=(100, 3500))
    assert (plan.image.dtype, plan.image.reading.dtype) == ("uint8", "uint8")
    assert show_rescaling(plan) == "100 .. 3500 to 0 .. 255, clipped"


def test_another_type_is_refused_with_values_that_the_image_really_has(
    tmp_path: Path, nameless: Path
) -> None:
    image, pixels = deep(tmp_path / "deep.tif")
    with pytest.raises(InputError) as error:
        planned(image, nameless)
    low, high = (float(n) for n in str(error.value).split("--rescale ")[2].split(")")[0].split(","))
    assert low <= np.percentile(pixels, 0.1) < np.percentile(pixels, 99.9) <= high <= 4096


def test_a_model_of_floats_gets_0_to_1(tmp_path: Path) -> None:
    image, _ = deep(tmp_path / "deep.tif")
    model = save_named(tmp_path / "m.safetensors", (), "float32")
    plan = planned(image, model, rescale=(0, 4000))
    assert plan.image.dtype == "float32"
    assert show_rescaling(plan) == "0 .. 4000 to 0 .. 1, not clipped"


def test_a_model_of_floats_with_a_scale_of_its_own_is_no_model_for_0_to_1(tmp_path: Path) -> None:
    image, _ = deep(tmp_path / "deep.tif")
    model = save_named(tmp_path / "m.safetensors", (), "float32", scale=0.01)
    with pytest.raises(InputError, match=r"multiplies it by 0\.01"):
        planned(image, model, rescale=(0, 4000))
    with pytest.raises(InputError, match="convert the image"):
        planned(image, model)


def test_tissue_is_found_in_the_colours_of_the_file_whatever_band_the_model_gets(
    tmp_path: Path,
) -> None:
    from tests.regions.making import slide

    pixels, inside = slide(768, 1024)
    image = write_tiff(tmp_path / "slide.tif", pixels, 0.5)
    model = save_named(tmp_path / "m.safetensors", ("green",))
    plan = planned(image, model, bands=("green",), tissue="auto", level=0)
    assert plan.region is not None
    assert inside.mean() * 0.8 < plan.region.share < 0.9


def test_four_bands_of_naip_run_with_a_model_of_three(
    data: Path, tmp_path: Path, nameless: Path
) -> None:
    image = data / "geo/naip/m_4709963_se_14_1_20140720.tif"
    with tilepipe.open_image(str(image)) as whole:
        pixels = np.asarray(whole.as_dask())[..., [3, 0, 1]]
    plain = write_tiff(tmp_path / "plain.tif", np.ascontiguousarray(pixels), None)
    expected = labels_of(plain, nameless, tmp_path / "a.ome.zarr")
    found = labels_of(image, nameless, tmp_path / "b.ome.zarr", bands=(4, 1, 2))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_one_colour_of_an_ndpi_runs_with_nuclei_fluo(data: Path, tmp_path: Path) -> None:
    summary = tilepipe.run(
        data / "wsi/test3-DAPI-2-387.ndpi", model="nuclei-fluo", bands=("blue",), level=2,
        outputs=tmp_path / "m.ome.zarr", verify=2,
    )  # fmt: skip
    assert summary.verification is not None
    assert summary.verification.exact
    assert 0.01 < summary.classes[1].share < 0.5


def test_a_worker_in_the_process_of_the_run_reads_the_file_that_is_open(
    tmp_path: Path, model: Path
) -> None:
    pixels = make_image(*SIZE)
    path = write_tiff(tmp_path / "image.tif", pixels)
    facts = planned(path, model).image
    ours = open_input(RunOptions(str(path)), load_model(str(model)))
    theirs = open_planned(facts)
    assert theirs.file is ours.file
    ours.close()
    np.testing.assert_array_equal(theirs.read(Window(0, 0, *SIZE)), pixels)
    closed = weakref.ref(theirs.file)
    theirs.close()
    assert closed() is None
    with closing(open_planned(facts)) as again:
        np.testing.assert_array_equal(again.read(Window(0, 0, *SIZE)), pixels)


def test_a_worker_sees_that_the_file_of_the_run_was_replaced(tmp_path: Path, model: Path) -> None:
    path = write_tiff(tmp_path / "image.tif", make_image(*SIZE))
    facts = planned(path, model).image
    ours = open_input(RunOptions(str(path)), load_model(str(model)))
    write_tiff(tmp_path / "other.tif", make_image(*SIZE, seed=1)).replace(path)
    with closing(ours), closing(open_planned(facts)) as theirs:
        assert theirs.fingerprint() != facts.fingerprint
