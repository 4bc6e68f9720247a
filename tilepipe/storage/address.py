"""Addresses as users give them; those that contain a secret are refused."""

from __future__ import annotations

import re
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.storage.errors import CREDENTIALS
from tilepipe.storage.objects import ObjectPath, StoragePath

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def is_url(text: object) -> bool:
    """Tell whether a text is an address with a scheme (``s3://...``) rather than a path."""
    return isinstance(text, ObjectPath) or _URL.fullmatch(str(text)) is not None


def redacted(text: str) -> str:
    """Remove what may be secret from an address: user and password, query, fragment."""
    match = _URL.fullmatch(text)
    if match is None:
        return text
    rest = re.split(r"[?#]", match[2], maxsplit=1)[0]
    authority, slash, key = rest.partition("/")
    if ":" in authority and "@" in rest:
        # Secrets have slashes in them, as often as not.
        return f"{match[1]}://{rest.rpartition('@')[2]}"
    port = re.search(r":\d+$", authority) is not None and match[1].lower() not in CREDENTIALS
    if ":" in authority and not port:
        return f"{match[1]}://"
    return f"{match[1]}://{authority.rpartition('@')[2]}{slash}{key}"


def without_secrets(text: str) -> str:
    """Apply `redacted` to each address in a sentence, also to one that became a `Path`."""
    return re.sub(
        r"([A-Za-z][A-Za-z0-9+.-]*):(//?)([^\s/]\S*?)(?=[:;,.)'\"]*(?:\s|$))",
        lambda found: redacted(f"{found[1]}://{found[3]}").replace("://", f":{found[2]}", 1),
        text,
    )


def as_path(text: str | StoragePath) -> StoragePath:
    """Return the place that a path or an address names.

    Raises
    ------
    InputError
        For a path that is empty or holds a zero byte; for an address of a kind that is not known,
        or one with credentials or a signature in it: it would get into plans, records and logs.
    """
    if isinstance(text, Path | ObjectPath):
        return text
    if not text.strip():
        raise InputError("a path is empty; give one, or leave it out")
    if "\0" in text:
        raise InputError(f"{text}: no path holds a zero byte; check where it comes from")
    match = _URL.fullmatch(text)
    if match is None:
        return Path(text)
    shown, scheme = redacted(text), match[1].lower()
    if scheme not in CREDENTIALS:
        raise InputError(
            f"{shown}: {scheme}:// is not read or written; give a path, or an address that begins "
            f"with {', '.join(f'{known}://' for known in CREDENTIALS)}"
        )
    if shown != text:
        raise InputError(
            f"{shown}: its address had more in it (a password, a signature, a query), which would "
            "get into records; give the address alone, and credentials in the environment "
            f"({CREDENTIALS[scheme]})"
        )
    bucket, _, key = match[2].partition("/")
    parts = [part for part in key.split("/") if part]
    if not re.fullmatch(r"[A-Za-z0-9._-]+", bucket) or not parts or {".", ".."} & set(parts):
        raise InputError(f"{shown} is not the address of an object; write {scheme}://BUCKET/NAME")
    return ObjectPath(scheme, bucket, "/".join(parts))
