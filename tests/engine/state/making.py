"""What tests of a run's state share: a listener, and ways to damage files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tilepipe.engine.events import RunCallbacks
from tilepipe.errors import EnvironmentFailure


class Told(RunCallbacks):
    """Keeps what a run says; at a stage, does something."""

    def __init__(self, stage: str = "", act: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.at, self.act = stage, act

    def on_warning(self, message: str) -> None:
        self.said.append(message)

    def stage(self, name: str) -> None:
        if self.at and self.at in name:
            self.at = ""
            self.act()


def stop() -> None:
    raise EnvironmentFailure("stopped by a test")


def flip(path: Path, place: float = 0.5) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2))
