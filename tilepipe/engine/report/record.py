"""What came of a run: the progress it reports, its summary, and the record beside the mask."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from tilepipe.engine.hardware import peak_memory
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.verification import Verification
from tilepipe.engine.state.progress import Progress
from tilepipe.notebook import Shown
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath, size_of, write_whole
from tilepipe.text import count, duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tilepipe.engine.report.bottleneck import Bottleneck
    from tilepipe.engine.state.outputs import Outputs

PACKAGES = (
    "tilepipe", "torch", "numpy", "dask", "distributed", "zarr", "numcodecs", "tifffile",
    "imagecodecs", "rasterio", "pyproj", "safetensors", "obstore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassShare:
    """How much of the mask one class takes."""

    name: str
    colour: str
    pixels: int
    share: float
    """Of the pixels with an answer."""
    area: float | None
    """In `Summary.area_unit`; None where the pixel size is not a known length."""


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
    """Pixels without one: no data, outside the region, or unreadable."""
    unreadable: int
    """Pixels without one because they, or what they depend on, could not be read."""
    incomplete: tuple[tuple[int, str], ...]
    """Blocks with unreadable pixels: number and reason."""
    blocks: int
    resumed: int
    """Blocks that earlier runs had done."""
    seconds: dict[str, float]
    """Wall time: start, blocks, pyramid, exports, total; and, summed over blocks, read, wait,
    compute and write."""
    peak_memory: int
    """Bytes, all processes together: the sum of each one's own peak."""
    warnings: tuple[str, ...] = ()
    verification: Verification | None = None
    options: dict[str, Any] = field(default_factory=dict)
    bottleneck: Bottleneck | None = None
    """What kept this run from being faster; None where it computed no block."""
    profile: tuple[StoragePath, ...] = ()
    """Table and plot of the blocks' times, where they were asked for."""
    hashes: tuple[str | None, ...] = ()
    """Of each of `outputs` (`tilepipe.storage.hashing.hash_of`); None for the mask that has a
    ledger of its own."""

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
            ("classes", shares if self.plan.mask.kind != "values" else "values"),
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
        return {
            "tilepipe": "run record",
            "complete": not self.incomplete,
            "outputs": [str(path) for path in self.outputs],
            "sizes": [size_of(path) for path in self.outputs],
            "hashes": list(self.hashes),
            "image": {"path": self.plan.image.path, "fingerprint": self.plan.image.fingerprint},
            "model": {"name": self.plan.model, "fingerprint": self.plan.model_fingerprint},
            "classes": [
                {
                    "name": c.name, "colour": c.colour, "pixels": c.pixels,
                    "share": c.share, "area": c.area,
                }
                for c in self.classes
            ],
            "area_unit": self.area_unit,
            "pixels": {
                "answered": self.answered,
                "no_answer": self.no_answer,
                "unreadable": self.unreadable,
            },
            "blocks": {
                "total": self.blocks,
                "resumed": self.resumed,
                "incomplete": [
                    {"number": number, "window": _window(self.plan, number), "reason": reason}
                    for number, reason in self.incomplete
                ],
            },
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "bottleneck": self.bottleneck.to_dict() if self.bottleneck else None,
            "profile": [str(path) for path in self.profile],
            "peak_memory_bytes": self.peak_memory,
            "warnings": list(self.warnings),
            "verification": self.verification.to_dict() if self.verification else None,
            "options": self.options,
            "versions": versions(),
            "plan": json.loads(self.plan.to_json()),
        }  # fmt: skip

    def write(self) -> None:
        """Write the run record beside the mask."""
        write_whole(self.record, json.dumps(self.to_dict(), indent=1) + "\n")


def class_shares(
    plan: Plan, counts: Sequence[int], answered: int, areas: Sequence[float] = ()
) -> tuple[tuple[ClassShare, ...], str | None]:
    """The share and area of each class, from its pixels, and the unit of area.

    ``areas`` holds the square metres of each class, where they were measured on the ground.
    """
    counts = counts or [0] * len(plan.mask.classes)
    size = plan.image.pixel_size.metres() if plan.image.pixel_size else None
    unit: str | None = None
    shown: list[float | None] = [None] * len(counts)
    if size is not None:
        # Slides are measured in mm2, scenes in km2: whatever made the pixel, its size tells.
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
    """The summary of a run, from what its blocks reported; times and warnings are left to fill in.

    It counts as resumed whole, and ``peak_memory`` is that of this process alone.
    """
    totals = progress.totals
    shares, unit = class_shares(plan, totals.counts, totals.answered, totals.areas)
    unreadable = totals.unreadable
    for number in progress.failed:
        block = plan.tiling.block_window(number)
        inside = plan.coverage.inside(block)
        unreadable += block.area if inside is None else int(inside.sum())
    return Summary(
        plan=plan,
        outputs=outputs.requested,
        record=outputs.record,
        classes=shares,
        area_unit=unit,
        answered=progress.answered,
        no_answer=plan.image.height * plan.image.width - progress.answered,
        unreadable=unreadable,
        incomplete=progress.incomplete,
        blocks=plan.blocks,
        resumed=plan.blocks,
        seconds={},
        peak_memory=peak_memory(),
        hashes=tuple(progress.seal(outputs.name_of(path)) for path in outputs.requested),
        options=asdict(replace(options, outputs=tuple(str(p) for p in outputs.requested))),
    )


def read_record(path: StoragePath) -> dict[str, Any]:
    """The run record at a path; empty where there is none, or none that can be understood."""
    try:
        record = load_json(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded_verification(record: dict[str, Any]) -> Verification | None:
    """What the run of a record proved, if anything."""
    found = record.get("verification")
    try:
        return Verification.from_dict(found) if found else None
    except (KeyError, TypeError, ValueError):
        return None


def summary_from_record(record: dict[str, Any], outputs: Outputs) -> Summary | None:
    """The summary that a run record holds; None where it is another's, or cannot be understood.

    For exports whose zarr mask is gone: of a run that is complete, and of files that have the sizes
    they were written with.
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
        return Summary(
            plan=plan,
            outputs=outputs.requested,
            record=outputs.record,
            classes=shares,
            area_unit=unit,
            answered=pixels["answered"],
            no_answer=pixels["no_answer"],
            unreadable=0,
            incomplete=(),
            blocks=plan.blocks,
            resumed=plan.blocks,
            seconds=record["seconds"],
            peak_memory=record["peak_memory_bytes"],
            warnings=tuple(record["warnings"]),
            verification=recorded_verification(record),
            options=record["options"],
            hashes=tuple(record.get("hashes", ())),
        )
    except (ValueError, KeyError, TypeError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _window(plan: Plan, number: int) -> dict[str, int]:
    window = plan.tiling.block_window(number)
    return {"y": window.y, "x": window.x, "height": window.height, "width": window.width}
