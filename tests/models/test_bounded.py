"""Passes whose algorithms are chosen while there is little memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tilepipe.models.runtimes.bounded import ROOM, with_little_memory

TOTAL = 80 * ROOM


@dataclass
class Gpu:
    """What `torch.cuda` does about memory, of a GPU on which something else takes some."""

    reserved: int = 3 * ROOM
    shares: list[float] = field(default_factory=list)

    class OutOfMemoryError(RuntimeError):
        pass

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return TOTAL - self.reserved, TOTAL

    def memory_reserved(self, device: str) -> int:
        return self.reserved

    def set_per_process_memory_fraction(self, share: float, device: str) -> None:
        assert 0 < share <= 1
        self.shares.append(share)

    def synchronize(self, device: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def allocate(self, size: int) -> None:
        if self.reserved + size > self.shares[-1] * TOTAL + 1:
            raise self.OutOfMemoryError


@pytest.mark.parametrize("least", [ROOM // 8, ROOM, 3 * ROOM, 5 * ROOM, 70 * ROOM])
def test_the_algorithm_that_needs_little_is_chosen(least: int) -> None:
    gpu, chosen = Gpu(), []

    def work() -> None:
        for need in (76 * ROOM, 4 * least, least):  # as cuDNN likes them
            try:
                gpu.allocate(need)
            except gpu.OutOfMemoryError:
                if need == least:
                    raise
            else:
                chosen.append(need)
                return

    with_little_memory(work, "cuda:0", gpu)
    assert len(chosen) == 1
    assert chosen[0] <= max(ROOM, 2 * least)
    assert gpu.shares[-1] == 1, "the limit is lifted"


def test_a_pass_that_fits_nowhere_says_so_and_lifts_the_limit() -> None:
    gpu = Gpu()
    with pytest.raises(gpu.OutOfMemoryError):
        with_little_memory(lambda: gpu.allocate(90 * ROOM), "cuda:0", gpu)
    assert gpu.shares[-1] == 1
    with pytest.raises(ValueError, match="of another kind"):
        with_little_memory(lambda: int("of another kind"), "cuda:0", gpu)
    assert gpu.shares[-1] == 1
