"""Numpy and torch make the same input of the same pixels, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tilepipe.models import normalisation
from tilepipe.models.normalisation import ArrayNormalisation
from tilepipe.models.specs import InputSpec
from tilepipe.models.tensor_normalisation import TensorNormalisation

SPEC = InputSpec(3, "uint8", 1 / 255, (0.7, 0.555, 0.61), (0.2, 0.313, 0.217))


def pixels(dtype: str) -> np.ndarray:
    """All values of 8 bits in every band, or many of other types."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        found = rng.normal(100, 1e4, (70, 90, 3)).astype(dtype)
        found[3, :5] = np.nan, np.inf, -np.inf
        return found
    limits = np.iinfo(dtype)
    found = rng.integers(limits.min, limits.max, (70, 90, 3), dtype, endpoint=True)
    if dtype == "uint8":
        found[:3].reshape(-1, 3)[:256] = np.arange(256, dtype=np.uint8)[:, None]
    return found


def by_torch(given: np.ndarray, holes: np.ndarray | None) -> np.ndarray:
    normalise = TensorNormalisation(SPEC, "cpu", None)
    tensors = torch.from_numpy(given), None if holes is None else torch.from_numpy(holes)
    return normalise(*tensors).contiguous().numpy()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("holes", [None, 1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_are_torchs(
    dtype: str, holes: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalisation, "STRIP_BYTES", 4 * 90 * 16)  # rows at a time
    given = pixels(dtype)
    where = None if holes is None else np.random.default_rng(1).random((70, 90, holes)) < 0.2
    before = given.copy()
    found = ArrayNormalisation(SPEC, threads)(given, where)
    np.testing.assert_array_equal(given, before)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    expected = by_torch(given, where)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_windows_of_any_shape_follow_each_other_in_the_same_memory() -> None:
    whole, normalise = pixels("uint8"), ArrayNormalisation(SPEC, 2)
    holes = np.random.default_rng(1).random((70, 90, 3)) < 0.5
    first = normalise(whole, holes)
    for rows, columns, there in ((70, 90, holes), (20, 31, None), (1, 1, None), (70, 90, None)):
        given, where = whole[:rows, :columns], None if there is None else there[:rows, :columns]
        found = normalise(given, where)
        np.testing.assert_array_equal(found, by_torch(given.copy(), where))
        assert np.may_share_memory(found, first)


def test_a_part_of_a_larger_array_will_do() -> None:
    given = pixels("uint8")[5:50, 7:40]
    found = ArrayNormalisation(SPEC)(given, None)
    np.testing.assert_array_equal(found, by_torch(given.copy(), None))
