"""A warm process that forks others: what `python` does, without its seconds of imports.

`Zygote` asks it, by one JSON document a line:
``{"words": ARGUMENTS, "code": ..., "environment": ..., "log": ..., "plain": ...}``
starts a process in a group of its own and answers its process id; ``{"poll": PID}`` answers
its exit status, or null while it runs. Nothing in the warm process starts a thread, so that forking
is safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.faults.hooks import VARIABLE

LONGEST = 600.0
"""Seconds after which a process that has not ended is a failure."""
WARM = (
    "torch", "torch._dynamo", "numpy", "zarr", "dask", "distributed",
    "tifffile", "imagecodecs", "rasterio",
    "rasterio.shutil", "psutil", "PIL.Image", "tilepipe.cli.run", "tilepipe.cli.show",
    "tilepipe.engine.run.run", "tilepipe.engine.run.verify", "tilepipe.models.file",
    "tilepipe.images.tiff", "tilepipe.images.raster", "tilepipe.products.formats",
    "tilepipe.products.geotiff", "tilepipe.products.ome_tiff",
)  # fmt: skip


@dataclass
class Run:
    """One process of the zygote's."""

    zygote: Zygote
    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.code is None:
            self.code = self.zygote.ask({"poll": self.pid})
        return self.code

    def wait(self, longest: float = LONGEST) -> int:
        """Wait for the end; a run that does not end is killed, and an error here."""
        end = time.monotonic() + longest
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill(everyone=True)
                raise AssertionError(f"did not end in {longest} s: {self.said}")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def kill(self, number: int = signal.SIGKILL, *, everyone: bool = False) -> None:
        """Send a signal to the process, or to those it started too."""
        if self.poll() is None:
            os.kill(self.pid, number)
        if everyone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    @property
    def said(self) -> str:
        """Standard output and error."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Zygote:
    """The warm process; for one thread."""

    def __init__(self) -> None:
        root = Path(__file__).parents[1]
        path = [str(root), str(root / "tests" / "faults" / "site")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"], cwd=root, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the zygote did not start"

    def ask(self, request: dict[str, Any]) -> Any:
        """One question, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        words: list[str],
        log: Path,
        fault: dict[str, Any] | None = None,
        *,
        code: str = "",
        plain: bool = False,
        **environment: str,
    ) -> Run:
        """Start `tilepipe WORDS`; with ``code``, `python -c CODE WORDS`."""
        if fault:
            environment[VARIABLE] = json.dumps(fault)
        request = {
            "words": words, "code": code, "environment": environment, "log": str(log),
            "plain": plain,
        }  # fmt: skip
        return Run(self, self.ask(request), log)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main() -> None:
    """Serve until the input ends."""
    for name in WARM:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, (
        "a thread would not live through a fork"
    )
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                _run(request)
        print(json.dumps(answer), flush=True)  # noqa: T201


def _run(request: dict[str, Any]) -> NoReturn:
    """In the child: become a process as a shell would have started it, and run the command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.update(request["environment"])
    if request["plain"]:
        _obey_permissions()

    from tests.faults import hooks
    from tilepipe.cli import main as tilepipe

    hooks.install()
    sys.argv = ["-c" if request["code"] else "tilepipe", *request["words"]]
    # Either ends by SystemExit, which ends this process as it does any.
    if request["code"]:
        exec(request["code"], {"__name__": "__main__"})
    else:
        tilepipe()
    raise SystemExit(0)


def _obey_permissions() -> None:
    """Let permissions count for root too, by giving up the capability to pass over them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if libc.capget(header, sets) or libc.capset(header, _without(sets, (1, 2))):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def _without(sets: Any, numbers: tuple[int, ...]) -> Any:
    for number in numbers:
        for which in (0, 1, 2):
            sets[which] &= ~(1 << number) & 0xFFFFFFFF
    return sets


if __name__ == "__main__":
    main()
