"""The last stop before the terminal: text from files reaches it as text, and as nothing else.

While a command runs, a `Guard` wraps standard output and standard error. Everything printed (by
click, warnings, a traceback) goes through it, and control characters come out as escapes. Progress
bars and tables need control characters of their own: see `tilepipe.cli.terminal`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from tilepipe.errors import EnvironmentFailure
from tilepipe.text import printable

KEPT = "files that the command has written are complete"


class OutputError(EnvironmentFailure):
    """Standard output cannot be written."""


class PipeClosedError(OutputError):
    """The reader of standard output is gone (``tilepipe ... | head``)."""

    exit_code = 128 + 13  # what a shell reports of a program that SIGPIPE ended


class Guard:
    """A stream that only printable text is written to.

    What standard error does not accept is dropped: it cannot be reported anywhere, and must not end
    a run.

    Parameters
    ----------
    stream
        None where the process was started with it closed.
    is_error
        Whether it is standard error.
    clean
        Whether to escape control characters; otherwise the writer has done so.
    """

    def __init__(self, stream: TextIO | None, *, is_error: bool, clean: bool = True) -> None:
        self._stream, self._is_error, self._clean = stream, is_error, clean
        self._failure: OutputError | None = None

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def as_it_is(self) -> Guard:
        """The same stream, for text whose only control characters drive the terminal."""
        return Guard(self._stream, is_error=self._is_error, clean=False)

    def write(self, text: str) -> int:
        """Write text; see `io.TextIOBase.write`.

        Raises
        ------
        OutputError
            When standard output cannot be written.
        """
        if not isinstance(text, str):  # click tries out whether a stream is one of bytes
            raise TypeError("text is written here, not bytes")
        shown = printable(text) if self._clean else text
        shown = shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
        with self._failing():
            if self._stream is None:
                raise OSError(errno.EBADF, "it is closed")
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; raises what `write` raises."""
        if self._stream is not None:
            with self._failing():
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Its descriptor, where it has one."""
        if self._stream is None:
            raise OSError(errno.EBADF, "it is closed")
        return self._stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    @contextmanager
    def _failing(self) -> Iterator[None]:
        if self._failure is not None:  # who printed before may have passed over it
            raise self._failure
        try:
            yield
        except (OSError, ValueError) as error:  # a ValueError: it was closed meanwhile
            self._give_up()
            if self._is_error:
                return
            if isinstance(error, BrokenPipeError):
                self._failure = PipeClosedError(
                    f"standard output was closed before everything was printed; {KEPT}"
                )
            else:
                why = error.strerror if isinstance(error, OSError) else "it is closed"
                self._failure = OutputError(f"standard output cannot be written: {why}; {KEPT}")
            raise self._failure from error

    def _give_up(self) -> None:
        """Discard what is still buffered, or the interpreter fails on it when it exits."""
        if self._stream is None:
            return
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def guarded() -> Iterator[None]:
    """Wrap standard output and standard error in a `Guard`."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, Guard(before[0], is_error=False))
    sys.stderr = cast(TextIO, Guard(before[1], is_error=True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def occupy_closed_streams() -> None:
    """Open streams that the process was started without (``>&-``) on the null device.

    The next file to be opened would otherwise get their number, and everything libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
