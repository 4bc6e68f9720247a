"""What passes cost on this machine, remembered from run to run in the user's cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tilepipe.engine.planning.runtime_selection import RuntimeChoice
from tilepipe.schema import decode
from tilepipe.storage.cache import cache_folder
from tilepipe.storage.whole import write_whole

DAYS = 30
"""How long a measurement is believed: machines and their neighbours change."""
FILE = "passes.json"
MOST = 100
"""Measurements that are kept, the latest."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A measurement, and when it was made."""

    day: float
    """In days since 1970."""
    choice: RuntimeChoice


def measurement_key(**what: Any) -> str:
    """The name of a measurement: of everything that it depends on."""
    what["processor"] = _processor(), os.cpu_count()
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def recall(key: str) -> RuntimeChoice | None:
    """A measurement of the last `DAYS`; None if there is none."""
    found = _read().get(key)
    return None if found is None else found.choice


def remember(key: str, choice: RuntimeChoice) -> None:
    """Keep a measurement; where that is not possible, the next run measures again."""
    kept = {**_read(), key: Remembered(time.time() / 86400, choice)}
    latest = sorted(kept.items(), key=lambda item: item[1].day)[-MOST:]
    folder = cache_folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({key: asdict(item) for key, item in latest}, indent=1)
        write_whole(folder / FILE, text, alone=False)


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def _read() -> dict[str, Remembered]:
    folder = cache_folder()
    if folder is None:
        return {}
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = {str(key): decode(Remembered, item) for key, item in document.items()}
    except (OSError, ValueError, AttributeError):
        return {}
    today = time.time() / 86400
    return {key: item for key, item in found.items() if 0 <= today - item.day < DAYS}
