"""An S3 server for the tests of object stores; they are skipped where moto is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.storage.server import BUCKET, KEY_ID, REGION, SECRET

SERVER = Path(__file__).with_name("server.py")


@dataclass
class Service:
    """The server, as a test sees it."""

    address: str

    def order(self, **orders: Any) -> None:
        """What the server is to do until the next order: `fail`, `times`, `forbid`, `delay`."""
        self._ask("orders", json.dumps(orders).encode())

    def log(self) -> list[str]:
        """The requests since it was last asked for: ``GET /bucket/key``."""
        return list(self._ask("log"))

    @property
    def variables(self) -> dict[str, str]:
        """What the environment of a client holds."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.address,
            "TILEPIPE_OBJECT_PATIENCE": "2",
        }

    def _ask(self, what: str, content: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"{self.address}/-/{what}", content) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """The server, running."""
    if find_spec("moto") is None or find_spec("obstore") is None:
        pytest.skip("moto or obstore is not installed: pip install '.[s3,test]'")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield Service(f"http://127.0.0.1:{int(server.stdout.readline())}")
        server.stdin.close()


@pytest.fixture
def s3(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The server, for one test, with credentials in the environment."""
    from tilepipe.storage.objects import connection

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in service.variables.items():
        monkeypatch.setenv(name, value)
    connection.cache_clear()
    service.order()
    service.log()
    yield service
    service.order()
    connection.cache_clear()


@pytest.fixture
def folder(s3: Service, request: pytest.FixtureRequest) -> str:
    """An address below which nothing lies yet."""
    return f"s3://{BUCKET}/{request.node.name}"
