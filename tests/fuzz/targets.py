"""What is done with a mutant: what a user would do with a file, through Python and the commands.

A target returns ``read`` or ``refused``; a `TilepipeError` that it raises is a refusal too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.harness import Wrong, plain, screen_of

LARGEST_PIECE = 32 * 2**20
"""Bytes of one decoded strip, tile or chunk that are allowed, as a run in 128 MiB would."""

CODES = (0, 2, 3, 4, 5)
"""Exit codes that a file may bring about; 1 is a bug."""


def read_image(path: Path) -> str:
    """Open an image, describe it, read some windows of some levels."""
    from tilepipe.cli.show import show_image
    from tilepipe.grid import Window
    from tilepipe.images import check_bounded, open_image
    from tilepipe.images.windowed import read_with_valid

    image = open_image(path)
    try:
        height, width, bands = image.shape
        if height < 1 or width < 1 or bands < 1 or image.dtype.kind not in "uif":
            raise Wrong(f"an image of {image.shape}, {image.dtype}")
        if not plain(show_image(image).replace("\n", " ")):
            raise Wrong("a description with control characters in it")
        for level in sorted({0, len(image.levels) - 1}):
            check_bounded(image, level, LARGEST_PIECE)
            size = image.levels[level]
            # As large as fits, so that an image of thousands of bands is read by its pixels.
            side = int(max(1, min(300, (2**23 / (bands * image.dtype.itemsize)) ** 0.5)))
            for y, x in ((0, 0), (size.height // 2, size.width // 3),
                         (size.height - side // 2, size.width - side // 2)):  # fmt: skip
                pixels, valid = read_with_valid(image, Window(y, x, side, side), level)
                if pixels.shape != (side, side, bands) or pixels.dtype != image.dtype:
                    raise Wrong(f"a window of {pixels.shape}, {pixels.dtype}")
                if valid is not None and (
                    valid.shape not in {(side, side, 1), (side, side, bands)}
                    or valid.dtype != np.bool_
                ):
                    raise Wrong(f"a validity of {valid.shape}, {valid.dtype}")
    finally:
        image.close()
    return "read"


def use_model(path: Path) -> str:
    """Load a model, describe it, and let its network see the smallest window."""
    import torch

    from tilepipe.models.describe import describe
    from tilepipe.models.file import load_model

    model = load_model(path)
    if not plain(describe(model).replace("\n", " ")):
        raise Wrong("a description with control characters in it")
    geometry = model.geometry
    side = geometry.input if model.predictor.fixed else geometry.smallest_input
    if side**2 * model.input.bands > 4e6:
        return "read"  # that is its own business, and a run would plan for it
    with torch.inference_mode():
        model.network(torch.zeros(1, model.input.bands, side, side))
    return "read"


def open_mask(path: Path) -> str:
    """Open a mask, read its corners, and what the run that made it left beside it."""
    from tilepipe.engine.state.folder import RunState
    from tilepipe.engine.state.progress import Progress
    from tilepipe.grid import Window
    from tilepipe.products.formats import open_mask as open_any

    state = RunState(path)
    state.current_run()
    state.allows_mixed()
    if path.is_dir():
        state.read_plan()
        Progress.from_ledger(state.ledger_file)
    mask = open_any(path)
    try:
        for level, (height, width) in enumerate(mask.levels[:2]):
            rows, columns = min(64, height), min(64, width)
            for y, x in ((0, 0), (height - rows, width - columns)):
                mask.read(Window(y, x, rows, columns), level)
    finally:
        mask.close()
    return "read"


def command(*words: str) -> str:
    """A command of the command line, as its own process would run it."""
    from tilepipe.cli import main

    def run() -> int:
        sys.argv = ["tilepipe", *words]
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        raise Wrong("the command did not exit")

    code, out, err = screen_of(run)
    lines = err.strip().splitlines()
    if code not in CODES:
        raise Wrong(f"exit code {code}: {err[-300:]!r}")
    if "Traceback" in err or "Traceback" in out:
        raise Wrong(f"a traceback: {err[-300:]!r}")
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("tilepipe: ")):
        raise Wrong(f"{len(lines)} lines of error: {err[:600]!r}")
    if not all(plain(line) for line in (*lines, *out.splitlines())):
        raise Wrong(f"control characters: {(out + err)[-300:]!r}")
    return "refused" if code == 2 else "read"


def info(path: Path) -> str:
    """`tilepipe info`."""
    return command("info", str(path))


def plan_and_run(path: Path, model: Path) -> str:
    """`tilepipe plan`, and where that is few blocks, `tilepipe run` and `tilepipe verify`."""
    os.chdir(path.parent)
    words = (str(path), "-m", str(model), "--memory", "1GB", "--device", "cpu", "--threads", "1",
             "--pixel-size", "0.25", "--window", "188", "-o", "made.ome.zarr", "-o", "made.png")  # fmt: skip
    if command("plan", *words) == "refused":
        return "refused"
    from tilepipe.images import open_image

    image = open_image(path)
    pixels = image.levels[0].height * image.levels[0].width
    image.close()
    if pixels > 1e6:
        return "read"  # large, and well described: a long run is no hang
    verdict = command("run", *words, "-q")
    if verdict == "read" and Path("made.ome.zarr").exists():
        command("verify", "made.ome.zarr", "--windows", "2")
    return verdict


def configured(path: Path) -> str:
    """`tilepipe plan --config`, of an image that is not there: options come first."""
    os.chdir(path.parent)
    return command("plan", "no-such-image.tif", "--config", str(path))


def verify_mask(path: Path) -> str:
    """`tilepipe verify` of a mask."""
    return command("verify", str(path), "--windows", "2", "--device", "cpu")


def resume_mask(path: Path, image: Path, model: Path) -> str:
    """`tilepipe run` onto a mask that is there already."""
    os.chdir(path.parent)
    return command("run", str(image), "-m", str(model), "-o", path.name, "--window", "188",
                   "--threads", "1", "--memory", "2GB", "--device", "cpu", "-q")  # fmt: skip


Target = Callable[[Path], str]


def targets(family: str, extras: dict[str, Path]) -> dict[str, tuple[float, Target]]:
    """The targets of a family by name, each with its share of the mutants.

    ``extras`` are the files that a command needs beside the mutant: an image and a model.
    """
    model, image = extras["model"], extras["image"]
    if family in ("tiff", "picture", "zarr"):
        return {
            "read": (0.85, read_image),
            "info": (0.1, info),
            "run": (0.05, lambda path: plan_and_run(path, model)),
        }
    if family in ("model", "onnx"):
        return {
            "load": (0.9, use_model),
            "info": (0.07, info),
            "plan": (0.03, lambda path: command(
                "plan", str(image), "-m", str(path), "--memory", "1GB", "--device", "cpu",
                "--threads", "1", "-o", str(path.with_name("m.ome.zarr")))),
        }  # fmt: skip
    if family == "mask":
        return {
            "open": (0.7, open_mask),
            "verify": (0.15, verify_mask),
            "resume": (0.15, lambda path: resume_mask(path, image, model)),
        }
    return {"config": (1.0, configured)}
