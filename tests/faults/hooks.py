"""Faults from inside a process: what no outside hand can do at will.

Read from the variable ``TILEPIPE_FAULT``, a JSON document; installed in the client by the zygote,
and in workers by ``site/sitecustomize.py``.

- ``kill_in_write: N``: this process ends by SIGKILL in its Nth write of a chunk, in the middle.
- ``kill_in_ledger: N``: this process ends by SIGKILL when its Nth record is in a ledger.
- ``slow_write: S``: each chunk takes S seconds to write, so that a chosen moment is met.
- ``slow_read: S``: each read of the image takes so much longer.
- ``read_error: [[START, STOP], ...]``: reads of the image that touch these bytes fail with EIO.
- ``hang: [[START, STOP], ...]``: reads of the image that touch these bytes do not return.

The last two hold while the file ``while`` exists.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

VARIABLE = "TILEPIPE_FAULT"


def install() -> None:
    """Put in place what the variable asks for."""
    fault = json.loads(os.environ.get(VARIABLE, "{}"))
    if fault.keys() & {"kill_in_write", "slow_write"}:
        _writes(fault)
    if "kill_in_ledger" in fault:
        _records(fault["kill_in_ledger"])
    if fault.keys() & {"read_error", "hang", "slow_read"}:
        _reads(fault)


def _writes(fault: dict[str, Any]) -> None:
    from zarr.storage import _local

    from tilepipe.storage import zarr_store

    put_whole, write_whole, writes = _local._put, zarr_store._write, 0

    def begin(part: Path, content: bytes) -> None:
        """A chunk is about to be written, first as a file of another name."""
        nonlocal writes
        writes += 1
        if writes == fault.get("kill_in_write"):
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(fault.get("slow_write", 0))

    def put(path: Path, value: Any, exclusive: bool = False) -> int:
        """Stands in for how zarr writes a file."""
        if path.name.isdigit():  # else it is metadata
            begin(path.with_suffix(".0.partial"), bytes(value.as_buffer_like()))
        return put_whole(path, value, exclusive)

    def write(path: str, content: bytes) -> None:
        """Stands in for how tilepipe writes a chunk."""
        begin(Path(path), content)
        write_whole(path, content)

    _local._put, zarr_store._write = put, write


def _records(last: int) -> None:
    from tilepipe.engine.state.ledger import Ledger

    whole, records = Ledger.append, 0

    def append(self: Ledger, record: dict[str, Any]) -> None:
        nonlocal records
        whole(self, record)
        records += 1
        if records == last:
            os.kill(os.getpid(), signal.SIGKILL)

    Ledger.append = append  # type: ignore[method-assign]


def _reads(fault: dict[str, Any]) -> None:
    from tilepipe.images.byte_ranges import FileBytes

    whole = FileBytes.read

    def read(self: FileBytes, offset: int, count: int) -> bytes:
        time.sleep(fault.get("slow_read", 0))
        while _on(fault) and _touches(fault.get("hang", ()), offset, count):
            time.sleep(0.1)
        if _on(fault) and _touches(fault.get("read_error", ()), offset, count):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))
        return whole(self, offset, count)

    FileBytes.read = read  # type: ignore[method-assign]


def _on(fault: dict[str, Any]) -> bool:
    return "while" not in fault or Path(fault["while"]).exists()


def _touches(ranges: Any, offset: int, count: int) -> bool:
    return any(start < offset + count and offset < stop for start, stop in ranges)
