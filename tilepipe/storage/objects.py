"""Objects of a store, with the methods of `pathlib.Path`, by way of obstore.

Credentials and endpoint come from the environment alone (``AWS_*``), of each process its own, so
that nothing of them is ever part of a plan, a task or a record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tilepipe.errors import InputError
from tilepipe.storage.errors import ask

PATIENCE = "TILEPIPE_OBJECT_PATIENCE"
"""Environment variable: seconds for which a failing request is retried."""

PATIENCE_SECONDS = 60.0
RETRIES = 10
COALESCE = 128 * 1024
"""Largest gap, in bytes, between ranges that are fetched together."""

PART_BYTES = 5 * 2**20
MOST_PARTS = 9000
PARTS_AT_ONCE = 4
"""How large files are uploaded; S3 allows 10,000 parts of at least 5 MiB."""


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """An object, or all objects whose keys begin with this one and a slash (a "folder")."""

    scheme: str
    bucket: str
    key: str
    """Key without a slash at either end; empty for the bucket itself."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return Path(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        """The folder it lies in; of a bucket, itself."""
        return ObjectPath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    @property
    def parents(self) -> tuple[ObjectPath, ...]:
        """All folders it lies in, the nearest first."""
        return (self.parent, *self.parent.parents) if self.key else ()

    def with_name(self, name: str) -> ObjectPath:
        """Return another object in the same folder."""
        return self.parent / name

    def absolute(self) -> ObjectPath:
        """Return itself: addresses are absolute."""
        return self

    def resolve(self) -> ObjectPath:
        """Return itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Tell whether the object, or a folder of this name, exists."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Tell whether an object of exactly this key exists."""
        try:
            self.size()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Tell whether objects exist below it."""
        return next(self._listed(1), None) is not None

    def iterdir(self) -> Iterator[ObjectPath]:
        """List objects and folders directly in this folder."""
        import obstore

        found = ask(
            str(self), obstore.list_with_delimiter, self._connection(), prefix=self._prefix()
        )
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return (ObjectPath(self.scheme, self.bucket, key.strip("/")) for key in sorted(keys))

    def objects(self) -> Iterator[ObjectPath]:
        """List all objects below it, at any depth, in the order of their keys."""
        return (ObjectPath(self.scheme, self.bucket, key) for key in sorted(self._listed()))

    def versions(self) -> Iterator[tuple[str, str]]:
        """The key of each object below it, and what identifies its version, as a listing tells."""
        listed = ((str(each["path"]), repr((each["size"], _version(each)))) for each in self._all())
        return iter(sorted(listed))

    def mkdir(self, **_: Any) -> None:
        """Do nothing: a folder exists as soon as an object is in it."""

    def size(self) -> int:
        """Return the size of the object in bytes."""
        return int(self._head()["size"])

    def version(self) -> dict[str, str]:
        """Return what identifies this version of the object."""
        import obstore

        found = ask(str(self), obstore.head, self._connection(), self.key)
        return {"size": str(found["size"]), **_version(found)}

    def read_bytes(self) -> bytes:
        """Read the whole object."""
        return self.read_tagged()[0]

    def read_tagged(self) -> tuple[bytes, dict[str, str]]:
        """Read the whole object, and its version."""
        import obstore

        def whole() -> tuple[bytes, dict[str, str]]:
            found = obstore.get(self._connection(), self.key)
            return bytes(found.bytes()), _version(found.meta)

        return ask(str(self), whole)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the whole object as text."""
        return self.read_bytes().decode(encoding)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read several (offset, count) in few requests; shorter where the object ends."""
        import obstore

        found = ask(
            str(self),
            obstore.get_ranges,
            self._connection(),
            self.key,
            starts=[offset for offset, _ in ranges],
            lengths=[count for _, count in ranges],
            coalesce=COALESCE,
        )
        return [bytes(part) for part in found]

    def write_bytes(
        self,
        content: bytes | Path,
        mode: Literal["overwrite", "create"] | dict[str, str] = "overwrite",
    ) -> dict[str, str]:
        """Write the object, whole or not at all; return its new version.

        Parameters
        ----------
        content
            Or the local file that holds it, which is uploaded in parts.
        mode
            "create": only where there is none; a version: only where it still is that one.

        Raises
        ------
        ConditionError
            Where that does not hold.
        """
        import obstore

        size = content.stat().st_size if isinstance(content, Path) else len(content)
        try:
            result = ask(
                str(self), obstore.put, self._connection(), self.key, content, mode=mode,
                chunk_size=max(PART_BYTES, -(-size // MOST_PARTS)), max_concurrency=PARTS_AT_ONCE,
            )  # fmt: skip
        except _conditions():
            failed = ConditionError(str(self))
        else:
            return _version(result)
        raise failed

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        import obstore

        try:
            ask(str(self), obstore.delete, self._connection(), self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_below(self) -> None:
        """Remove all objects of this folder."""
        import obstore

        keys = sorted(self._listed())
        for first in range(0, len(keys), 1000):
            ask(str(self), obstore.delete, self._connection(), keys[first : first + 1000])

    def _head(self) -> Any:
        import obstore

        return ask(str(self), obstore.head, self._connection(), self.key)

    def _connection(self) -> Any:
        return connection(self.scheme, self.bucket, "")

    def _prefix(self) -> str | None:
        return f"{self.key}/" if self.key else None

    def _listed(self, most: int | None = None) -> Iterator[str]:
        return (str(entry["path"]) for entry in self._all(most))

    def _all(self, most: int | None = None) -> Iterator[Any]:
        import obstore

        pages = obstore.list(self._connection(), self._prefix(), chunk_size=most or 1000)
        while page := ask(str(self), next, pages, None):
            yield from page


StoragePath = Path | ObjectPath
"""Where a file or folder lies."""


class ConditionError(Exception):
    """The object exists already, or is not the version that was read."""


@lru_cache(maxsize=64)
def connection(scheme: str, bucket: str, prefix: str) -> Any:
    """Make an obstore store, configured by the environment.

    Raises
    ------
    InputError
        When obstore is not installed.
    """
    try:
        from obstore import store as stores
    except ImportError as error:
        raise InputError(
            f"{scheme}://{bucket}: object stores need obstore: pip install 'tilepipe[s3]'"
        ) from error
    kind: Any = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[scheme]
    seconds = patience()
    return ask(
        f"{scheme}://{bucket}",
        kind,
        bucket,
        prefix=prefix or None,
        client_options={
            "connect_timeout": timedelta(seconds=min(10.0, seconds)),
            "timeout": timedelta(seconds=max(30.0, seconds)),
            # Who names an endpoint without TLS means it.
            **({"allow_http": True} if endpoint().startswith("http://") else {}),
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {"max_backoff": timedelta(seconds=min(10.0, seconds))},
        },
    )


def endpoint() -> str:
    """Return the address of an S3 service other than Amazon's, or an empty text."""
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def patience() -> float:
    """Return the seconds for which a failing request is retried.

    Raises
    ------
    InputError
        When the environment says something else.
    """
    text = os.environ.get(PATIENCE, "")
    try:
        seconds = float(text) if text else PATIENCE_SECONDS
        if not 0 < seconds <= 300:
            raise ValueError
    except ValueError:
        raise InputError(f"{PATIENCE} must be 1 to 300 seconds, not {text!r}") from None
    return seconds


def _conditions() -> tuple[type[Exception], ...]:
    from tilepipe.storage.errors import conditions

    return conditions()


def _version(meta: Any) -> dict[str, str]:
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}
