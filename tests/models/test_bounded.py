"""Passes whose algorithms are chosen while there is little memory."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass, field

import pytest
import torch

from tilepipe.engine.cluster.failures import out_of_memory
from tilepipe.models.runtimes.bounded import ROOM, with_little_memory

TOTAL = 80 * ROOM


@dataclass
class Gpu:
    """What `torch.cuda` does about memory, of a GPU on which something else takes some."""

    reserved: int = 3 * ROOM
    shares: list[float] = field(default_factory=list)

    before: float = 1.0
    """The share that the caller's program had set."""

    class OutOfMemoryError(RuntimeError):
        pass

    def get_per_process_memory_fraction(self) -> float:
        return self.shares[-1] if self.shares else self.before

    def mem_get_info(self) -> tuple[int, int]:
        return TOTAL - self.reserved, TOTAL

    def memory_reserved(self) -> int:
        return self.reserved

    def set_per_process_memory_fraction(self, share: float) -> None:
        assert 0 < share <= 1
        self.shares.append(share)

    def synchronize(self) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def allocate(self, size: int) -> None:
        if self.reserved + size > self.shares[-1] * TOTAL + 1:
            raise self.OutOfMemoryError

    def choose(self, needs: list[int]) -> int:
        """Try one algorithm after the other, as torch does for a convolution."""
        for need in needs:
            with contextlib.suppress(self.OutOfMemoryError):
                self.allocate(need)
                return need
        raise RuntimeError("GET was unable to find an engine to execute this computation")


def test_the_stand_in_is_called_as_torch_can_be() -> None:
    for name in dir(Gpu):
        theirs = getattr(torch.cuda, name, None)
        if not inspect.isfunction(theirs):
            continue
        ours = inspect.signature(getattr(Gpu, name)).parameters
        given = ["of any type" for each in ours.values() if each.name != "self"]
        inspect.signature(theirs).bind(*given)
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)


@pytest.mark.parametrize("least", [ROOM // 8, ROOM, 3 * ROOM, 5 * ROOM, 70 * ROOM])
def test_the_algorithm_that_needs_little_is_chosen(least: int) -> None:
    gpu, chosen = Gpu(), list[int]()
    # As cuDNN likes them.
    with_little_memory(lambda: chosen.append(gpu.choose([76 * ROOM, 4 * least, least])), gpu)
    assert len(chosen) == 1
    assert chosen[0] <= max(ROOM, 2 * least)
    assert gpu.shares[-1] == 1, "the limit is lifted"


def test_a_limit_of_the_caller_holds_before_and_after() -> None:
    gpu = Gpu(before=0.5)
    with pytest.raises(RuntimeError, match="unable to find an engine") as raised:
        with_little_memory(lambda: gpu.choose([50 * ROOM]), gpu)
    assert out_of_memory(raised.value), "so that planning tries a smaller window"
    assert max(gpu.shares) == 0.5
    assert gpu.shares[-1] == 0.5


def test_a_pass_that_fits_nowhere_says_so_and_lifts_the_limit() -> None:
    gpu = Gpu()
    with pytest.raises(gpu.OutOfMemoryError):
        with_little_memory(lambda: gpu.allocate(90 * ROOM), gpu)
    assert gpu.shares[-1] == 1
    with pytest.raises(ValueError, match="of another kind"):
        with_little_memory(lambda: int("of another kind"), gpu)
    assert gpu.shares[-1] == 1
