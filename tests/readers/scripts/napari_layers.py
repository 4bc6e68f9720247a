"""What napari adds for each of the paths, as JSON: PLUGIN PICTURE|- PATH..."""

import json
import sys

import napari
import numpy as np
from npe2 import PluginManager


def described(layer):
    facts = {
        "name": layer.name,
        "type": type(layer).__name__,
        "visible": layer.visible,
        "scale": [float(n) for n in layer.scale],
        "translate": [float(n) for n in layer.translate],
        "units": [str(unit) for unit in layer.units],
        "features": layer.features.to_dict("list") if hasattr(layer, "features") else {},
    }
    if hasattr(layer, "data") and hasattr(layer, "multiscale"):
        levels = layer.data if layer.multiscale else [layer.data]
        facts["levels"] = [list(level.shape) for level in levels]
    if isinstance(layer, napari.layers.Labels):
        colours = [layer.colormap.map(np.array([n]))[0] for n in (0, 1, 2, 255)]
        facts["colours"] = [[round(255 * float(c)) for c in colour] for colour in colours]
    if isinstance(layer, napari.layers.Image):
        facts["colormap"] = layer.colormap.name
        facts["rgb"] = bool(layer.rgb)
        facts["limits"] = [float(n) for n in layer.contrast_limits]
    return facts


def main():
    plugin, picture, *paths = sys.argv[1:]
    draws = picture != "-"
    PluginManager.instance().discover()
    viewer = napari.Viewer(show=draws) if draws else napari.components.ViewerModel()
    for path in paths:
        viewer.open(path, plugin=plugin)
    facts = [described(layer) for layer in viewer.layers]
    if draws:
        viewer.window.resize(1000, 700)
        for layer in viewer.layers:
            layer.visible = True
        viewer.reset_view()
        viewer.screenshot(picture, canvas_only=False, flash=False)
    sys.stdout.write(json.dumps({"version": napari.__version__, "layers": facts}) + "\n")


main()
