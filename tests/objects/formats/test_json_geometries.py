"""Geometries of GeoJSON are the same text, however large the objects."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tests.objects.making import noise, outlines_of
from tilepipe.objects.formats import json_geometries


def test_large_objects_are_the_same_text_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    outlines = outlines_of(noise((40, 50), 0.6))
    assert np.diff(outlines.rings).max() > 10
    as_lists = list(json_geometries.json_geometries(outlines))
    for large in (1, 3, 7):
        monkeypatch.setattr(json_geometries, "LARGE", large)
        found = list(json_geometries.json_geometries(outlines))
        assert any(isinstance(each["coordinates"], msgspec.Raw) for each in found) or any(
            isinstance(part, msgspec.Raw) for each in found for part in each["coordinates"]
        )
        assert msgspec.json.encode(found) == msgspec.json.encode(as_lists)
