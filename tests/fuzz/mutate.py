"""Mutations that know nothing of a format: of bytes, and of JSON values."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (
    0, 1, 2, 3, 7, 8, 9, 16, 127, 128, 255, 256, 511, 4096, 32767, 65535, 65536, 10**6,
    2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53 + 1, 2**62, 2**63 - 1, 2**64 - 1,
)  # fmt: skip
"""At which programs go wrong."""

WORDS = (
    "", " ", "/", "..", "../../etc/passwd", "a" * 5000, "NaN", "Infinity", "0", "-1", "1e400",
    "\x00", "\x1b[31mred", "line\nline", "\ud800", "é" * 50, "uint8", "object", "|O", ">f8", "bytes",
    "sharding_indexed", "pickle", "zstd", "vlen-utf8", "builtins.exec", "!!python/object", "http://localhost:9/x",
)  # fmt: skip


def mutate_bytes(content: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Some mutations of bytes, most of them near the beginning, where formats keep their heads."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5, 10))):
        if not data:
            break
        random.choice(_BYTE_OPERATIONS)(data, random)
    if others and random.random() < 0.1:
        other = random.choice(others)
        cut, start = _place(data, random), _place(other, random)
        return bytes(data[:cut]) + other[start:]
    return bytes(data)


def _place(data: bytes | bytearray, random: Random) -> int:
    size = max(1, len(data))
    return random.randrange(min(size, random.choice((64, 512, size, size))))


def _flip_bit(data: bytearray, random: Random) -> None:
    data[_place(data, random)] ^= 1 << random.randrange(8)


def _set_byte(data: bytearray, random: Random) -> None:
    data[_place(data, random)] = random.choice((0, 1, 127, 128, 254, 255, random.randrange(256)))


def _set_number(data: bytearray, random: Random) -> None:
    place, code = _place(data, random), random.choice("HIQ")
    order, size = random.choice("<>"), struct.calcsize(code)
    value = random.choice(NUMBERS) % 2 ** (8 * size)
    data[place : place + size] = struct.pack(order + code, value)


def _truncate(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _remove(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    del data[place : place + random.choice((1, 2, 4, 8, 100, 1000))]


def _repeat(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    part = data[place : place + random.choice((1, 4, 16, 500))]
    data[place:place] = part * random.choice((1, 2, 10))


def _zero(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    count = min(len(data) - place, random.choice((4, 16, 100, 1000)))
    data[place : place + count] = bytes(count)


def _noise(data: bytearray, random: Random) -> None:
    place = _place(data, random)
    count = min(len(data) - place, random.choice((4, 16, 100, 1000)))
    data[place : place + count] = random.randbytes(count)


_BYTE_OPERATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_number, _set_number, _truncate, _remove, _repeat, _zero,
    _noise,
)  # fmt: skip


def strange_value(random: Random) -> Any:
    """A JSON value of any kind."""
    kind = random.randrange(10)
    if kind < 4:
        number = random.choice(NUMBERS)
        return random.choice((number, -number, float(number), number + 0.5))
    if kind < 6:
        return random.choice(WORDS)
    return random.choice(
        (None, True, False, [], {}, [1], [[]], {"a": 1}, float("nan"), float("inf"), -1, 10**400,
         [2**40, 2**40], [0, 0], [-1, -1], [1] * 40, {"name": "zstd"}, [None], deep(random), ["x"])
    )  # fmt: skip


def deep(random: Random) -> Any:
    """A value nested so deeply that recursion ends."""
    value: Any = 1
    for _ in range(random.choice((10, 100, 900))):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def mutate_json(value: Any, random: Random) -> Any:
    """A JSON value with some of its parts changed, left out, renamed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _mutate_part(value, random)
    return value


def _mutate_part(value: Any, random: Random) -> Any:
    # Down to some part; the further down, the more parts there are.
    holders: list[tuple[Any, Any]] = []
    stack = [value]
    while stack and len(holders) < 10000:
        part = stack.pop()
        keys: Any = ()
        if isinstance(part, dict):
            keys = list(part)
        elif isinstance(part, list):
            keys = range(len(part))
        for key in keys:
            holders.append((part, key))
            stack.append(part[key])
    if not holders or random.random() < 0.02:
        return strange_value(random)
    holder, key = random.choice(holders)
    how = random.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.25 and isinstance(holder, list):
        holder.insert(key, random.choice((holder[key], strange_value(random))))
    elif how < 0.25:
        holder[str(random.choice(WORDS))] = holder.pop(key)
    elif how < 0.45 and isinstance(holder[key], int | float):
        number = holder[key]
        holder[key] = random.choice(
            (-number, number + 1, number - 1, number * 2, number * 2**20, str(number), [number],
             float(number))
        )  # fmt: skip
    elif how < 0.55:
        other = random.choice(holders)
        try:
            holder[key] = json.loads(json.dumps(other[0][other[1]]))
        except (KeyError, IndexError):
            holder[key] = None
    else:
        holder[key] = strange_value(random)
    return value


def dump_json(value: Any, random: Random) -> bytes:
    """JSON text, now and then no longer quite that."""
    try:
        text = json.dumps(value).encode(errors="surrogatepass")
    except (ValueError, RecursionError):
        text = b"[" * 100000
    how = random.random()
    if how < 0.03:
        return b"[" * random.choice((1000, 100_000, 1_000_000))
    if how < 0.05:
        return b'{"a":' * random.choice((1000, 100_000))
    if how < 0.15:
        return mutate_bytes(text, random)
    if how < 0.17:
        return b"\xef\xbb\xbf" + text
    return text
