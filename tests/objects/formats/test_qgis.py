"""What QGIS makes of the files when it opens them, where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.objects.formats import making
from tilepipe.objects.formats import write_objects

pytest.importorskip("pyogrio", reason="pyogrio writes these formats")

READ = """
import json, sys
from qgis.core import QgsApplication, QgsVectorLayer

application = QgsApplication([], False)
application.initQgis()
found = {}
for path in sys.argv[1:]:
    layer = QgsVectorLayer(path, "objects", "ogr")
    renderer = layer.renderer()
    categories = renderer.categories() if hasattr(renderer, "categories") else []
    found[path] = {
        "valid": layer.isValid(),
        "count": layer.featureCount(),
        "crs": layer.crs().authid(),
        "fields": [field.name() for field in layer.fields()],
        "colours": {each.value(): each.symbol().color().name() for each in categories},
    }
print(json.dumps(found))
"""


def opened(*paths: Path) -> list[Any]:
    # The system's: that of a virtual environment has no QGIS.
    python = shutil.which("python3", path=os.defpath)
    asked = [python or "", "-c", "import qgis.core"]
    if python is None or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("QGIS and its Python are not installed")
    environment = {"QT_QPA_PLATFORM": "offscreen", "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    command = [python, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return [found[str(path)] for path in paths]


def test_layers_are_in_place_and_geopackages_in_the_colours_of_classes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.gpkg", "a.fgb", "a.geojson")]
    table = making.make_table(tmp_path / "t", making.on_map())
    for path in paths:
        write_objects(table, path)
    geopackage, flatgeobuf, geojson = opened(*paths)
    assert all(each["valid"] and each["count"] == 3 for each in (geopackage, flatgeobuf, geojson))
    assert [geopackage["crs"], flatgeobuf["crs"]] == [making.UTM] * 2
    assert geojson["crs"] == "EPSG:4326"
    assert "area_um2" in geopackage["fields"]
    assert geopackage["colours"]["Zellkern µ 核"] == "#3cb44b"
    assert "background" not in geopackage["colours"]


def test_a_slide_has_no_crs(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_objects(making.make_table(tmp_path / "t"), path)
    (found,) = opened(path)
    assert found["valid"]
    assert found["crs"] == ""
    assert len(found["colours"]) == 3
