"""What tifffile and GDAL remark on a file is shown with the image, unless it is harmless."""

from __future__ import annotations

import contextvars
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile

from tests.images import slides
from tests.making import make_image, write_tiff
from tilepipe.images import open_image
from tilepipe.images.library_warnings import HARMLESS, LOGGERS, MOST, listening, remarks


def doubtful_tiff(path: Path) -> Path:
    """An ImageJ TIFF whose metadata promise more planes than it has."""
    text = "ImageJ=1.11a\nimages=7\nchannels=7\nmode=grayscale\n"
    tifffile.imwrite(
        path,
        make_image(60, 70, 1)[..., 0],
        photometric="minisblack",
        description=text,
        metadata=None,
    )
    return path


def doubtful_geotiff(path: Path) -> Path:
    """A GeoTIFF that names a projected CRS which there is not."""
    keys = (1, 1, 0, 1, 3072, 0, 1, 34463)
    tifffile.imwrite(
        path,
        make_image(60, 70, 1)[..., 0],
        photometric="minisblack",
        metadata=None,
        extratags=[
            (33550, 12, 3, (10.0, 10.0, 0.0), True),
            (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True),
            (34735, 3, len(keys), keys, True),
        ],
    )
    return path


@pytest.mark.parametrize("logger", LOGGERS)
def test_what_is_logged_is_heard_and_not_printed(
    logger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening() as heard:
        logging.getLogger(logger).warning("<a 0x7f> <b> the  sizes\ndo not fit")
        logging.getLogger(logger).debug("all is well")
    assert heard == ["the sizes do not fit"]
    assert capsys.readouterr().err == ""


def test_what_a_file_smuggles_into_a_message_does_not_reach_the_terminal() -> None:
    with listening() as heard:
        logging.getLogger("tifffile").warning("bad tag \x1b[2J%s", "x" * 1000)
    assert heard[0].startswith("bad tag ?[2Jxxx")
    assert len(heard[0]) < 320


class Kept(logging.Handler):
    """Keeps what is passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_what_is_logged_when_nobody_listens_is_passed_on() -> None:
    logger, kept = logging.getLogger("tifffile"), Kept()
    logging.root.addHandler(kept)
    try:
        # In a context of its own: an interrupt of another test may have left one that listens.
        contextvars.Context().run(logger.warning, "the sizes do not fit")
    finally:
        logging.root.removeHandler(kept)
    facts = logger.disabled, logger.propagate, logger.parent, logger.filters, logging.root.handlers
    assert kept.texts == ["the sizes do not fit"], facts


def test_a_remark_on_the_file_is_a_note_of_the_image(tmp_path: Path) -> None:
    image = open_image(doubtful_tiff(tmp_path / "a.tif"))
    assert any("tifffile remarks: ImageJ series" in note for note in image.notes)


def test_a_remark_of_gdal_is_a_note_of_the_image(tmp_path: Path) -> None:
    image = open_image(doubtful_geotiff(tmp_path / "a.tif"))
    assert any("GDAL remarks: " in note and "EPSG" in note for note in image.notes)
    assert not any("CPLE" in note for note in image.notes)


def test_a_sound_file_has_no_notes(tmp_path: Path) -> None:
    assert open_image(write_tiff(tmp_path / "a.tif", make_image(300, 200))).notes == ()


def test_remarks_are_said_once_and_not_without_end() -> None:
    heard = ["one", "one", *(f"thing {number}" for number in range(9))]
    notes = remarks("GDAL", heard)
    assert notes[0] == "GDAL remarks: one"
    assert len(notes) == MOST + 1
    assert "5 more" in notes[-1]


def test_what_is_harmless_is_not_shown_and_has_a_reason(tmp_path: Path) -> None:
    with listening() as heard, tifffile.TiffFile(slides.ventana(tmp_path / "a.bif")) as file:
        assert file.series
    assert heard == ["BIF series tiles are not stitched"]
    assert remarks("tifffile", heard) == ()
    assert all(reason for _, reason in HARMLESS)


def test_the_command_line_shows_what_a_library_logs_later() -> None:
    code = (
        "import logging, sys, tilepipe.cli as c; sys.argv = ['tilepipe', 'models'];"
        "c.call = lambda _: logging.getLogger('rasterio._err').warning('odd tile') or 0; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "tilepipe: warning: rasterio._err: odd tile\n"
