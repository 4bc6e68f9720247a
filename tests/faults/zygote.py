"""A warm process that forks runs: what `python -m tilepipe` does, without its seconds of imports.

It reads one JSON document a line:
``{"run": ARGUMENTS, "environment": ..., "log": ..., "plain": ...}``
starts a run in a process group of its own and answers its process id; ``{"poll": PID}`` answers
its exit status, or null while it runs. Nothing here starts a thread, so that forking is safe.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

WARM = (
    "torch", "torch._dynamo", "numpy", "zarr", "dask", "distributed",
    "tifffile", "imagecodecs", "rasterio",
    "rasterio.shutil", "psutil", "PIL.Image", "tilepipe.cli.run", "tilepipe.cli.show",
    "tilepipe.engine.run.run", "tilepipe.engine.run.verify", "tilepipe.models.file",
    "tilepipe.images.tiff", "tilepipe.images.raster", "tilepipe.products.formats",
    "tilepipe.products.geotiff", "tilepipe.products.ome_tiff",
)  # fmt: skip


def main() -> None:
    """Serve until the input ends."""
    for name in WARM:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, (
        "a thread would not live through a fork"
    )
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                _run(request)
        print(json.dumps(answer), flush=True)


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
    sys.argv = ["tilepipe", *request["run"]]
    tilepipe()  # ends by SystemExit, which ends this process as it does any
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
