"""A file or folder that is about to be opened, as readers see it to recognise it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from functools import cached_property
from typing import Any, TypeVar

from tilepipe.errors import EnvironmentFailure, InputError, TilepipeError
from tilepipe.images.byte_ranges import open_reader
from tilepipe.storage import StoragePath, as_path

HEAD_BYTES = 512
"""Bytes from the beginning of a file by which readers recognise it."""

TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""Classic and BigTIFF, in either byte order."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

T = TypeVar("T")


class Probe:
    """What readers look at, each thing read once for all of them.

    Parameters
    ----------
    path
        A file or folder, or its address on an object store.
    series
        The image that is wanted of a file with several; None: the main one.
    streaming
        Whether it will be read once, from top to bottom.
    labels
        Whether pixels are labels: entries of a palette are not replaced by its colours, and planes
        along an axis without a name are bands.
    """

    def __init__(
        self,
        path: str,
        series: int | str | None = None,
        *,
        streaming: bool = False,
        labels: bool = False,
    ) -> None:
        self.path = path
        self.series = series
        self.streaming = streaming
        self.labels = labels
        self.notes: tuple[str, ...] = ()
        """What a reader found that leaves the file to others: notes of the image."""
        self._found: dict[Hashable, Any] = {}
        self._stack = ExitStack()

    @cached_property
    def place(self) -> StoragePath:
        """The path as the storage layer has it."""
        return as_path(self.path)

    @property
    def suffix(self) -> str:
        """Last suffix of the name, in lower case: ``.tif``."""
        return self.place.suffix.lower()

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder; on an object store, whether objects lie below it."""
        return self.place.is_dir()

    @cached_property
    def file(self) -> Any:
        """The open file, to seek and read in; closed with the probe.

        Raises
        ------
        InputError
            It does not exist, or cannot be read.
        """
        try:
            return self._stack.enter_context(open_reader(self.path))
        except FileNotFoundError as error:
            raise InputError(f"{self.path} does not exist; check the path") from error
        except PermissionError as error:
            raise InputError(
                f"{self.path} may not be read; ask for permission to read it"
            ) from error
        except OSError as error:
            raise _unreadable(self.path, error) from error

    @cached_property
    def head(self) -> bytes:
        """The first `HEAD_BYTES` of the file, or all of a smaller one.

        Raises
        ------
        InputError
            It is empty, does not exist, or cannot be read.
        """
        try:
            head: bytes = self.file.read(HEAD_BYTES)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if not head:
            raise InputError(f"{self.path} is empty; copy it again from where it came")
        return head

    def once(self, find: Callable[[Probe], T]) -> T:
        """Return what a function finds of the file; it is called once for all readers.

        A result with a method ``close`` is closed with the probe.
        """
        if find not in self._found:
            found = find(self)
            if hasattr(found, "close"):
                self._stack.callback(found.close)
            self._found[find] = found
        result: T = self._found[find]
        return result

    def close(self) -> None:
        """Close the file, and what was found of it."""
        self._stack.close()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unreadable(path: str, error: OSError) -> TilepipeError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return EnvironmentFailure(f"{path}: {error.strerror}; allow more open files (ulimit -n)")
    return InputError(f"{path} cannot be read ({error.strerror}); check the disk")
