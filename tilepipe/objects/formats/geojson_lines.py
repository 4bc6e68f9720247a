"""Features of a GeoJSON file one by one, where each is a line as tilepipe and GDAL write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tilepipe.objects.formats.text_files import reading_bytes


def features(path: Path, kind: Any = Any) -> Iterator[Any]:
    """The features of a file, decompressed where its name ends in ``.gz``.

    ``kind``: as which each is decoded, if less than all of it is wanted (`msgspec.Struct`).

    Those of a file with a feature in each line are read one at a time, any other file whole.

    Raises
    ------
    ValueError
        Where it is not JSON, or not a FeatureCollection.
    OSError, EOFError
        Where it cannot be read to its end.
    """
    if _has_lines(path):
        yield from _by_lines(path, kind)
        return
    with reading_bytes(path) as file:
        document = decoded(file.read())
    if not isinstance(document, dict) or document.get("type") != "FeatureCollection":
        raise ValueError("it is not a FeatureCollection")
    found = document.get("features")
    if not isinstance(found, list):
        raise ValueError("its features are not a list")
    yield from found if kind is Any else msgspec.convert(found, list[kind])


def decoded(text: bytes, kind: Any = Any) -> Any:
    """A JSON text; ValueError where it is none, or not of a kind."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON ({error})") from error


def _has_lines(path: Path) -> bool:
    """Whether the first line begins a collection and the second is a whole feature."""
    with reading_bytes(path) as file:
        head = file.readline(4096).strip()
        if not head.endswith(b'"features":[') or not head.startswith(
            b'{"type":"FeatureCollection"'
        ):
            return False
        line = file.readline().strip()
    return line == b"]}" or line.startswith(b'{"type":"Feature"')


def _by_lines(path: Path, kind: Any) -> Iterator[Any]:
    with reading_bytes(path) as file:
        file.readline()
        for line in file:
            text = line.strip()
            if text == b"]}":
                if file.read(64).strip():
                    raise ValueError("it goes on after its end")
                return
            yield decoded(text.removesuffix(b","), kind)
    raise ValueError("it ends before its last bracket")
