"""Small arrays kept on disk between passes: one file for each window, written whole."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from tilepipe.storage import StoragePath, write_whole


def save_arrays(path: StoragePath, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays by name; equal arrays are equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(path, bytes(Zstd(level=1, checksum=True).encode(buffer.getvalue())), alone=False)


def load_arrays(path: StoragePath) -> dict[str, NDArray[Any]]:
    """Read what `save_arrays` wrote."""
    content = Zstd().decode(path.read_bytes())
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
