"""What stands before the terminal: text comes out as text, and output that is lost costs a line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tifffile
from rich.progress import Progress, TextColumn
from rich.table import Table

import tilepipe
from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli import call
from tilepipe.cli.guard import Guard, OutputError, PipeClosedError, guarded
from tilepipe.cli.terminal import Terminal
from tilepipe.models.unet import UNetArguments

EVIL = "a\x1b[31m\x9b2J\u202e\udcff[/b]"
SHOWN = r"a\x1b[31m\x9b2J\u202e\xff[/b]"


class Failing(io.StringIO):
    """A stream of which writes fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_whoever_prints_prints_text(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded():
        sys.stdout.write(f"{EVIL}\n")
        sys.stderr.write(EVIL)
        try:
            raise ValueError(EVIL)
        except ValueError:
            traceback.print_exc()
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n"
    assert err.startswith(SHOWN)
    assert all(line.isprintable() for line in err.splitlines())


def test_a_table_and_a_bar_show_text_and_may_colour_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with guarded():
        terminal = Terminal(force_terminal=True, width=120)
        table = Table(EVIL)
        table.add_row(EVIL, style="red")
        terminal.print(table)
        with Progress(TextColumn("{task.description}", markup=False), console=terminal) as bar:
            bar.add_task(EVIL)
    text = stream.getvalue()
    assert text.count(SHOWN) == 2
    assert not {"\x9b", "\u202e", "\udcff"} & set(text)
    assert "\x1b[31m" in text, "the colour that the table asks for"
    assert "a\x1b" not in text, "but none that a name asks for"


def test_an_encoding_that_lacks_a_letter_does_no_harm() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Guard(stream, is_error=False).write("0.1 mm² µ")
    stream.flush()
    assert raw.getvalue() == rb"0.1 mm\xb2 \xb5"


@pytest.mark.parametrize(
    ("error", "kind"), [(BrokenPipeError(), PipeClosedError), (OSError(28, "full"), OutputError)]
)
def test_output_that_is_lost_is_an_error_and_stays_one(error: Exception, kind: type) -> None:
    guard = Guard(Failing(error), is_error=False)
    for _ in range(2):
        with pytest.raises(kind):
            guard.write("x")


def test_standard_error_that_is_lost_is_no_error() -> None:
    Guard(Failing(OSError(28, "full")), is_error=True).write("x")
    Guard(None, is_error=True).write("x")


def tilepipe_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = command.replace("tilepipe", f"{sys.executable} -m tilepipe")
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_tiff(folder / "image.tif", make_image(60, 50))
    save_tiny(folder / "m.safetensors", UNetArguments(width=1))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        ("tilepipe info image.tif >&-", 4, "it is closed"),
        ("tilepipe info image.tif | true; exit ${PIPESTATUS[0]}", 141, "was closed before"),
        ("tilepipe info image.tif 2>&-", 0, ""),
        ("PYTHONIOENCODING=ascii tilepipe models", 0, ""),
    ],
)
def test_standard_output_that_nobody_gets(
    redirected: str, code: int, said: str, folder: Path
) -> None:
    result = tilepipe_in_shell(redirected, folder)
    assert result.returncode == code, result.stderr
    assert len(result.stderr.splitlines()) == (1 if said else 0)
    assert said in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_run_is_kept_though_nothing_can_be_printed(folder: Path) -> None:
    run = "tilepipe run image.tif -m m.safetensors -o kept.ome.zarr --window 572"
    result = tilepipe_in_shell(f"{run} > /dev/full", folder)
    assert result.returncode == 4
    last = result.stderr.splitlines()[-1]
    assert "No space left on device; files that the command has written are complete" in last
    assert json.loads((folder / "kept.run.json").read_text())["complete"]
    assert tilepipe_in_shell(f"{run} -q 2> /dev/full", folder).returncode == 0


def test_a_folder_that_was_removed(folder: Path) -> None:
    result = tilepipe_in_shell(
        f"mkdir gone; cd gone; rmdir ../gone; tilepipe info {folder}/image.tif", folder
    )
    assert result.returncode == 2
    assert "the current folder has been removed" in result.stderr


@pytest.mark.slow
def test_nothing_of_a_name_acts_in_what_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "sl\u202eide\x1b[31m\n\udcff$"
    image, model = f"{name}.ome.tif", f"{name}.safetensors"
    tifffile.imwrite(
        image, make_image(60, 50), photometric="rgb", tile=(64, 64),
        metadata={"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25},
    )  # fmt: skip
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=1))
    Path("m.safetensors").rename(model)
    Path("other").mkdir()
    twin = f"other/2{image}"
    Path(twin).write_bytes(Path(image).read_bytes())
    truth = (make_image(60, 50, 1)[..., 0] > 127).astype(np.uint8)
    Path("truths").mkdir()
    tifffile.imwrite(f"truths/{name}.ome.tif", truth, metadata={"axes": "YX"})
    commands: list[list[Any]] = [
        ["info", image],
        ["info", model],
        ["plan", image, "-m", model],
        ["run", image, "-m", model, "--window", "572"],
        ["run", image, twin, "-m", model, "-o", "out/", "--window", "572"],
        ["verify", f"{name}_mask.ome.tif", "--windows", "1"],
        ["evaluate", f"{name}_mask.ome.zarr", f"truths/{name}.ome.tif", "--csv", "e.csv"],
        ["convert", image, f"{name}.ome.zarr"],
    ]
    for command in commands:
        assert call([str(word) for word in command]) == 0, command
        out, err = capsys.readouterr()
        for line in (out + err).splitlines():
            assert line.isprintable(), (command, line)
    with tifffile.TiffFile(f"{name}_mask.ome.tif") as written:
        texts = {"OME-XML": str(written.ome_metadata)}
    for path in (*tmp_path.rglob("*.json"), *tmp_path.rglob("*.csv")):
        texts[str(path)] = path.read_text(encoding="utf-8")
    assert len(texts) > 10
    for path, content in texts.items():
        assert all(line.isprintable() for line in content.splitlines()), path
    record = json.loads(Path(f"{name}_mask.run.json").read_text())
    assert os.path.basename(record["image"]["path"]) == image, "JSON holds names as they are"  # noqa: PTH119
    assert tilepipe.open_mask(f"{name}_mask.ome.zarr").shape == (60, 50)


def test_no_part_of_the_command_line_has_a_console_of_its_own() -> None:
    """Whatever rich draws is cleaned by `Terminal`; else it would be drawn as escapes."""
    sources = Path(call.__code__.co_filename).parent.glob("*.py")
    own = [path.name for path in sources if "import Console" in path.read_text()]
    assert own == ["terminal.py"]


def test_click_is_guarded_too(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded():
        click.echo("x\x9by")
    assert capsys.readouterr().out == "x\\x9by\n"
