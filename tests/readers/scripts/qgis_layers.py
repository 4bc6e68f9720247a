"""What QGIS shows of rasters: FOLDER FILE...; writes a picture of each into FOLDER.

The pictures are the whole layer at a quarter of its size, on nothing.
"""

import json
import sys
from pathlib import Path

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererCustomPainterJob,
    QgsMapSettings,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage, QPainter


def render(layer, path):
    """Write its picture."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    size = QSize(layer.width() // 4, layer.height() // 4)
    settings.setOutputSize(size)
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    picture = QImage(size, QImage.Format_ARGB32)
    picture.fill(0)
    painter = QPainter(picture)
    job = QgsMapRendererCustomPainterJob(settings, painter)
    job.renderSynchronously()
    painter.end()
    assert picture.save(str(path))


def described(path, folder):
    """A raster as QGIS opens it, when it is dropped on the window."""
    layer = QgsRasterLayer(path, Path(path).name)
    assert layer.isValid(), path
    picture = Path(folder) / f"{Path(path).name}.png"
    render(layer, picture)
    extent = layer.extent()
    return {
        "renderer": layer.renderer().type(),
        "crs": layer.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "legend": [
            [label, [c.red(), c.green(), c.blue(), c.alpha()]]
            for label, c in layer.renderer().legendSymbologyItems()
        ],
        "bands": [layer.bandName(n) for n in range(1, layer.bandCount() + 1)],
        "picture": str(picture),
    }


def main():
    application = QgsApplication([], False)
    application.initQgis()
    folder, *paths = sys.argv[1:]
    found = {Path(path).name: described(path, folder) for path in paths}
    sys.stdout.write(json.dumps({"version": Qgis.QGIS_VERSION, "layers": found}) + "\n")


main()
