"""Families of mutants, one after the other; what came of them, counted."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import shutil
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random

from tests.fuzz.formats import MUTATORS
from tests.fuzz.harness import Outcome, isolated, together
from tests.fuzz.seeds import SEEDS, Files
from tests.fuzz.targets import Target, targets

FAMILIES = tuple(SEEDS)
BATCH = 25
"""Mutants that share a process, as long as none fails."""
_IMPORTED = (
    "tilepipe.cli.info", "tilepipe.cli.plan", "tilepipe.cli.run", "tilepipe.cli.verify",
    "tilepipe.cli.show", "tilepipe.engine.run.run", "tilepipe.engine.run.verify", "tilepipe.images.ngff",
    "tilepipe.images.picture", "tilepipe.images.raster", "tilepipe.images.tiff",
    "tilepipe.products.read_geotiff", "tilepipe.products.read_ome_tiff", "tilepipe.products.preview",
    "tilepipe.models.describe", "tilepipe.models.file", "imagecodecs", "yaml", "onnxruntime",
    "onnx.checker", "PIL.PngImagePlugin", "dask.array",
)  # fmt: skip


@dataclass(slots=True)
class Tally:
    """What came of the mutants of a family."""

    family: str
    mutants: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the mutants, by reason."""
    slowest: float = 0.0
    """CPU seconds."""
    growth: int = 0
    """Bytes."""

    def add(self, number: int, outcome: Outcome) -> None:
        self.mutants += 1
        self.verdicts[outcome.verdict] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.growth = max(self.growth, outcome.growth)
        if outcome.verdict == "failed":
            self.failures.setdefault(outcome.reason, []).append(number)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutant: reproduced by its family, seed and number."""

    number: int
    files: Files
    target: str


class Campaign:
    """The seeds of a family, and the mutants that follow from a seed number."""

    def __init__(self, family: str, seed: int, folder: Path) -> None:
        self.family, self.seed = family, seed
        self.seeds, extras = _made(family, folder)
        self.targets = targets(family, extras)

    def mutant(self, number: int) -> Mutant:
        """The mutant of a number; the first ones are the seeds themselves."""
        random = Random(f"{self.family} {self.seed} {number}")
        names = list(self.targets)
        shares = [share for share, _ in self.targets.values()]
        (target,) = random.choices(names, shares)
        if number < len(self.seeds):
            return Mutant(number, self.seeds[number], names[0])
        chosen = random.choice(self.seeds)
        return Mutant(number, MUTATORS[self.family](chosen, random, self.seeds), target)

    def outcomes(self, mutants: list[Mutant], folder: Path) -> list[Outcome]:
        """Write mutants, each into a folder of its own, and see what comes of them.

        What a command leaves in its process is not for others: it has one to itself.
        """
        calls = []
        for mutant in mutants:
            path = write_files(mutant.files, folder / str(mutant.number))
            calls.append(_call(self.targets[mutant.target][1], path))
        first = next(iter(self.targets))
        shared = [i for i, mutant in enumerate(mutants) if mutant.target == first]
        found = dict(zip(shared, together([calls[i] for i in shared]), strict=True))
        return [found.get(i) or isolated(calls[i]) for i in range(len(calls))]


def run(
    family: str, seed: int, numbers: range, keep: Path | None = None,
    tell: Callable[[Mutant, Outcome], None] | None = None,
) -> Tally:  # fmt: skip
    """Try mutants of a family; those that fail are kept in a folder, if one is given."""
    tally = Tally(family)
    with scratch() as folder:
        campaign = Campaign(family, seed, folder)
        for start in range(0, len(numbers), BATCH):
            mutants = [campaign.mutant(number) for number in numbers[start : start + BATCH]]
            place = folder / "mutants"
            outcomes = campaign.outcomes(mutants, place)
            shutil.rmtree(place)
            for mutant, outcome in zip(mutants, outcomes, strict=True):
                tally.add(mutant.number, outcome)
                if tell is not None:
                    tell(mutant, outcome)
                if outcome.verdict == "failed" and keep is not None:
                    target = keep / f"{family}-{seed}-{mutant.number}-{mutant.target}"
                    write_files(mutant.files, target)
    return tally


def prepare() -> None:
    """Import what targets use, once for all children, and start no thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _IMPORTED:
        import_module(name)
    import torch

    torch.set_num_threads(1)
    from tilepipe.models.unet import UNet, UNetArguments

    with torch.device("meta"):  # what this imports takes a second
        UNet(UNetArguments(width=1, depth=1))
    for library in ("tifffile", "rasterio"):
        # Heard while a file is opened (images/library_warnings.py), and not printed otherwise.
        logging.getLogger(library).addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    # A collection in a child would copy every page that objects lie on.
    gc.collect()
    gc.freeze()


def write_files(files: Files, folder: Path) -> Path:
    """Write a mutant into a folder; returns what is opened."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / next(iter(files)).partition("/")[0]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tilepipe-fuzz-", dir=fast) as folder:
        yield Path(folder)


def _made(family: str, folder: Path) -> tuple[list[Files], dict[str, Path]]:
    """The seeds of a family and its extras, made in a child: this process must have no threads."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            made = folder / family
            made.mkdir()
            content = SEEDS[family](made), _extras(folder)
            (folder / "seeds").write_bytes(pickle.dumps(content))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"the seeds of {family} could not be made")
    seeds, extras = pickle.loads((folder / "seeds").read_bytes())
    return seeds, extras


def _extras(folder: Path) -> dict[str, Path]:
    """The image and the model of the masks' seeds, for the commands."""
    from tests.making import make_image, save_tiny, write_tiff
    from tilepipe.models.unet import UNetArguments

    image = write_tiff(folder / "image.tif", make_image(200, 180))
    save_tiny(folder / "tiny.safetensors", UNetArguments(width=2, depth=2))
    return {"image": image, "model": folder / "tiny.safetensors"}


def _call(target: Target, path: Path) -> Callable[[], str]:
    return lambda: target(path)
