"""Which reader opens a file: the readers of tilepipe, and those that other packages install.

A reader is a module, or an object, that has the two functions of `Reader`. Another package adds one
by an entry point:

    [project.entry-points."tilepipe.readers"]
    czi = "its_package.czi_reader"

Readers are tried in order, and the first that recognises a file opens it. One whose entry point is
named like the suffix of the file (here ``.czi``) is tried first, unless that is a suffix of
tilepipe's own. All others are tried on files that no reader of tilepipe recognises by their
content, and on folders that are not named ``.zarr``. A reader is imported when it is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from tilepipe.images.probe import JPEG_SIGNATURE, PNG_SIGNATURE, TIFF_SIGNATURES, Probe
from tilepipe.images.source import Source
from tilepipe.plugins import loaded
from tilepipe.storage import InputRefused, StoragePath, readable

GROUP = "tilepipe.readers"
"""Entry points of other packages."""

OWN_SUFFIXES = frozenset(
    {".tif", ".tiff", ".svs", ".ndpi", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".zarr"}
)
"""Of most files; listing what other packages install takes a tenth of a second."""


class Reader(Protocol):
    """Opens files of one kind."""

    def recognises(self, probe: Probe) -> bool:
        """Tell whether the reader can open a file, by its content rather than its name."""
        ...

    def open_source(self, probe: Probe) -> Source:
        """Open a file that the reader recognised.

        Raises
        ------
        InputError
            It is broken, or holds what the reader cannot read.
        """
        ...


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    """A reader of tilepipe, and what it is tried on."""

    module: str
    signatures: tuple[bytes, ...] = (b"",)
    """A file has to begin with one of them."""
    folders: bool = False
    """Whether it reads folders, and no files."""
    streams: bool = False
    """Whether it is tried on files that are to be read once, from top to bottom."""

    def fits(self, probe: Probe) -> bool:
        if self.folders or probe.is_folder:
            return self.folders and probe.is_folder
        return (self.streams or not probe.streaming) and probe.head.startswith(self.signatures)


BY_CONTENT = (
    _BuiltIn("overviews", (*TIFF_SIGNATURES, JPEG_SIGNATURE), streams=True),
    _BuiltIn("tiff", TIFF_SIGNATURES),
    _BuiltIn("picture", (PNG_SIGNATURE, JPEG_SIGNATURE)),
    _BuiltIn("raster", (*TIFF_SIGNATURES, PNG_SIGNATURE, JPEG_SIGNATURE, b"<VRTDataset")),
    _BuiltIn("ome_companion"),
)
"""Readers that are tried first."""

ALL_ELSE = (
    _BuiltIn("other_formats", streams=True),
    _BuiltIn("raster", streams=True),
    _BuiltIn("ngff", folders=True),
)
"""Readers that are tried after those of other packages: they take every file and folder."""


def open_source(path: str | StoragePath, series: int | str | None, *, streaming: bool) -> Source:
    """Open a file with the first reader that recognises it.

    Raises
    ------
    InputError
        As `tilepipe.images.open_image`.
    """
    with InputRefused(), Probe(str(readable(path)), series, streaming=streaming) as probe:
        return next(r for r in _readers(probe) if r.recognises(probe)).open_source(probe)


@cache
def installed() -> dict[str, EntryPoint]:
    """The readers of other packages, by the names of their entry points."""
    return {point.name.lower(): point for point in entry_points(group=GROUP)}


def _readers(probe: Probe) -> Iterator[Reader]:
    """Readers to try on a file, in order; each is imported when its turn comes."""
    suffix = None if probe.streaming or probe.suffix in OWN_SUFFIXES else probe.suffix[1:]
    if suffix is not None and suffix in installed():
        yield cast(Reader, loaded(installed()[suffix]))
    yield from _built_in(BY_CONTENT, probe)
    if not (probe.streaming or (probe.is_folder and probe.suffix == ".zarr")):
        for name, point in installed().items():
            if name != suffix:
                yield cast(Reader, loaded(point))
    yield from _built_in(ALL_ELSE, probe)


def _built_in(readers: tuple[_BuiltIn, ...], probe: Probe) -> Iterator[Reader]:
    for reader in readers:
        if reader.fits(probe):
            yield cast(Reader, import_module(f"tilepipe.images.{reader.module}"))
