"""Options are declared once; each of their faults is one sentence that names the key."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import tilepipe
from tilepipe.cli import app
from tilepipe.engine.options import RunOptions
from tilepipe.errors import InputError
from tilepipe.evaluation.options import EvaluateOptions
from tilepipe.models import unet_arguments as unet
from tilepipe.training import options as training
from tilepipe.training.options import TrainOptions


def run_options(**values: Any) -> RunOptions:
    return RunOptions.parse({"image": "i.tif", **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"widnow": 5}, "widnow is not a known option; did you mean window?"),
        ({"zzz": 5}, "zzz is not a known option; there are image, model, output, level"),
        ({"level": "two"}, "level must be a whole number, not 'two'"),
        ({"level": True}, "level must be a whole number, not True"),
        ({"level": -1}, "level must be at least 0, not -1"),
        ({"retries": 10**400}, "retries must be at most 1,000,000, not 1000"),
        ({"threads": 2000}, "threads must be at most 1,024, not 2000"),
        ({"timeout": 0}, "timeout must be above 0, not 0"),
        ({"timeout": float("nan")}, "timeout must be above 0, not nan"),
        ({"pixel-size": float("inf")}, "pixel-size must be a finite number, not inf"),
        ({"memory": "plenty"}, "memory: 'plenty' is not a memory size; use, for example, 2GB"),
        ({"unscale": "yes"}, "unscale must be true or false, not 'yes'"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, not 'tpu'"),
        ({"window": "large"}, "window must be a whole number or auto, not 'large'"),
        ({"outputs": [1]}, "outputs[0] must be a string, not 1"),
        ({"model": " "}, "model is empty; give it a value, or leave it out"),
        ({"model": None}, "model must be a string, not None"),
        ({"region": "1,2,3"}, "region: '1,2,3' has 3 numbers, not four; give Y,X,HEIGHT,WIDTH"),
    ],
)
def test_what_is_wrong_with_an_option_is_one_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        run_options(**values)
    assert str(caught.value).startswith(said)


def test_a_file_is_named_where_its_option_is_at_fault() -> None:
    with pytest.raises(InputError, match=r"^run\.yaml: level must be at least 0, not -1$"):
        RunOptions.parse({"image": "i.tif", "level": -1}, "run.yaml")


def test_text_becomes_the_value_that_it_means() -> None:
    options = run_options(
        output="m.tif", pixel_size="250 nm", memory="1.5 GiB", wait="2 min", bands="3,red",
        region="0,0,10,20", nodata="nan", window="572",
    )  # fmt: skip
    assert (options.outputs, options.pixel_size, options.memory) == (("m.tif",), 0.25, 3 << 29)
    assert (options.wait, options.bands, options.region) == (120.0, (3, "red"), (0, 0, 10, 20))
    assert options.nodata != options.nodata
    assert options.window == 572


def test_paths_are_taken_as_text() -> None:
    options = run_options(model=Path("a/m.safetensors"), outputs=[Path("x.tif"), "y.tif"])
    assert (options.model, options.outputs) == ("a/m.safetensors", ("x.tif", "y.tif"))


def test_what_is_built_directly_is_checked_as_well() -> None:
    with pytest.raises(InputError, match="workers must be at least 1, not 0"):
        RunOptions("i.tif", workers=0)
    assert RunOptions("i.tif", pixel_size=1).pixel_size == 1.0


@pytest.mark.parametrize(
    ("function", "kind", "own"),
    [
        (tilepipe.run, RunOptions, {"image", "watch"}),
        (tilepipe.plan, RunOptions, {"image"}),
        (tilepipe.run_batch, RunOptions, {"images", "watch"}),
        (tilepipe.train, TrainOptions, {"data", "output", "watch"}),
        (tilepipe.evaluate, EvaluateOptions, {"mask", "truth", "progress"}),
    ],
)
def test_help_and_signature_list_every_option(function: Any, kind: Any, own: set[str]) -> None:
    parameters = inspect.signature(function).parameters
    positional = {"data", "output", "mask", "truth", *(["image"] if kind is RunOptions else [])}
    positional &= set(kind.__dataclass_fields__)
    assert set(parameters) == own | set(kind.__dataclass_fields__) - positional
    for name in set(parameters) - own:
        assert f"\n{name} : " in function.__doc__
        assert parameters[name].annotation is not inspect.Parameter.empty


@pytest.mark.parametrize(
    ("command", "kind"),
    [("run", RunOptions), ("train", TrainOptions), ("evaluate", EvaluateOptions)],
)
def test_the_command_line_has_every_option(command: str, kind: Any) -> None:
    made = app.get_command(click.Context(app), command)
    assert made is not None
    arguments = {"image"} if kind is RunOptions else {"about"}
    assert set(kind.__dataclass_fields__) - arguments <= {p.name for p in made.params}


def test_choices_of_a_training_are_those_of_the_network() -> None:
    hints = inspect.get_annotations(TrainOptions, eval_str=True)
    assert set(get_args(training.Preset)) == set(unet.PRESETS)
    for name in ("padding", "normalisation", "upsampling"):
        wanted = getattr(unet, name.capitalize())
        assert get_args(get_args(hints[name])[0]) == get_args(wanted)


def test_the_package_lists_its_functions() -> None:
    assert {"run", "plan", "open_image", "open_mask", "verify", "train"} <= set(dir(tilepipe))
    assert "Any" not in dir(tilepipe)
