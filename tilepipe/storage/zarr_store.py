"""Zarr stores at a place: on a disk zarr's own, on an object store one whose errors are ours.

Around either, `SealingStore` keeps hashes of what is written through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, ObjectStore, WrapperStore

from tilepipe.storage.errors import ask_async, failures, in_our_words
from tilepipe.storage.hashing import ABSENT, seal
from tilepipe.storage.objects import ObjectPath, StoragePath, connection


def zarr_store(path: StoragePath, *, read_only: bool = False) -> LocalStore | NamedObjectStore:
    """Open a folder as a zarr store."""
    if isinstance(path, ObjectPath):
        store = connection(path.scheme, path.bucket, path.key)
        return NamedObjectStore(store, str(path), read_only=read_only)
    return LocalStore(path, read_only=read_only)


def group_attributes(path: StoragePath) -> dict[str, Any]:
    """The attributes of a zarr group of either format; empty where there is none.

    Raises
    ------
    ValueError
        Where they are not JSON.
    """
    for name in ("zarr.json", ".zattrs"):
        try:
            document = json.loads((path / name).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        attributes: dict[str, Any] = (
            document.get("attributes", {}) if name == "zarr.json" else document
        )
        return attributes
    return {}


class NamedObjectStore(ObjectStore[Any]):
    """A `zarr.storage.ObjectStore` whose errors name the object, without text from the server."""

    def __init__(self, store: Any, address: str, *, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.address = address

    def with_read_only(self, read_only: bool = False) -> NamedObjectStore:
        """Return the same store, read-only or not."""
        return type(self)(self.store, self.address, read_only=read_only)

    def __str__(self) -> str:
        return self.address

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object; None where it does not exist."""
        return await ask_async(self._of(key), super().get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of objects, as zarr does from shards."""
        return await ask_async(self.address, super().get_partial_values(prototype, key_ranges))

    async def exists(self, key: str) -> bool:
        """Tell whether an object exists."""
        return await ask_async(self._of(key), super().exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, whole or not at all."""
        await ask_async(self._of(key), super().set(key, value))

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        await ask_async(self._of(key), super().delete(key))

    async def delete_dir(self, prefix: str) -> None:
        """Remove all objects below a prefix."""
        await ask_async(self._of(prefix), super().delete_dir(prefix))

    def list(self) -> AsyncGenerator[str, None]:
        """List all keys."""
        return self._named("", super().list())

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """List all keys that begin with a prefix."""
        return self._named(prefix, super().list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """List what lies directly below a prefix."""
        return self._named(prefix, super().list_dir(prefix))

    def _of(self, key: str) -> str:
        return f"{self.address}/{key}"

    async def _named(self, key: str, found: AsyncIterator[str]) -> AsyncGenerator[str, None]:
        try:
            async for name in found:
                yield name
            return
        except failures() as error:
            failure = in_our_words(self._of(key), error)
        raise failure


class SealingStore(WrapperStore[Store]):
    """A zarr store that seals each object it writes, and keeps the seal until it is taken.

    So what the seal vouches for are the bytes that were meant, whatever the disk makes of them.
    Several threads may write through one store, each its own objects.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._seals: dict[str, str] = {}

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, and keep its seal."""
        self._seals[key] = seal(memoryview(value.as_buffer_like()))
        await super().set(key, value)

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        self._seals.pop(key, None)
        await super().delete(key)

    @property
    def local(self) -> LocalStore | None:
        """The folder on a disk that it writes to; None if it is elsewhere."""
        return self._store if isinstance(self._store, LocalStore) else None

    def write(self, key: str, content: bytes) -> None:
        """Write an object into a `local` folder in the calling thread, and keep its seal.

        As zarr does it: a reader sees all of it or what was there before.
        """
        self._seals[key] = seal(content)
        path = self._path(key)
        part = f"{path}.{uuid.uuid4().hex}.partial"
        try:
            try:
                _write(part, content)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _write(part, content)
            os.replace(part, path)
        except BaseException as error:
            _remove(part)
            if isinstance(error, OSError):
                error.filename = path  # which the user knows, and not its part
            raise

    def remove(self, key: str) -> None:
        """Remove an object of a `local` folder, if it exists, in the calling thread."""
        self._seals.pop(key, None)
        _remove(self._path(key))

    def _path(self, key: str) -> str:
        assert self.local is not None, "asked for before"
        return f"{self.local.root}/{key}"

    def take_seals(self, keys: Iterable[str]) -> str:
        """Return the seals of objects just written, in order, and forget them."""
        return " ".join(self._seals.pop(key, ABSENT) for key in keys)


# Plain names of files, because a Path takes as long to make as a chunk to write, and while it is
# made, no other thread does anything.


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)
