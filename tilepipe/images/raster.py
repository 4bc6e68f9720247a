"""Georeferenced images, and all else that only GDAL reads, through rasterio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import narrowed
from tilepipe.images.base import RasterGrid
from tilepipe.images.file_sets import FileSet
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.gdal import (
    CACHE_MB,
    DRIVERS,
    GDAL_ERRORS,
    gdal_settings,
    open_dataset,
    reason,
)
from tilepipe.images.gdal_bands import Bands, alpha_of, has_validity, scaling_in
from tilepipe.images.gdal_grid import grid_of
from tilepipe.images.gdal_paths import place_of, require_reachable
from tilepipe.images.gdal_series import directory
from tilepipe.images.geotiff_tiles import PartChecks, TileCheck
from tilepipe.images.levels import pyramid
from tilepipe.images.library_warnings import listening, remarks
from tilepipe.images.orientation import orientation_notes
from tilepipe.images.other_formats import name_other
from tilepipe.images.probe import Probe
from tilepipe.images.source import Description, TooLargeError, UndecodableError
from tilepipe.images.survey import open_surveyed
from tilepipe.storage import is_url

SIDECARS = (".aux.xml", ".ovr")
"""Suffixes of files that viewers make: statistics and overviews, not part of the content."""

DECODING = "IReadBlock failed"
"""GDAL's message for pixels of an opened file that it cannot decode."""

ROW_BY_ROW = frozenset({"PNG", "JPEG", "GIF"})
"""Drivers that decode from the top; a window further up than the last one starts over."""


class GdalFile:
    """A file opened with GDAL, all the files that it is read from, and what GDAL logged."""

    def __init__(self, probe: Probe) -> None:
        self.heard: list[str] = []
        with gdal_settings(probe.path, streaming=probe.streaming), listening(self.heard):
            self.files, self.dataset = open_surveyed(probe.path)
            self.tags: dict[str, str] = self.dataset.tags()

    def close(self) -> None:
        """Close the dataset, unless a source has taken it."""
        if self.dataset is not None:
            self.dataset.close()

    def taken(self) -> Any:
        """Hand over the dataset, to be closed by who takes it."""
        dataset, self.dataset = self.dataset, None
        return dataset


def recognises(probe: Probe) -> bool:
    """Tell whether it is a file: GDAL is tried on all that no other reader recognises."""
    return not probe.is_folder


def open_source(probe: Probe) -> RasterSource:
    """Open an image with GDAL: of a GeoTIFF of several, the main one, unless another is chosen.

    Raises
    ------
    InputError
        GDAL does not know it, or it holds no numbers.
    """
    try:
        return _opened(probe)
    except InputError:
        name_other(probe)
        raise


def has_gdal_metadata(probe: Probe) -> bool:
    """Tell whether GDAL finds a place on Earth, a nodata value, a scale or a mask in an image."""
    try:
        file = probe.once(GdalFile)
        dataset = file.dataset
        with gdal_settings(probe.path), listening(file.heard):
            return (
                grid_of(dataset).is_placed
                or any(value is not None for value in dataset.nodatavals)
                or bool(scaling_in(dataset, dataset.indexes))
                or (has_validity(dataset) and alpha_of(dataset) is None)
            )
    except GDAL_ERRORS:
        return False


def _opened(probe: Probe) -> RasterSource:
    path = probe.path
    try:
        file = probe.once(GdalFile)
        with listening(file.heard):
            return RasterSource(probe, file)
    except UndecodableError as error:
        raise InputError(f"{path} cannot be opened: {error}; try again when it is whole") from error
    except GDAL_ERRORS as error:
        require_reachable(path)
        # What GDAL says of an address is what the server said, and is not for others.
        why, cause = (reason(error), error) if not is_url(path) else ("GDAL cannot", None)
        raise InputError(
            f"{path} is not an image that tilepipe can read ({why}); docs/formats.md "
            "lists what can be"
        ) from cause


class RasterSource:
    """A GDAL dataset and its overviews."""

    def __init__(self, probe: Probe, file: GdalFile) -> None:
        self._files = file.files
        self._part_checks = PartChecks()
        name, listed, number = directory(probe.path, file.dataset, probe.series, _dataset)
        self._pool = _Handles(name or probe.path, self._files, probe.streaming)
        if name is None:
            self._pool.add(file.taken())
        try:
            described = self._describe(probe)
            notes = (*probe.notes, *described.notes, *remarks("GDAL", file.heard))
            self.description = replace(described, series=listed, series_number=number, notes=notes)
        except BaseException:
            self._pool.close()
            raise

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """As `Source.read`."""
        return self._read(window, level)[0]

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        pixels, valid = self._read(window, level, masked=True)
        assert valid is not None, "a mask was asked for"
        return pixels, valid

    def select(self, bands: Sequence[int]) -> RasterSource:
        """As `Source.select`."""
        selected = copy(self)
        selected._bands = self._bands.select(bands)
        described = narrowed(self.description, bands, apart=self._bands.are_apart)
        if self._bands.palette is None and self._bands.alpha not in (None, selected._bands.alpha):
            described = replace(described, masked=selected._bands.tells_validity or self._holes)
        if self._tiles and self._bands.are_apart:
            selected._tiles = self._tiles.select(sorted({*selected._bands.with_alpha}))
        selected.description = described
        return selected

    def fingerprint(self) -> str:
        """As `Image.fingerprint`; of a mosaic (VRT), of all files that it is made of."""
        files = dict.fromkeys([*self._named, *self._files.paths])
        return fingerprint_files(file for file in files if not file.name.endswith(SIDECARS))

    def close(self) -> None:
        """Release the file."""
        self._pool.close()
        self._part_checks.close()
        if self._tiles:
            self._tiles.close()

    def _describe(self, probe: Probe) -> Description:
        with self._pool.handle(0) as dataset:
            self._bands = bands = Bands.of(dataset, labels=probe.labels)
            if bands.dtype.kind not in "uif":
                raise InputError(
                    f"{probe.path} holds {bands.dtype} numbers, which tilepipe does not read: save "
                    "it with integer or floating-point ones"
                )
            sizes = [dataset.shape, *_overview_sizes(dataset)]
            # Where no part of a mosaic lies, and nothing says so, GDAL gives zeros.
            unsaid = not (has_validity(dataset) or bands.have_nodata)
            self._holes = unsaid and self._files.has_holes
            self._named = [place_of(file) for file in dataset.files]
            self._tiles = TileCheck.of(dataset)
            driver, grid = dataset.driver, grid_of(dataset)
            orientation = orientation_notes(dataset.tags().get("EXIF_Orientation"))
            _check_size(probe.path, dataset, probe.streaming)
        levels = pyramid(sizes, snap=False)
        self._pool.overviews = {place: number - 1 for place, number in enumerate(levels)}
        self._pool.drivers = (driver,)
        palette = bands.palette
        return Description(
            path=probe.path,
            kind=_kind(driver, grid),
            levels=tuple(levels.values()),
            bands=len(bands.names),
            dtype=bands.dtype if palette is None else palette.dtype,
            chunks=tuple(self._chunk(place, driver) for place in range(len(levels))),
            grid=grid,
            nodata=bands.nodata if palette is None and bands.have_nodata else (),
            scaling=bands.scaling,
            palette=palette is not None,
            # The nodata of a palette image is an entry of it, which GDAL has to look up.
            masked=bands.tells_validity
            or self._holes
            or bands.alpha is not None
            or (palette is not None and bands.have_nodata),
            streaming=probe.streaming,
            band_names=bands.names,
            alpha=None if bands.alpha is None else bands.alpha - 1,
            alpha_name=bands.alpha_name,
            notes=orientation,
        )

    def _chunk(self, level: int, driver: str) -> tuple[int, int]:
        with self._pool.handle(level) as dataset:
            rows, columns = dataset.block_shapes[0]
        if driver == "VRT" and level == 0:
            # A mosaic has blocks of its own, whatever its parts are decoded by.
            return max((rows, columns), self._files.block, key=math.prod)
        return rows, columns

    def _read(
        self, window: Window, level: int, *, masked: bool = False
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        place = ((window.y, window.stop_y), (window.x, window.stop_x))
        bands = self._bands
        by_alpha = masked and bands.alpha is not None
        indices = bands.with_alpha if by_alpha else list(bands.indices)
        size = self.description.levels[level]
        factors = size.scale_y, size.scale_x
        valid = None
        try:
            with self._pool.handle(level) as dataset:
                self._files.require_unchanged(window, factors)
                self._part_checks.check(self._files.part_windows(window, factors))
                if self._tiles:
                    self._tiles.check(window, self._pool.overviews.get(level, -1), dataset)
                try:
                    # All bands in one go: an image that is decoded row by row cannot go back.
                    pixels = dataset.read(indices, window=place, out_dtype=bands.dtype)
                    if masked and not by_alpha:
                        valid = dataset.dataset_mask(window=place) != 0
                        if self._holes:
                            valid &= self._files.filled(window, factors)
                except GDAL_ERRORS as error:
                    if DECODING not in reason(error):
                        self._files.suspect(window, factors, reason(error))
                    raise
                # Of a part that has gone meanwhile GDAL may have made zeros.
                self._files.require_unchanged(window, factors)
        except GDAL_ERRORS as error:
            # Nobody's damage, but the network's or the store's.
            require_reachable(self.description.path)
            raise UndecodableError(reason(error)) from error
        if by_alpha:
            pixels, valid = pixels[:-1], pixels[-1] != 0
        pixels = np.moveaxis(pixels, 0, -1)
        return (pixels if bands.palette is None else bands.palette[pixels[..., 0]]), valid


class _Handles:
    """Datasets opened on one file, each used by one thread at a time, as GDAL requires."""

    def __init__(self, path: str, files: FileSet, streaming: bool) -> None:
        self.path = path
        self.streaming = streaming
        self.drivers: Sequence[str] = DRIVERS
        self._files = files
        self.overviews: dict[int, int] = {}
        self._idle: dict[int, list[Any]] = {}
        self._closed = False

    def add(self, dataset: Any) -> None:
        """Take over a dataset of level 0."""
        self._idle.setdefault(0, []).append(dataset)

    @contextmanager
    def handle(self, level: int) -> Iterator[Any]:
        """A dataset of a level, to use while inside.

        One with which something failed is never used again: GDAL may take what failed for done.
        """
        with gdal_settings(self.path, streaming=self.streaming):
            try:
                dataset = self._idle.setdefault(level, []).pop()
            except IndexError:
                dataset = self._open(level)
            try:
                yield dataset
            except BaseException:
                dataset.close()
                raise
            if self._closed:
                dataset.close()
            else:
                self._idle[level].append(dataset)

    def _open(self, level: int) -> Any:
        overview = self.overviews.get(level, -1)
        options = {} if overview < 0 else {"OVERVIEW_LEVEL": overview}
        self._files.require_unchanged()
        with listening():  # GDAL says no more than when the image was described
            return open_dataset(self.path, drivers=self.drivers, **options)

    def close(self) -> None:
        self._closed = True
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


@contextmanager
def _dataset(name: str) -> Iterator[Any]:
    """A dataset by GDAL's name, of a file whose references have been looked at."""
    with gdal_settings(name), open_dataset(name) as dataset:
        yield dataset


def _check_size(path: str, dataset: Any, streaming: bool) -> None:
    height, width = dataset.shape
    needed = height * width * dataset.count * np.result_type(*dataset.dtypes).itemsize
    if dataset.driver in ROW_BY_ROW and not streaming and needed > CACHE_MB * 2**20:
        raise TooLargeError(
            f"{path} is a {dataset.driver} of {width} x {height} pixels (width x height), which "
            "can only be decoded from its top; make it a chunked image first: "
            f"tilepipe convert {path} IMAGE.ome.zarr"
        )


def _kind(driver: str, grid: RasterGrid) -> str:
    if driver in {"GTiff", "COG"}:
        return "GeoTIFF" if grid.is_placed else "TIFF"
    return {"JP2OpenJPEG": "JPEG 2000"}.get(driver, driver)


def _overview_sizes(dataset: Any) -> list[tuple[int, int]]:
    """Sizes of the overviews; that of the image for one which lacks its type, bands or mask."""
    sizes = []
    for number in range(len(dataset.overviews(1))):
        overview = open_dataset(dataset.name, OVERVIEW_LEVEL=number)
        same = (overview.count, overview.dtypes) == (dataset.count, dataset.dtypes)
        masked = has_validity(overview) or not has_validity(dataset)
        sizes.append(overview.shape if same and masked else dataset.shape)
        overview.close()
    return sizes
