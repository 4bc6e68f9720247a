"""Every option of every command with values that nobody means: one clear line, no traceback.

Each option is given the values that most went wrong and some of the others, in turns;
`TILEPIPE_LONG=1` gives all to each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli import COMMANDS, app, call
from tilepipe.models.unet import UNetArguments

CODES = {0, 2, 3, 4, 5}
FEW = ["", "pipe", "\udcff"]
"""All that `doctor` is given, which takes seconds whatever it is told."""
OTHERS = [
    "nan", " ", "-1", "a\nb\x1b[2J\u202e", "9" * 400, "folder/", "1e20", "/dev/zero", "x" * 300, "s3://",
]  # fmt: skip
IN_TURNS = 4
BASE = {
    "run": ["image.tif", "-m", "m.safetensors", "-q", "--overwrite", "--window", "572"],
    "plan": ["image.tif", "-m", "m.safetensors", "--window", "572"],
    "objects": ["done.ome.zarr", "-o", "o.csv", "-q", "--overwrite", "--workers", "1"],
    "verify": ["done.ome.zarr", "--windows", "1"],
    "validate": ["done.ome.zarr"],
    "train": [
        "data", "-o", "t.safetensors", "--steps", "1", "--preset", "unet-small", "--width", "1",
        "--tile", "220", "--validation", "0", "-q", "--overwrite",
    ],
    "quantise": ["m.safetensors", "image.tif", "-o", "q.safetensors", "-q", "--overwrite"],
    "evaluate": ["truth.tif", "truth.tif"],
    "models": [],
    "info": ["image.tif"],
    "convert": ["image.tif", "c.ome.zarr", "--overwrite", "-q"],
    "doctor": [],
}  # fmt: skip
"""Words with which each command does what it should."""

WRITTEN = {"json_path", "csv_path"}
"""Paths that may well be pipes and devices: ``--json >(jq ...)``."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an image, a model, a mask, pairs to train on, and what is none of these."""
    folder = tmp_path_factory.mktemp("any")
    before = Path.cwd()
    os.chdir(folder)
    save_tiny(folder / "m.safetensors", UNetArguments(width=1))
    write_tiff(folder / "image.tif", make_image(60, 50))
    truth = (make_image(60, 50, 1)[..., 0] > 127).astype(np.uint8)
    tifffile.imwrite("truth.tif", truth)
    for name in ("data/images", "data/masks", "folder"):
        (folder / name).mkdir(parents=True)
    write_tiff(folder / "data/images/1.tif", make_image(60, 50))
    tifffile.imwrite("data/masks/1.tif", truth)
    os.mkfifo("pipe")
    assert call(["run", *BASE["run"], "-o", "done.ome.zarr"]) == 0
    yield folder
    os.chdir(before)


def parameters() -> Iterator[tuple[str, str]]:
    """Each option and argument; of those that `plan` and `run` share, what `plan` makes of them."""
    planned = {p.name for p in command_of("plan").params} - {"outputs"}
    for name in COMMANDS:
        for parameter in command_of(name).params:
            flag = getattr(parameter, "is_flag", False)
            if not flag and not (name == "run" and parameter.name in planned):
                yield name, str(parameter.name)


def command_of(name: str) -> click.Command:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    return command


def words(name: str, parameter: click.Parameter, value: str) -> list[str]:
    """The command line, with one argument or option of it as given."""
    base = list(BASE[name])
    if isinstance(parameter, click.Option):
        return [name, *base, f"{parameter.opts[-1]}={value}"]
    place = 1 if parameter.name in ("truth", "target") else 0
    return [name, *base[:place], value, *base[place + 1 :]]


PARAMETERS = list(parameters())


def values(name: str, option: str) -> list[str]:
    """What an option is given."""
    if name == "doctor":
        return FEW
    if "TILEPIPE_LONG" in os.environ:
        return FEW + OTHERS
    first = PARAMETERS.index((name, option)) * IN_TURNS
    return FEW + [OTHERS[(first + number) % len(OTHERS)] for number in range(IN_TURNS)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), PARAMETERS)
def test_any_value(
    name: str, option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameter = next(p for p in command_of(name).params if p.name == option)
    for value in values(name, option):
        if value in ("pipe", "/dev/zero") and option in WRITTEN:
            continue
        if value.startswith("-") and isinstance(parameter, click.Argument):
            continue
        given = words(name, parameter, value)
        code = call(given)
        out, err = capsys.readouterr()
        assert code in CODES, (given, err)
        assert "Traceback" not in err, given
        lines = err.strip().splitlines()
        if code != 0 and name != "doctor":
            assert len(lines) == 1, (given, err)
            assert lines[0].startswith("tilepipe: "), given
        for line in (*lines, *out.splitlines()):
            assert line.isprintable(), (given, line)


def test_what_is_begun_leaves_nothing_elsewhere(folder: Path) -> None:
    """`-o ""` once wrote into the root folder."""
    assert not list(Path("/").glob("*_mask*"))
    assert json.loads((folder / "done.run.json").read_text())["complete"]
