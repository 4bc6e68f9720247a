"""Tests that every reader of images passes; those of other packages inherit them.

class TestMyReader(ReaderContract):
reader = my_package.my_reader

@pytest.fixture
def expected(self):
return some_pixels

@pytest.fixture
def path(self, tmp_path, expected):
return written_as_my_format(tmp_path / "image.mine", expected)
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.images.probe import Probe
from tilepipe.images.registry import Reader
from tilepipe.images.source import Source

WINDOWS = 24
"""Windows that are compared with the whole image."""


class ReaderContract:
    """Tests of one reader on one file; a subclass provides both."""

    reader: ClassVar[Reader]
    """The module or object that is tested."""

    takes_all: ClassVar[bool] = False
    """Whether it is tried on everything that no other reader recognises."""

    @pytest.fixture
    def expected(self) -> NDArray[Any]:
        """Pixels of level 0, shape (height, width, bands), without alpha; of no constant value."""
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path: Path, expected: NDArray[Any]) -> Path:
        """A file or folder that holds the expected pixels; tests may change it."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, path: Path) -> Iterator[Source]:
        """The file, opened by the reader."""
        source = self._opened(path)
        yield source
        source.close()

    def test_it_recognises_the_file(self, path: Path) -> None:
        with Probe(str(path)) as probe:
            assert self.reader.recognises(probe)

    def test_it_recognises_no_file_of_another_kind(self, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.write_bytes(b"none of the formats that there are")
        with Probe(str(other)) as probe:
            assert self.takes_all or not self.reader.recognises(probe)

    def test_the_file_opens_as_an_image(self, path: Path, expected: NDArray[Any]) -> None:
        with open_image(path) as image:
            assert image.path == str(path)
            assert (image.shape, image.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_array_equal(image.read(_whole(expected)), expected)

    def test_the_description_is_of_the_file(self, source: Source, expected: NDArray[Any]) -> None:
        described = source.description
        assert described.kind
        assert (described.bands, described.dtype) == (expected.shape[2], expected.dtype)
        assert described.grid.shape == expected.shape[:2]
        assert described.nodata == () or len(described.nodata) == described.bands
        assert described.scaling == () or len(described.scaling) == described.bands

    def test_levels_grow_coarser_from_level_0(self, source: Source) -> None:
        levels = source.description.levels
        height, width = source.description.grid.shape
        assert (levels[0].height, levels[0].width) == (height, width)
        assert len(source.description.chunks) == len(levels)
        assert all(min(chunk) > 0 for chunk in source.description.chunks)
        for finer, coarser in pairwise(levels):
            assert coarser.height < finer.height
            assert coarser.width < finer.width
        for level in levels:
            assert level.scale_y == pytest.approx(height / level.height, rel=2 / level.height)
            assert level.scale_x == pytest.approx(width / level.width, rel=2 / level.width)

    def test_windows_of_every_level_are_parts_of_the_whole(self, source: Source) -> None:
        described = source.description
        for number, level in enumerate(described.levels):
            whole = source.read(Window(0, 0, level.height, level.width), number)
            assert whole.shape == (level.height, level.width, described.bands)
            assert whole.dtype == described.dtype
            for window in _windows(level.height, level.width):
                found = source.read(window, number)
                np.testing.assert_array_equal(found, whole[window.slices()])

    def test_validity_comes_with_the_same_pixels(self, source: Source) -> None:
        level = source.description.levels[0]
        for window in _windows(level.height, level.width):
            if source.description.masked:
                pixels, valid = source.read_masked(window, 0)
                assert valid.shape == window.shape
                assert valid.dtype == np.bool_
                np.testing.assert_array_equal(pixels[valid], source.read(window, 0)[valid])

    def test_bands_are_selected_in_any_order(self, source: Source, expected: NDArray[Any]) -> None:
        window, bands = _whole(expected), source.description.bands
        for places in ([0], [*reversed(range(bands))], [bands - 1, 0, 0]):
            selected = source.select(places)
            assert selected.description.bands == len(places)
            np.testing.assert_array_equal(selected.read(window, 0), expected[..., places])
        np.testing.assert_array_equal(source.read(window, 0), expected)

    def test_the_fingerprint_is_of_the_content(self, path: Path, source: Source) -> None:
        first = source.fingerprint()
        assert first == source.fingerprint() == _fingerprint(path)
        with _largest_file(path).open("r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes([last[0] ^ 1]))
        assert source.fingerprint() != first

    def test_threads_read_what_one_thread_reads(
        self, source: Source, expected: NDArray[Any]
    ) -> None:
        windows = list(_windows(*expected.shape[:2]))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda window: source.read(window, 0), windows))
        for window, pixels in zip(windows, found, strict=True):
            np.testing.assert_array_equal(pixels, expected[window.slices()])

    def test_an_image_of_it_travels_to_other_processes(
        self, path: Path, expected: NDArray[Any]
    ) -> None:
        with open_image(path) as image:
            copy = pickle.loads(pickle.dumps(image))
        np.testing.assert_array_equal(copy.read(_whole(expected)), expected)
        assert copy.fingerprint() == _fingerprint(path)
        copy.close()

    def test_closing_twice_does_no_harm(self, path: Path) -> None:
        source = self._opened(path)
        source.close()
        source.close()

    @pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
    def test_a_file_that_was_cut_off_is_never_read_as_something_else(
        self, path: Path, expected: NDArray[Any], share: float
    ) -> None:
        cut = _largest_file(path)
        content = cut.read_bytes()
        cut.write_bytes(content[: int(share * len(content))])
        try:
            with open_image(path) as image:
                found = image.read(_whole(expected))
        except (InputError, UnreadableError):
            return
        np.testing.assert_array_equal(found, expected)

    def _opened(self, path: Path) -> Source:
        with Probe(str(path)) as probe:
            return self.reader.open_source(probe)


def _fingerprint(path: Path) -> str:
    with open_image(path) as image:
        return image.fingerprint()


def _whole(pixels: NDArray[Any]) -> Window:
    return Window(0, 0, *pixels.shape[:2])


def _windows(height: int, width: int) -> Iterator[Window]:
    """Windows of all sizes, always the same; the corners are among them."""
    rng = np.random.default_rng(0)
    yield Window(0, 0, 1, 1)
    yield Window(height - 1, width - 1, 1, 1)
    for _ in range(WINDOWS - 2):
        (y, stop_y), (x, stop_x) = (
            sorted(int(place) for place in rng.choice(side + 1, 2, replace=False))
            for side in (height, width)
        )
        yield Window(y, x, stop_y - y, stop_x - x)


def _largest_file(path: Path) -> Path:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return max(files, key=lambda file: (file.stat().st_size, file))
