"""What the machine does to a run: one sentence, exit code 4, and the same command goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import tilepipe
from tests.making import WINDOW
from tilepipe.engine.cluster.failures import REMEDIES, environment_failure
from tilepipe.engine.run import exports, pyramid
from tilepipe.engine.run import job as engine
from tilepipe.errors import EnvironmentFailure, UnreadableError


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_what_cannot_be_written_says_where_and_what_to_do(number: int) -> None:
    cause = environment_failure(OSError(number, os.strerror(number), "/masks/0/c/1/2"))
    assert cause is not None
    assert cause.exit_code == 4
    assert "/masks/0/c/1/2" in str(cause)
    assert str(cause).endswith(REMEDIES[number])


def test_a_block_that_ends_its_workers_is_the_machines_doing() -> None:
    from distributed import KilledWorker

    cause = environment_failure(KilledWorker("block-7", None, 3))
    assert cause is not None
    assert "--memory" in str(cause)


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), UnreadableError("x"), OSError(errno.ENOENT)]
)
def test_everything_else_is_not(error: Exception) -> None:
    assert environment_failure(error) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "trouble"),
    [
        ("export", OSError(errno.ENOSPC, "No space left on device")),
        ("pyramid_blocks", OSError(errno.EIO, "I/O error")),
        ("create_mask", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_trouble_outside_the_blocks_is_one_sentence_from_python_too(
    image: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    trouble: OSError,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise trouble

    outputs = [tmp_path / "m.ome.zarr", tmp_path / "m.ome.tif"]
    with monkeypatch.context() as patched:
        homes = {"export": exports, "pyramid_blocks": pyramid, "create_mask": engine}
        patched.setattr(homes[part], part, fail)
        with pytest.raises(EnvironmentFailure):
            tilepipe.run(image, model=model, outputs=outputs, window=WINDOW)
    summary = tilepipe.run(image, model=model, outputs=outputs, window=WINDOW)
    assert summary.exit_code == 0
    assert outputs[1].exists()
