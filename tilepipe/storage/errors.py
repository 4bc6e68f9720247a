"""Errors of object stores as one sentence of tilepipe's, without text from the server.

A server may put into its answer what it was asked: the id of a key, a signature, a token. So its
text is read here for what happened, and goes no further: not into a message, nor along with an
exception as its cause or context.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from tilepipe.errors import EnvironmentFailure, InputError

T = TypeVar("T")

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
"""Environment variables from which each kind of store takes its credentials."""

ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_SERVICE_ACCOUNT", "az": "AZURE_ENDPOINT"}


class StoreError(EnvironmentFailure):
    """An object store cannot be reached, or fails; the run can be resumed."""


class StoreRefusedError(StoreError):
    """An object store refuses: credentials, permissions, or a bucket that does not exist."""


class InputRefused(AbstractContextManager["InputRefused"]):
    """Turn a refusal into an `InputError`: the address or credentials were just given."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, StoreRefusedError):
            raise InputError(str(error)) from None


def ask(address: str, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function of obstore about an ``address``, and translate its errors.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    StoreError
        Anything else, but what `conditions` names.
    """
    try:
        return call(*arguments, **options)
    except conditions():
        raise
    except failures() as error:
        failure = in_our_words(address, error)
    # Not within the handler: an exception raised there would take the server's along.
    raise failure


async def ask_async(address: str, call: Awaitable[T]) -> T:
    """Await a call of obstore, and translate its errors as `ask` does."""
    try:
        return await call
    except failures() as error:
        failure = in_our_words(address, error)
    raise failure


def conditions() -> tuple[type[Exception], ...]:
    """Exceptions of obstore for a condition of writing that does not hold."""
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    return AlreadyExistsError, PreconditionError


def failures() -> tuple[type[Exception], ...]:
    """All other exceptions of obstore."""
    from obstore.exceptions import BaseError

    return BaseError, OSError, ValueError


def in_our_words(address: str, error: Exception) -> Exception:
    """Make the error that is raised instead of one of obstore's."""
    text = str(error)
    scheme = address.partition("://")[0]
    status = _found(r"status code: (\d{3})\b", text)
    code = _found(r"<Code>([A-Za-z]{1,40})</Code>", text)
    answer = f" ({' '.join(part for part in (status, code) if part)})" if status else ""
    credentials = CREDENTIALS.get(scheme, "credentials")
    if code == "NoSuchBucket":
        bucket = "/".join(address.split("/")[:3])
        return StoreRefusedError(f"{bucket}: there is no such bucket; make it, or check the name")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", address)
    if "169.254.169.254" in text or "metadata.google" in text:
        return StoreRefusedError(
            f"{address}: there are no credentials for the object store; give them in the "
            f"environment ({credentials})"
        )
    if status in ("401", "403"):
        return StoreRefusedError(
            f"{address}: the object store refuses access{answer}; give credentials that may, in "
            f"the environment ({credentials})"
        )
    if status == "501" or "NotImplemented" in type(error).__name__:
        return StoreRefusedError(
            f"{address}: the object store cannot do what tilepipe needs{answer}: writing on the "
            "condition that an object is new, or still the same; use another store"
        )
    if status is not None and status < "500":
        return StoreRefusedError(
            f"{address}: the object store refuses what it was asked{answer}; check "
            f"{ENDPOINTS.get(scheme, 'the address')} and the region"
        )
    if status is not None:
        return StoreError(f"{address}: the object store fails{answer}; wait until it is well again")
    return StoreError(
        f"{address}: the object store cannot be reached; check the network and "
        f"{ENDPOINTS.get(scheme, 'the address')}"
    )


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None
