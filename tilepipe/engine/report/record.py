"""The summary of a run, and the run record beside its mask."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from tilepipe.engine.hardware import peak_memory
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.verification import Verification
from tilepipe.engine.state.progress import Progress
from tilepipe.notebook import Shown
from tilepipe.storage import StoragePath, size_of, write_whole
from tilepipe.text import count, duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tilepipe.engine.report.bottleneck import Bottleneck
    from tilepipe.engine.state.outputs import Outputs
    from tilepipe.objects.summary import ObjectsSummary

PACKAGES = (
    "tilepipe", "torch", "numpy", "dask", "distributed", "zarr", "numcodecs", "tifffile",
    "imagecodecs", "rasterio", "pyproj", "safetensors", "obstore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassShare:
    """The share of the mask that one class covers."""

    name: str
    colour: str
    pixels: int
    share: float
    """The share among pixels with an answer."""
    area: float | None
    """The area in `Summary.area_unit`; None if the pixel size is not a known length."""


@dataclass(slots=True, repr=False)
class Summary(Shown):
    """What a run did, in numbers."""

    plan: Plan
    outputs: tuple[StoragePath, ...]
    record: StoragePath
    classes: tuple[ClassShare, ...]
    area_unit: str | None
    """``mm2`` or ``km2``."""
    answered: int
    """Pixels with an answer."""
    no_answer: int
    """Pixels without an answer: no data, outside the region, or unreadable."""
    unreadable: int
    """Pixels without an answer because they, or pixels they depend on, could not be read."""
    incomplete: tuple[tuple[int, str], ...]
    """Blocks with unreadable pixels: number and reason."""
    blocks: int
    resumed: int
    """Blocks that earlier runs had done."""
    seconds: dict[str, float]
    """Wall time by part (start, blocks, pyramid, exports, total), and the sums over all blocks of
    read, wait, compute and write."""
    peak_memory: int
    """The sum of the peaks of all processes, in bytes."""
    warnings: tuple[str, ...] = ()
    verification: Verification | None = None
    options: dict[str, Any] = field(default_factory=dict)
    bottleneck: Bottleneck | None = None
    """What kept this run from being faster; None if it computed no block."""
    profile: tuple[StoragePath, ...] = ()
    """The table and the plot of the blocks' times, with `--profile`."""
    files_of_stages: dict[str, int | None] = field(default_factory=dict)
    """The files that stages of other packages wrote, by their names, and their sizes in bytes."""
    objects: ObjectsSummary | None = None
    """The objects in numbers; None if the run makes none."""
    hashes: tuple[str | None, ...] = ()
    """The hash of each of `outputs` (`tilepipe.storage.hashing.hash_of`); None for the mask that
    has its own ledger."""

    @property
    def exit_code(self) -> int:
        """0; 3 when pixels have no answer because they could not be read; 5 when not exact."""
        if self.verification is not None and not self.verification.exact:
            return 5
        return 3 if self.incomplete else 0

    def _facts(self) -> list[tuple[str, str]]:
        shares = ", ".join(f"{c.name} {c.share:.2%}" for c in self.classes)
        return [
            ("run", f"run of {self.plan.image.path}"),
            ("masks", ", ".join(str(path) for path in self.outputs)),
            ("classes", shares if self.plan.mask.product.has_classes else self.plan.mask.kind),
            ("blocks", count(self.blocks, "block")),
            ("time", duration(self.seconds.get("total", 0.0))),
        ]

    def _picture(self) -> NDArray[np.uint8] | None:
        from tilepipe.products.formats import open_mask

        mask = open_mask(self.outputs[0])
        try:
            return mask._picture() if isinstance(mask, Shown) else None
        finally:
            mask.close()

    def to_dict(self) -> dict[str, Any]:
        """The run record as JSON-ready values."""
        pixels = {name: getattr(self, name) for name in ("answered", "no_answer", "unreadable")}
        incomplete = [
            {
                "number": number,
                "window": asdict(self.plan.tiling.block_window(number)),
                "reason": reason,
            }
            for number, reason in self.incomplete
        ]
        return {
            "tilepipe": "run record",
            "complete": not self.incomplete,
            "outputs": [str(path) for path in self.outputs],
            "sizes": [size_of(path) for path in self.outputs],
            "hashes": list(self.hashes),
            **({"files_of_stages": self.files_of_stages} if self.files_of_stages else {}),
            "image": {"path": self.plan.image.path, "fingerprint": self.plan.image.fingerprint},
            "model": {"name": self.plan.model, "fingerprint": self.plan.model_fingerprint},
            "classes": [asdict(share) for share in self.classes],
            "area_unit": self.area_unit,
            "pixels": pixels,
            **({"objects": self.objects.to_json()} if self.objects else {}),
            "blocks": {"total": self.blocks, "resumed": self.resumed, "incomplete": incomplete},
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "bottleneck": self.bottleneck.to_dict() if self.bottleneck else None,
            "profile": [str(path) for path in self.profile],
            "peak_memory_bytes": self.peak_memory,
            "warnings": list(self.warnings),
            "verification": self.verification.to_dict() if self.verification else None,
            "options": self.options,
            "versions": versions(),
            "plan": json.loads(self.plan.to_json()),
        }

    def recall(self, record: dict[str, Any]) -> None:
        """Take the times, memory, warnings and verification of an earlier run from its record.

        Raises
        ------
        ValueError, KeyError, TypeError
            When the record lacks one of them.
        """
        self.seconds = dict(record["seconds"])
        self.peak_memory = int(record["peak_memory_bytes"])
        self.warnings = tuple(record["warnings"])
        self.verification = recorded_verification(record)
        if record.get("objects"):
            from tilepipe.objects.summary import ObjectsSummary

            self.objects = ObjectsSummary.from_json(record["objects"])

    def write(self) -> None:
        """Write the run record beside the mask."""
        write_whole(self.record, json.dumps(self.to_dict(), indent=1) + "\n")


def class_shares(
    plan: Plan, counts: Sequence[int], answered: int, areas: Sequence[float] = ()
) -> tuple[tuple[ClassShare, ...], str | None]:
    """The share and area of each class, and the unit of area.

    ``areas`` has the square metres of each class, where they were measured on the ground.
    """
    counts = counts or [0] * len(plan.mask.classes)
    size = plan.image.pixel_size.metres() if plan.image.pixel_size else None
    unit: str | None = None
    shown: list[float | None] = [None] * len(counts)
    if size is not None:
        # Slides are measured in mm2, scenes in km2; the pixel size tells them apart.
        unit, factor = ("mm2", 1e6) if size[0] < 1e-3 else ("km2", 1e-6)
        if plan.image.crs_pixel_size is None:
            areas = [n * size[0] * size[1] for n in counts]
        shown = [area * factor for area in areas or [0.0] * len(counts)]
    shares = tuple(
        ClassShare(c.name, c.colour, n, n / answered if answered else 0.0, area)
        for c, n, area in zip(plan.mask.classes, counts, shown, strict=True)
    )
    return shares, unit


def summarise(plan: Plan, outputs: Outputs, progress: Progress, options: RunOptions) -> Summary:
    """The summary of a run from the reports of its blocks, without times and warnings.

    All blocks count as resumed, and ``peak_memory`` is that of this process alone.
    """
    totals = progress.totals
    shares, unit = class_shares(plan, totals.counts, totals.answered, totals.areas)
    unreadable = totals.unreadable
    for number in progress.failed:
        block = plan.tiling.block_window(number)
        inside = plan.coverage.inside(block)
        unreadable += block.area if inside is None else int(inside.sum())
    return Summary(
        plan=plan, outputs=outputs.requested, record=outputs.record, classes=shares,
        area_unit=unit, answered=progress.answered,
        no_answer=plan.image.height * plan.image.width - progress.answered,
        unreadable=unreadable, incomplete=progress.incomplete, blocks=plan.blocks,
        resumed=plan.blocks, seconds={}, peak_memory=peak_memory(),
        hashes=tuple(progress.seal(outputs.name_of(path)) for path in outputs.requested),
        files_of_stages={
            name: size_of(outputs.path_of(name))
            for name in sorted(progress.exports - set(map(outputs.name_of, outputs.all_files)))
        },
        options=asdict(replace(options, outputs=tuple(str(p) for p in outputs.requested))),
    )  # fmt: skip


def recorded_verification(record: dict[str, Any]) -> Verification | None:
    """The verification in a run record, if there is one."""
    found = record.get("verification")
    try:
        return Verification.from_dict(found) if found else None
    except (KeyError, TypeError, ValueError):
        return None


def summary_from_record(record: dict[str, Any], outputs: Outputs) -> Summary | None:
    """The summary in the run record of a complete run whose zarr mask was temporary.

    None if the record is that of other outputs, if their sizes have changed, or if it is damaged.
    """
    try:
        plan = Plan.from_json(json.dumps(record["plan"]))
        if not record["complete"] or record["outputs"] != [str(p) for p in outputs.requested]:
            return None
        if record["sizes"] != [size_of(path) for path in outputs.requested]:
            return None  # cut off since
        counts, pixels = tuple(c["pixels"] for c in record["classes"]), record["pixels"]
        in_metres = {"km2": 1e6, "mm2": 1e-6}.get(record["area_unit"], 0.0)
        areas = [(c["area"] or 0.0) * in_metres for c in record["classes"]]
        shares, unit = class_shares(plan, counts, pixels["answered"], areas)
        summary = Summary(
            plan=plan, outputs=outputs.requested, record=outputs.record, classes=shares,
            area_unit=unit, answered=pixels["answered"], no_answer=pixels["no_answer"],
            unreadable=0, incomplete=(), blocks=plan.blocks, resumed=plan.blocks, seconds={},
            peak_memory=0, options=record["options"], hashes=tuple(record.get("hashes", ())),
        )  # fmt: skip
        summary.recall(record)
        return summary
    except (ValueError, KeyError, TypeError):
        return None


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
