"""Lines of a terminal break at words; those of a file do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.cli import call, lines
from tilepipe.cli.lines import broken
from tilepipe.models.unet import UNetArguments


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines.shutil, "get_terminal_size", lambda: os.terminal_size((120, 40)))


@pytest.mark.usefixtures("columns")
def test_a_long_line_breaks_at_words_and_is_indented_like_its_text() -> None:
    text = "warning   " + "word " * 40
    first, *rest = broken(text.strip()).split("\n")
    assert first.startswith("warning   word")
    assert all(line.startswith(" " * 10 + "word") for line in rest)
    assert max(map(len, [first, *rest])) <= 80


@pytest.mark.usefixtures("columns")
def test_lines_that_fit_and_paths_stay_whole() -> None:
    assert broken("blocks    4\n\nmask") == "blocks    4\n\nmask"
    path = "/a" * 60
    assert broken(f"mask      {path}") == f"mask      {path}"
    assert path in broken(f"mask      {path} and words")


@pytest.mark.usefixtures("columns")
def test_a_narrow_indent_keeps_the_spaces_of_the_label() -> None:
    assert broken("ok    codecs    " + "x " * 60, 16).startswith("ok    codecs    x x")


def test_a_warning_of_the_plan_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("tiny.safetensors"), UNetArguments(width=2, depth=2))
    write_tiff(Path("coarse.tif"), make_image(120, 150), pixel_size_um=0.5)
    words = ["run", "coarse.tif", "-m", "tiny.safetensors", "-o", "mask.ome.zarr"]
    for _ in range(2):  # computed, and then found done
        assert call(words) == 0
        printed = "".join(capsys.readouterr())
        assert printed.count("the image is coarser than model tiny expects") == 1
