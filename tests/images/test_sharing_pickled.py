"""Images that arrive by pickling: one file for all of them, and each of them for itself."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.making import make_image, write_tiff
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, convert, open_image, sharing
from tilepipe.images.registry import open_source
from tilepipe.images.source import Source

WINDOW = Window(10, 20, 30, 40)


class Counter:
    """Opens sources, and counts how many were opened and closed."""

    def __init__(self) -> None:
        self.opened = self.closed = 0

    def __call__(self, path: str, series: int | str | None, *, streaming: bool) -> Source:
        source = open_source(path, series, streaming=streaming)
        self.opened += 1
        close = source.close

        def closed() -> None:
            self.closed += 1
            close()

        source.close = closed  # type: ignore[method-assign]
        return source


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    sharing._shared.cache_clear()
    counter = Counter()
    monkeypatch.setattr(sharing, "open_source", counter)
    yield counter
    sharing._shared.cache_clear()


@pytest.fixture
def pixels() -> np.ndarray:
    return make_image(200, 260)


@pytest.fixture
def image(tmp_path: Path, pixels: np.ndarray) -> Iterator[Image]:
    with open_image(write_tiff(tmp_path / "image.tif", pixels)) as opened:
        yield opened


def test_closing_a_copy_closes_no_other(image: Image, pixels: np.ndarray) -> None:
    sent = pickle.dumps(image)
    first, second = pickle.loads(sent), pickle.loads(sent)
    first.close()
    for other in (second, pickle.loads(sent)):
        np.testing.assert_array_equal(other.read(WINDOW), pixels[WINDOW.slices()])
        other.close()


def test_a_closed_copy_is_not_read(image: Image) -> None:
    copy = pickle.loads(pickle.dumps(image))
    copy.close()
    copy.close()
    with pytest.raises(ValueError, match="closed"):
        copy.read(WINDOW)


def test_many_copies_open_one_file_and_the_last_to_go_closes_it(
    image: Image, counter: Counter
) -> None:
    sent = pickle.dumps(image)
    copies = [pickle.loads(sent) for _ in range(50)]
    for copy in copies:
        copy.read(WINDOW)
    assert (counter.opened, counter.closed) == (1, 0)
    sharing._shared.cache_clear()
    copies[0].close()
    assert counter.closed == 0, "the others still read it"
    del copies, copy
    gc.collect()
    assert counter.closed == 1


def test_of_many_files_few_stay_open(tmp_path: Path, counter: Counter) -> None:
    for number in range(3 * sharing.KEPT):
        path = write_tiff(tmp_path / f"{number}.tif", make_image(40, 40))
        with open_image(path) as opened:
            pickle.loads(pickle.dumps(opened)).close()
    gc.collect()
    assert counter.opened - counter.closed <= sharing.KEPT


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_was_replaced_is_opened_anew(
    image: Image, in_place: bool, tmp_path: Path
) -> None:
    sent = pickle.dumps(image)
    assert pickle.loads(sent).shape == (200, 260, 3)
    new = write_tiff(tmp_path / "new.tif", make_image(90, 70))
    if in_place:
        Path(image.path).write_bytes(new.read_bytes())
    else:
        new.replace(image.path)
    assert pickle.loads(sent).shape == (90, 70, 3)


def test_a_zarr_folder_that_was_converted_anew_is_opened_anew(tmp_path: Path) -> None:
    target = tmp_path / "image.ome.zarr"
    convert.convert(write_tiff(tmp_path / "a.tif", make_image(200, 260)), target)
    with open_image(target) as opened:
        sent = pickle.dumps(opened)
    assert pickle.loads(sent).shape == (200, 260, 3)
    convert.convert(write_tiff(tmp_path / "b.tif", make_image(90, 70)), target, overwrite=True)
    assert pickle.loads(sent).shape == (90, 70, 3)


def test_a_lazy_array_of_a_file_that_was_replaced_gives_no_pixels_of_the_new_one(
    image: Image, tmp_path: Path
) -> None:
    sent = pickle.dumps(image.as_dask())
    write_tiff(tmp_path / "new.tif", make_image(200, 260, seed=1)).replace(image.path)
    with pytest.raises(InputError, match="has changed since"):
        pickle.loads(sent).compute(scheduler="synchronous")


def test_the_chunks_of_a_lazy_array_open_one_file(
    tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.images.windowed.DASK_CHUNK", 128)
    pixels = make_image(500, 600)
    with open_image(write_tiff(tmp_path / "image.tif", pixels)) as opened:
        array = opened.as_dask()
    blocks = [pickle.dumps(array.blocks[y, x]) for y, x in np.ndindex(array.numblocks[:2])]
    assert len(blocks) > 10
    found = [pickle.loads(block).compute(scheduler="synchronous") for block in blocks]
    assert sum(block.size for block in found) == pixels.size
    assert counter.opened == 1
