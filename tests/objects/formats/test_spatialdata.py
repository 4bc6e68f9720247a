"""SpatialData folders, as spatialdata itself opens them where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.objects.formats import making
from tilepipe.grid import Window
from tilepipe.objects.formats import write_objects
from tilepipe.objects.table import ImagePlace

pytest.importorskip("pyarrow", reason="pyarrow writes the outlines")

READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import spatialdata as sd
from spatialdata.transformations import get_transformation

data = sd.read_zarr(sys.argv[1])
found = {"systems": sorted(data.coordinate_systems)}
for name, element in [*data.shapes.items(), *data.labels.items()]:
    moved = get_transformation(element, get_all=True)
    found[name] = {
        system: way.to_affine_matrix(("x", "y"), ("x", "y")).tolist()
        for system, way in moved.items()
    }
for name, shapes in data.shapes.items():
    found["index"] = shapes.index.tolist()
    found["boxes"] = shapes.bounds.to_numpy().tolist()
for name, labels in data.labels.items():
    level = labels["scale0"]["image"] if "scale0" in labels else labels
    found["pixels"] = np.unique(level.data.compute(), return_counts=True)[1].tolist()
    found["extent"] = {k: list(v) for k, v in sd.get_extent(labels).items()}
for name, table in data.tables.items():
    found["measured"] = {k: [None if np.isnan(v) else float(v) for v in table[:, k].X[:, 0]]
                         for k in table.var_names}
    found["classes"] = table.obs["class"].tolist()
    found["spatial"] = table.obsm["spatial"].tolist()
    joined = sd.join_spatialelement_table(
        sdata=data, spatial_element_names="objects", table_name="table"
    )
    found["joined"] = len(joined[1])
print(json.dumps(found))
"""


class Numbers:
    """Numbers of objects as a pyramid."""

    levels = ((making.HEIGHT, making.WIDTH), (making.HEIGHT // 2, making.WIDTH // 2))

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        pixels = np.zeros((making.HEIGHT, making.WIDTH), np.uint32)
        pixels[10:40, 10:50] = 1
        pixels[10:30, 50:60] = 2
        return pixels[:: 2**level, :: 2**level][window.slices()]


def _python() -> str:
    """A Python that has spatialdata."""
    named = os.environ.get("TILEPIPE_SPATIALDATA_PYTHON")
    if named:
        return named
    if find_spec("spatialdata") is None:
        pytest.skip(
            "spatialdata is not installed; set TILEPIPE_SPATIALDATA_PYTHON to a Python that has it"
        )
    return sys.executable


def read(path: Path) -> Any:
    command = [_python(), "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_spatialdata_opens_shapes_labels_and_table(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    place = ImagePlace("a", 800, 1200, 2, 2, 6, 4)
    write_objects(making.make_table(tmp_path / "t", image=place), path, Numbers())
    found = read(path)
    assert found["systems"] == ["global", "micrometer"]
    assert found["index"] == [1, 2, 3]
    assert found["boxes"][1] == [104, 26, 124, 66]  # in pixels of the image
    assert found["objects"]["global"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert found["objects"]["micrometer"] == [[0.25, 0, 0], [0, 0.25, 0], [0, 0, 1]]
    assert found["numbers"]["global"] == [[2, 0, 4], [0, 2, 6], [0, 0, 1]]
    assert found["numbers"]["micrometer"] == [[0.5, 0, 1], [0, 0.5, 1.5], [0, 0, 1]]
    assert found["extent"] == {"x": [4, 1204], "y": [6, 806]}
    assert found["pixels"][1:] == [1200, 200]
    assert found["measured"]["area_um2"] == [275.0, 50.0, 100.0]
    assert found["measured"]["mean_probability"][1] is None
    assert found["classes"] == ['nucleus "A", <b>', "Zellkern µ 核", "=bell\\x07\\n"]
    assert found["spatial"][1] == [114, 46]
    assert found["joined"] == 3


def test_without_pixel_size_there_are_pixels_only(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    write_objects(making.make_table(tmp_path / "t", making.mask_of(pixel_size=None)), path)
    assert read(path)["systems"] == ["global"]


def test_without_objects_it_is_still_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.spatialdata.zarr"
    write_objects(making.make_table(tmp_path / "t", geometries=[]), path, Numbers())
    found = read(path)
    assert found["systems"] == ["global", "micrometer"]
    assert "index" not in found
    bare = tmp_path / "b.spatialdata.zarr"
    write_objects(making.make_table(tmp_path / "u", geometries=[]), bare)
    assert read(bare)["systems"] == []


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.spatialdata.zarr"
        write_objects(making.make_table(tmp_path / f"table of {name}"), path, Numbers())
        files = sorted(file for file in path.rglob("*") if file.is_file())
        contents.append({str(file.relative_to(path)): file.read_bytes() for file in files})
    assert contents[0] == contents[1]
