"""What the faults are tried on: slides, a tiny model, commands, and what must come of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray

from tests.making import digest, make_image, save_tiny, write_tiff
from tests.zygote import Run, Zygote
from tilepipe.engine.state.folder import FOLDER
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.models.unet import UNetArguments

NO_ANSWER = 255


@dataclass
class Case:
    """One image with the outputs asked for, and how a run of them is started."""

    name: str
    image: str
    """File name."""
    outputs: tuple[str, ...]
    window: int
    more: tuple[str, ...] = ()

    @property
    def store(self) -> str:
        """The folder that blocks are written to."""
        first = self.outputs[0]
        return first if first.endswith(".zarr") else f"{first}.unfinished.ome.zarr"


@dataclass
class Scene:
    """A folder with images and model, and what an undisturbed run of each case gives."""

    folder: Path
    cases: dict[str, Case]
    reach: int
    """Pixels: how far from what cannot be read an output may be lost (margin, stride factor)."""
    references: dict[str, Reference] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, *, small: bool) -> Scene:
        """Write images and model into an empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        model = save_tiny(folder / "m.safetensors", UNetArguments(width=1, depth=1, bands=1))
        margin = model.geometry.margin
        reach = margin + model.geometry.stride_factor
        # Two coarser levels; and one bad tile must not be near more than half of the blocks.
        slide, other = ((1040, 1560), (600, 1100)) if small else ((2600, 2650), (1300, 1800))
        write_tiff(folder / "slide.tif", make_image(*slide, 1)[..., 0])
        _write_scene(folder / "scene.tif", make_image(*other, 1))
        window = 512 + 2 * margin  # one window a block, one chunk a block
        zarr_and_tiff = ("m.ome.zarr", "m.ome.tif")
        cases = [
            Case("one process", "slide.tif", zarr_and_tiff, window),
            Case("two workers", "slide.tif", zarr_and_tiff, window, ("--workers", "2")),
            Case("COG only", "scene.tif", ("s.tif",), window),
        ]
        scene = cls(folder, {case.name: case for case in cases}, reach)
        folder.chmod(0o755)
        return scene

    def command(self, case: Case, to: Path, image: Path | None = None) -> list[str]:
        """The arguments of a run; always of the same relative outputs."""
        outputs = [word for name in case.outputs for word in ("-o", str(to / name))]
        return [
            "run", str(image or self.folder / case.image), "-m", str(self.folder / "m.safetensors"),
            *outputs, "--window", str(case.window), "--threads", "1", "--memory", "4GB",
            "--runtime", "torch",
            *case.more,
        ]  # fmt: skip

    def reference(self, zygote: Zygote, case: Case) -> Reference:
        """What an undisturbed run gives; made once."""
        if case.name not in self.references:
            to = self.folder / f"reference {case.name}"
            shutil.rmtree(to, ignore_errors=True)
            to.mkdir()
            begin = time.monotonic()
            run = zygote.start(self.command(case, to), to.with_name(to.name + ".log"))
            assert run.wait() == 0, run.said
            self.references[case.name] = Reference(to, case, time.monotonic() - begin)
        return self.references[case.name]


@dataclass
class Reference:
    """An undisturbed run."""

    folder: Path
    case: Case
    seconds: float

    @cached_property
    def digest(self) -> dict[str, str]:
        """Its bytes."""
        return digest(self.folder)

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Its mask, read without tilepipe."""
        return labels_of(self.folder / self.case.outputs[0])

    @cached_property
    def records(self) -> int:
        """How much its ledger held; of a store that is gone, the number of blocks."""
        ledger = self.folder / self.case.store / FOLDER / "ledger"
        height, width = self.labels.shape
        return len(list(read_ledger(ledger))) or -(-height // 512) * -(-width // 512)


def labels_of(path: Path) -> NDArray[np.uint8]:
    """The labels of a mask, by zarr or tifffile."""
    if path.suffix == ".zarr":
        import zarr

        array = zarr.open_array(str(path / "0"), mode="r")
        return np.asarray(array[:], np.uint8)
    return np.asarray(tifffile.imread(path, series=0, level=0), np.uint8)


def tiles_of(image: Path) -> list[tuple[int, int, slice, slice]]:
    """Offset, length, rows and columns of each tile of level 0 of a TIFF."""
    with tifffile.TiffFile(image) as file:
        page = file.pages.first
        across = -(-page.imagewidth // page.tilewidth)
        found = []
        for number, (offset, count) in enumerate(
            zip(page.dataoffsets, page.databytecounts, strict=True)
        ):
            y, x = (n * page.tilewidth for n in divmod(number, across))
            rows = slice(y, min(y + page.tilelength, page.imagelength))
            found.append((offset, count, rows, slice(x, min(x + page.tilewidth, page.imagewidth))))
        return found


def permitted(shape: tuple[int, int], bad: list[tuple[slice, slice]], margin: int) -> NDArray[Any]:
    """Where an output's window touches what cannot be read: within the margin of it.

    Windows outside the image are mirrored, so that a bad pixel near an edge is also seen beyond it.
    """
    mask = np.zeros(shape, np.bool_)
    for rows, columns in bad:
        mask[rows, columns] = True
    padded = np.pad(mask, margin, mode="reflect")
    grown = np.zeros(shape, np.bool_)
    for dy in range(2 * margin + 1):
        grown |= padded[dy : dy + shape[0], margin : margin + shape[1]]
    wide = np.pad(grown, ((0, 0), (margin, margin)), mode="reflect")
    rows_grown = np.zeros((shape[0], shape[1]), np.bool_)
    for dx in range(2 * margin + 1):
        rows_grown |= wide[:, dx : dx + shape[1]]
    return rows_grown


def wait_for(run: Run, moment: Callable[[], bool]) -> bool:
    """Wait for a moment, or for the end of the run; whether the moment came first."""
    while not moment():
        if run.poll() is not None:
            return False
        time.sleep(0.002)
    return run.poll() is None


def _write_scene(path: Path, pixels: NDArray[np.uint8]) -> None:
    from rasterio.transform import from_origin

    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=1,
        dtype="uint8", crs="EPSG:32633", transform=from_origin(5e5, 5e6, 0.25e-6, 0.25e-6),
        tiled=True, blockxsize=128, blockysize=128, compress="DEFLATE",
    ) as dataset:  # fmt: skip
        dataset.write(pixels[None, ..., 0])
