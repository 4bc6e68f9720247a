"""Every script of `benchmarks/` works, in its smallest form, and leaves the figures alone."""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.making import save_tiny
from tests.training.making import write_folder
from tilepipe.models.quantise import missing_package
from tilepipe.models.unet import UNetArguments

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PEERS = ("loop", "dask", "monai", "geoai", "tiatoolbox")
STARTED = {
    "allocator", "compare", "constant", "decoding", "feeding", "gpu", "instructions", "likeness",
    "limit", "memory", "million",
    "objects", "objects_quality", "overhead", "plots", "precision", "reading", "report",
    "runtimes", "scheduling", "startup", "suite", "tail", "tissue", "training", "windows",
    "peers/install",
    *(f"peers/{peer}_peer" for peer in PEERS),
}  # fmt: skip
PATIENTS = ("01_1", "06_1", "07_1", "08_1")
MODULES = {"common", "nothing", "peers/network"}
"""Imported by scripts, and started by nobody."""
SCRIPTS = sorted(
    name
    for name in STARTED
    - {
        "compare", "likeness", "million", "objects_quality", "plots", "precision", "report",
        "suite", "training",
    }
    if "/" not in name
)  # fmt: skip
"""Those that need nothing but `--quick`."""
FEWER = {"objects": ["--ways", "tilepipe", "by hand", "components, --memory 1GB"]}
"""Words that make the smallest form smaller: each function once; not with `TILEPIPE_LONG=1`."""

pytestmark = pytest.mark.slow


def start(script: str, work: Path, *words: object) -> str:
    """Run a script as a user would; what it printed."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), *map(str, words)],
        env=os.environ | {"TILEPIPE_BENCHMARKS": str(work)}, cwd=work, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def own() -> list[str]:
    """The files of `benchmarks/`, without what scripts make there."""
    paths = [path.relative_to(BENCHMARKS) for path in BENCHMARKS.rglob("*") if path.is_file()]
    return [str(path) for path in paths if not {"work", "__pycache__"} & set(path.parts)]


def figures(work: Path) -> list[dict[str, str]]:
    with (work / "quick.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them work, so that slides are made once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(autouse=True)
def _nothing_changes() -> Iterator[None]:
    def contents() -> dict[str, str]:
        return {
            name: hashlib.sha256((BENCHMARKS / name).read_bytes()).hexdigest() for name in own()
        }

    before = contents()
    assert "figures.csv" in before
    yield
    assert contents() == before


def test_every_script_is_started_here() -> None:
    there = {name.removesuffix(".py") for name in own() if name.endswith(".py")}
    assert there == STARTED | MODULES


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_measures_something(script: str, work: Path) -> None:
    fewer = [] if "TILEPIPE_LONG" in os.environ else FEWER.get(script, [])
    start(script, work, "--quick", *fewer)
    mine = [row for row in figures(work) if row["benchmark"] == script]
    assert mine
    assert all(np.isfinite(float(row["value"])) for row in mine)


def test_likeness_is_measured(work: Path, data: Path) -> None:
    start("likeness", work, data, "--quick")
    assert {row["benchmark"] for row in figures(work)} >= {"likeness"}


def test_objects_are_scored(work: Path, data: Path) -> None:
    start("objects_quality", work, data, "--quick")
    mine = [row for row in figures(work) if row["benchmark"] == "objects_quality"]
    assert {row["case"].split(" on ")[0] for row in mine} == {"nuclei-he", "nuclei-fluo"}
    assert all(0 <= float(row["value"]) <= 1 for row in mine)


@pytest.mark.skipif(missing_package() is not None, reason="needs the extra int8")
def test_precisions_are_compared(work: Path, data: Path) -> None:
    start("precision", work, data, "--quick")
    mine = [row for row in figures(work) if row["benchmark"] == "precision"]
    assert {row["case"].split(" ")[0].rstrip(",") for row in mine} == {"nuclei-he", "nuclei-fluo"}
    assert any(row["figure"] == "Dice lost" for row in mine)


def test_trainings_are_compared(work: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "spots", side=96)
    for kind in ("images", "masks"):
        for path, name in zip(sorted((folder / kind).iterdir()), PATIENTS, strict=True):
            path.rename(path.with_name(f"{name}{path.suffix}"))
    start("training", work, folder, "--quick", "--case", "padded")
    assert {row["benchmark"] for row in figures(work)} >= {"training"}


def test_tilepipe_is_compared_with_its_peers_and_pictures_are_drawn(work: Path) -> None:
    for peer in PEERS:
        python = work / "envs" / peer / "bin" / "python"
        python.parent.mkdir(parents=True)
        (work / "envs" / f"{peer}.txt").touch()
        if peer == "loop" or find_spec(peer) is not None:
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            python.chmod(0o755)
    assert start("peers/install", work).count("is there") == len(PEERS)
    start("compare", work, "--quick", "--tools", "tilepipe", "loop", "dask")
    start("suite", work, "--quick", "--only", "million")
    rows = [row for row in figures(work) if row["benchmark"] == "peers"]
    tools = {row["case"].split(" U-Net: ")[1].split(" (")[0] for row in rows}
    assert tools >= {"tilepipe", "plain PyTorch loop", "dask.array.map_overlap"}
    proved = {row["value"] for row in rows if row["figure"] == "`tilepipe verify` ends with"}
    assert proved == {"0"}
    assert {path.name for path in (work / "plots").iterdir()} >= {"speed.png", "memory.png"}
    assert "plain PyTorch loop" in (work / "README.md").read_text()


@pytest.mark.parametrize("peer", ["monai", "tiatoolbox"])
def test_a_peer_segments_a_slide(peer: str, tmp_path: Path) -> None:
    if find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed here")
    padding = "same" if peer == "monai" else "valid"
    save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2, padding=padding))
    pixels = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", pixels, tile=(256, 256), photometric="rgb")
    output = tmp_path / ("mask.tif" if peer == "monai" else "mask.zarr")
    start(f"peers/{peer}_peer", tmp_path, "m.safetensors", "slide.tif", output, "--threads", 1)
    assert output.exists()


@pytest.mark.parametrize("peer", PEERS)
def test_what_a_peer_takes_from_the_module_beside_it_is_there(peer: str) -> None:
    """Of those, too, that cannot be started here."""

    def nodes(name: str) -> list[ast.stmt]:
        return ast.parse((BENCHMARKS / "peers" / f"{name}.py").read_text()).body

    defined = {name.id for node in nodes("network") if isinstance(node, ast.Assign)
               for target in node.targets for name in ast.walk(target)
               if isinstance(name, ast.Name)}  # fmt: skip
    defined |= {
        node.name for node in nodes("network") if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    taken = {
        alias.name
        for node in nodes(f"{peer}_peer")
        if isinstance(node, ast.ImportFrom) and node.module == "network"
        for alias in node.names
    }
    assert taken
    assert taken <= defined
