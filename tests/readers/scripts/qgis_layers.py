"""What QGIS shows of files, as JSON: FOLDER FILE...; writes a picture of each into FOLDER.

The pictures are the whole layer, 350 pixels wide, on nothing.
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
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage, QPainter


def render(layer, path):
    """Write its picture."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    extent = layer.extent()
    size = QSize(350, round(350 * extent.height() / extent.width()))
    settings.setOutputSize(size)
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    picture = QImage(size, QImage.Format_ARGB32)
    picture.fill(0)
    painter = QPainter(picture)
    job = QgsMapRendererCustomPainterJob(settings, painter)
    job.renderSynchronously()
    painter.end()
    assert picture.save(str(path))


def of_raster(layer):
    return {
        "renderer": layer.renderer().type(),
        "legend": [
            [label, [c.red(), c.green(), c.blue(), c.alpha()]]
            for label, c in layer.renderer().legendSymbologyItems()
        ],
        "bands": [layer.bandName(n) for n in range(1, layer.bandCount() + 1)],
    }


def of_vector(layer):
    renderer = layer.renderer()
    items = renderer.legendSymbolItems()
    return {
        "renderer": renderer.type(),
        "legend": [
            [item.label(), list(item.symbol().color().getRgb())[:3]]
            for item in items
            if item.symbol()
        ],
        "count": layer.featureCount(),
        "fields": layer.fields().names(),
        "classes": sorted(feature["class"] for feature in layer.getFeatures())
        if "class" in layer.fields().names()
        else [],
    }


def described(path, folder):
    """A layer as QGIS opens it, when a file is dropped on the window."""
    name = Path(path).name
    raster = name.endswith(".tif")
    layer = QgsRasterLayer(path, name) if raster else QgsVectorLayer(path, name, "ogr")
    assert layer.isValid(), path
    picture = Path(folder) / f"{name}.png"
    render(layer, picture)
    extent = layer.extent()
    return {
        **(of_raster(layer) if raster else of_vector(layer)),
        "crs": layer.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "picture": str(picture),
    }


def main():
    application = QgsApplication([], False)
    application.initQgis()
    folder, *paths = sys.argv[1:]
    found = {Path(path).name: described(path, folder) for path in paths}
    sys.stdout.write(json.dumps({"version": Qgis.QGIS_VERSION, "layers": found}) + "\n")


main()
