"""Run records as they lie on disk, beside the outputs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tilepipe.engine.options import image_stem
from tilepipe.engine.state.folder import read_document
from tilepipe.products.label_path import label_path
from tilepipe.storage import StoragePath


def recorded_names(record: dict[str, Any]) -> list[str]:
    """The file names of the outputs in a run record; empty if it has none."""
    outputs = record.get("outputs")
    return [Path(str(path)).name for path in outputs] if isinstance(outputs, list) else []


def record_path(output: StoragePath) -> StoragePath:
    """The run record beside an output: ``slide_mask.run.json``, whatever the output's format.

    That of ``slide.ome.zarr/labels/nuclei`` is ``slide_labels_nuclei.run.json``, beside the image.
    If it is the record of another run, whose outputs differ by their suffix alone, it is
    ``slide_mask.tif.run.json`` instead.
    """
    if (label := label_path(output)) is not None:
        return label.beside.with_name(label.beside.name + ".run.json")
    record = output.with_name(image_stem(str(output)) + ".run.json")
    names = recorded_names(read_document(record))
    others = output.name not in names and any(n and output.with_name(n).exists() for n in names)
    return output.with_name(output.name + ".run.json") if others else record


def profile_paths(record: StoragePath) -> tuple[StoragePath, StoragePath]:
    """The table and the plot of `--profile`, beside the run record ``NAME.run.json``."""
    stem = record.name.removesuffix(".run.json")
    return record.with_name(f"{stem}.profile.csv"), record.with_name(f"{stem}.profile.png")
