"""Two threads of one program run at once: each mask is what it is alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401 - loads its settings
import pytest

import tilepipe
from tests.making import WINDOW, digest, make_image, write_tiff
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.report.record import Summary
from tilepipe.errors import InputError


def content(path: Path) -> Any:
    return digest(path) if path.is_dir() else path.read_bytes()


class Together(RunCallbacks):
    """Lets no block begin before all runs are as far."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self.barrier = barrier

    def submitted(self) -> None:
        self.barrier.wait(600)


def at_once(*calls: Callable[[], Summary]) -> list[Summary | BaseException]:
    """What each returns, or raises."""

    def caught(call: Callable[[], Summary]) -> Summary | BaseException:
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(caught, calls))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [
        write_tiff(folder / f"{number}.tif", make_image(540, 600, seed=number))
        for number in range(2)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [None, 1])
def test_runs_at_once_give_the_bytes_of_runs_alone(
    images: list[Path], model: Path, tmp_path: Path, workers: int | None
) -> None:
    options: dict[str, Any] = {"model": model, "window": WINDOW, "threads": 1, "verify": 2}
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()

    def outputs(folder: Path, image: Path) -> list[Path]:
        return [folder / f"{image.stem}{suffix}" for suffix in (".ome.zarr", ".ome.tif", ".png")]

    for image in images:
        tilepipe.run(image, outputs=outputs(alone, image), **options)
    config, environment = dask.config.get("distributed"), dict(os.environ)
    barrier = threading.Barrier(len(images))

    def running(image: Path) -> Callable[[], Summary]:
        return lambda: tilepipe.run(
            image,
            outputs=outputs(together, image),
            watch=Together(barrier),
            workers=workers,
            **options,
        )

    for summary in at_once(*(running(image) for image in images)):
        assert isinstance(summary, Summary), summary
        assert summary.exit_code == 0
        assert summary.verification is not None
    for image in images:
        for one, other in zip(outputs(alone, image), outputs(together, image), strict=True):
            assert content(one) == content(other)
    assert dask.config.get("distributed") == config
    own_to_dask = {"PYTHONHASHSEED", "__DASK_PARENT_PID"}  # in any program that starts workers
    changed = {name for name, _ in os.environ.items() ^ environment.items()}
    assert changed <= own_to_dask


@pytest.mark.slow
def test_of_two_that_write_one_output_one_is_refused_in_one_sentence(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mask.ome.zarr"
    for _ in range(3):  # they meet at different places
        results = at_once(
            *(
                lambda: tilepipe.run(
                    images[0], model=model, outputs=output, window=WINDOW, threads=1
                )
                for _ in range(2)
            )
        )
        errors = [result for result in results if not isinstance(result, Summary)]
        assert all(isinstance(error, InputError) for error in errors), errors
        assert len(errors) < 2
        for error in errors:
            assert "another run" in str(error)
            assert "\n" not in str(error)
        done = tilepipe.run(images[0], model=model, outputs=output, window=WINDOW, threads=1)
        assert done.resumed == done.blocks
        tilepipe.verify(output, windows=2)
        tilepipe.run(  # anew, for the next round
            images[0], model=model, outputs=output, window=WINDOW, threads=1, overwrite=True
        )


@pytest.mark.slow
def test_one_that_comes_while_another_writes_is_told_which(
    images: list[Path], model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mask.ome.zarr"
    options: dict[str, Any] = {"model": model, "outputs": output, "window": WINDOW, "threads": 1}
    found: list[BaseException] = []

    class Meanwhile(RunCallbacks):
        def submitted(self) -> None:
            for overwrite in (False, True):
                with pytest.raises(InputError, match="another run is writing it") as caught:
                    tilepipe.run(images[0], overwrite=overwrite, **options)
                found.append(caught.value)

    summary = tilepipe.run(images[0], watch=Meanwhile(), **options)
    assert summary.exit_code == 0
    assert [f"process {os.getpid()}" in str(error) for error in found] == [True, True]
