"""The one place that loads OpenVINO and NNCF, without the reports that they send to their makers.

Imported as it is, OpenVINO reports that over the network, by the package ``openvino_telemetry``;
without this package it reports nothing. Programs that load OpenVINO before tilepipe decide for
themselves.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_TELEMETRY = "openvino_telemetry"


def load_openvino() -> ModuleType:
    """The package ``openvino``."""
    with _silence():
        return import_module("openvino")


def load_nncf() -> ModuleType:
    """The package ``nncf``."""
    with _silence(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("nncf")


@contextmanager
def _silence() -> Iterator[None]:
    """While this lasts, the package that reports cannot be imported."""
    found = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if found is not None:
            sys.modules[_TELEMETRY] = found
