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
from rasterio.enums import ColorInterp, Interleaving, MaskFlags

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import RGB, narrowed
from tilepipe.images.base import PixelSize, RasterGrid, Transform
from tilepipe.images.control import ControlPoint, GroundControl, are_rpcs
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
from tilepipe.images.gdal_paths import place_of, require_reachable
from tilepipe.images.gdal_series import directory
from tilepipe.images.geotiff_tiles import PartChecks, TileCheck
from tilepipe.images.levels import pyramid
from tilepipe.images.library_warnings import listening, remarks
from tilepipe.images.orientation import orientation_notes
from tilepipe.images.other_formats import name_other
from tilepipe.images.probe import Probe
from tilepipe.images.scaling import Scaling, scaling_of
from tilepipe.images.source import Description, TooLargeError, UndecodableError
from tilepipe.images.survey import has_mask, open_surveyed
from tilepipe.storage import is_url

UNITS = {
    "metre": "meter",
    "meter": "meter",
    "kilometre": "kilometer",
    "foot": "foot",
    "us survey foot": "us survey foot",
    "degree": "degree",
}
"""Units of a CRS as PROJ and OGC spell them, and as NGFF does."""

COLOURLESS = frozenset(
    {ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha}
)
"""Interpretations of a band that give it no name."""

SIDECARS = (".aux.xml", ".ovr")
"""Made by viewers that only look at an image: statistics, overviews; no part of its content."""

DECODING = "IReadBlock failed"
"""Said by GDAL of a file that it has opened."""

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
                dataset.crs is not None
                or not dataset.transform.is_identity
                or any(value is not None for value in dataset.nodatavals)
                or _control(dataset) is not None
                or bool(_scaling(dataset, list(dataset.indexes)))
                or (has_mask(dataset) and _alpha(dataset) is None)
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
        name, listed, number = directory(
            probe.path, file.dataset, probe.series, _dataset, _pixel_size
        )
        self._pool = _Handles(name or probe.path, self._files, probe.streaming)
        if name is None:
            self._pool.add(file.taken())
        self._alpha: int | None
        self._holes: bool
        self._has_mask: bool
        self._apart: bool
        self._palette: NDArray[Any] | None
        self._tiles: TileCheck | None
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
        selected.description = narrowed(self.description, bands, apart=self._apart)
        if self._palette is not None:
            selected._palette = self._palette[:, list(bands)]
            return selected
        selected._bands = [place + 1 for place in bands]
        if self._alpha in selected._bands:
            selected._alpha = None
            masked = self._has_mask or self._holes
            selected.description = replace(selected.description, masked=masked)
        if self._tiles and self._apart:
            read = {*selected._bands, selected._alpha} - {None}
            selected._tiles = self._tiles.select(sorted(read))
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
        path, streaming = probe.path, probe.streaming
        with self._pool.handle(0) as dataset:
            dtype = np.result_type(*dataset.dtypes)
            if dtype.kind not in "uif":
                raise InputError(
                    f"{path} holds {dtype} numbers, which tilepipe does not read: save it with "
                    "integer or floating-point ones"
                )
            sizes = [dataset.shape, *_overview_sizes(dataset)]
            self._alpha = _alpha(dataset)
            masked = has_mask(dataset) and self._alpha is None
            self._has_mask = _has_mask(dataset)
            self._apart = dataset.interleaving != Interleaving.pixel
            self._bands = [index for index in dataset.indexes if index != self._alpha]
            self._palette = None if probe.labels else _palette(dataset)
            self._sample_dtype = dtype
            nodata = tuple(dataset.nodatavals[index - 1] for index in self._bands)
            unsaid = not has_mask(dataset) and all(value is None for value in nodata)
            # Where no part of a mosaic lies, and nothing says so, GDAL gives zeros.
            self._holes = unsaid and self._files.has_holes
            crs, transform = dataset.crs or None, dataset.transform
            driver, control = dataset.driver, _control(dataset)
            self._named = [place_of(file) for file in dataset.files]
            scaling = () if self._palette is not None else _scaling(dataset, self._bands)
            names = tuple(_name(dataset, index) for index in self._bands)
            alpha_name = (self._alpha and dataset.descriptions[self._alpha - 1]) or "alpha"
            self._tiles = TileCheck.of(dataset)
            orientation = orientation_notes(dataset.tags().get("EXIF_Orientation"))
            _check_size(path, dataset, streaming)
        levels = pyramid(sizes, snap=False)
        self._pool.overviews = {place: number - 1 for place, number in enumerate(levels)}
        self._pool.drivers = (driver,)
        chunks = []
        for place in range(len(levels)):
            with self._pool.handle(place) as dataset:
                block = tuple(dataset.block_shapes[0])
                # A mosaic has blocks of its own, whatever its parts are decoded by.
                if driver == "VRT" and place == 0:
                    block = max(block, self._files.block, key=math.prod)
                chunks.append(block)
        has_nodata = self._palette is None and any(value is not None for value in nodata)
        return Description(
            path=path,
            kind=_kind(driver, bool(crs or control) or not transform.is_identity),
            levels=tuple(levels.values()),
            bands=len(self._bands) if self._palette is None else 3,
            dtype=dtype if self._palette is None else self._palette.dtype,
            chunks=tuple(chunks),
            grid=RasterGrid(
                levels[0].height,
                levels[0].width,
                _pixel_size(crs, transform),
                crs.to_wkt() if crs else None,
                None if transform.is_identity else _coefficients(transform),
                control,
            ),
            nodata=nodata if has_nodata else (),
            scaling=scaling,
            palette=self._palette is not None,
            # The nodata of a palette image is an entry of it, which GDAL has to look up.
            masked=masked
            or self._holes
            or self._alpha is not None
            or (self._palette is not None and any(value is not None for value in nodata)),
            streaming=streaming,
            band_names=names if self._palette is None else RGB,
            alpha=None if self._alpha is None else self._alpha - 1,
            alpha_name=alpha_name,
            notes=orientation,
        )

    def _read(
        self, window: Window, level: int, *, masked: bool = False
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        place = ((window.y, window.stop_y), (window.x, window.stop_x))
        bands = [*self._bands, self._alpha] if masked and self._alpha else self._bands
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
                    pixels = dataset.read(bands, window=place, out_dtype=self._sample_dtype)
                    if masked and not self._alpha:
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
        if masked and self._alpha:
            pixels, valid = pixels[:-1], pixels[-1] != 0
        pixels = np.moveaxis(pixels, 0, -1)
        return (pixels if self._palette is None else self._palette[pixels[..., 0]]), valid


class _Handles:
    """Datasets opened on one file, each used by one thread at a time: GDAL wants it so."""

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
            f"{path} is a {dataset.driver} of {height} x {width} pixels, which can only be decoded "
            f"from its top; make it a chunked image first: tilepipe convert {path} IMAGE.ome.zarr"
        )


def _kind(driver: str, georeferenced: bool) -> str:
    if driver in {"GTiff", "COG"}:
        return "GeoTIFF" if georeferenced else "TIFF"
    return {"JP2OpenJPEG": "JPEG 2000"}.get(driver, driver)


def _alpha(dataset: Any) -> int | None:
    """Index of the alpha band, where there is one beside others."""
    found = [
        i
        for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if c == ColorInterp.alpha
    ]
    return found[-1] if found and dataset.count > 1 else None


def _has_mask(dataset: Any) -> bool:
    """Whether there is a mask beside the bands, one that is no alpha band."""
    return any(
        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        for flags in dataset.mask_flag_enums
    )


def _name(dataset: Any, index: int) -> str:
    """What a band is called, or which colour it has; empty where neither is said."""
    colour = dataset.colorinterp[index - 1]
    return dataset.descriptions[index - 1] or ("" if colour in COLOURLESS else str(colour.name))


def _palette(dataset: Any) -> NDArray[Any] | None:
    """Colours of a palette image, shape (entries, 3): a palette is colours, not data."""
    if dataset.colorinterp[0] != ColorInterp.palette or dataset.count != 1:
        return None
    colours = np.zeros((int(np.iinfo(dataset.dtypes[0]).max) + 1, 3), np.uint8)
    for entry, colour in dataset.colormap(1).items():
        if entry < len(colours):
            colours[entry] = colour[:3]
    return colours


def _overview_sizes(dataset: Any) -> list[tuple[int, int]]:
    """Sizes of the overviews; that of the image for one which lacks its type, bands or mask."""
    sizes = []
    for number in range(len(dataset.overviews(1))):
        overview = open_dataset(dataset.name, OVERVIEW_LEVEL=number)
        same = (overview.count, overview.dtypes) == (dataset.count, dataset.dtypes)
        masked = has_mask(overview) or not has_mask(dataset)
        sizes.append(overview.shape if same and masked else dataset.shape)
        overview.close()
    return sizes


def _coefficients(transform: Any) -> Transform:
    return (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)


def _control(dataset: Any) -> GroundControl | None:
    """What places an image on the Earth that has no transform of its own."""
    if not dataset.transform.is_identity:
        return None
    points, crs = dataset.gcps
    rpcs = dataset.tags(ns="RPC")
    if not are_rpcs(rpcs):
        rpcs = {}
    if not points and not rpcs:
        return None
    return GroundControl(
        points=tuple(
            ControlPoint(p.row, p.col, p.x, p.y, p.z or 0.0, p.id or "", p.info or "")
            for p in points
        ),
        crs=crs.to_wkt() if points and crs else None,
        rpcs=tuple(sorted(rpcs.items())),
    )


def _scaling(dataset: Any, bands: list[int]) -> Scaling:
    return scaling_of(
        tuple(dataset.scales[band - 1] for band in bands),
        tuple(dataset.offsets[band - 1] for band in bands),
    )


def _pixel_size(crs: Any, transform: Any) -> PixelSize | None:
    """Lengths of a pixel's sides, also where it is rotated, in the unit of the CRS."""
    if not crs or transform.is_identity:
        return None
    unit = UNITS.get(str(crs.units_factor[0]).lower())
    if unit is None:
        return None
    x, y = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    return PixelSize(y, x, unit)
