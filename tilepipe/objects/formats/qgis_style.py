"""The colours of classes as a style of QGIS, which it applies when it opens the layer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

from tilepipe.objects.formats.records import CLASS
from tilepipe.products.base import MaskClass
from tilepipe.text import one_line

FILL_ALPHA = 96
"""Of 255: what is below can be seen."""

_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
  styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
  owner TEXT(30), ui TEXT(30), update_time DATETIME
)
"""
"""As QGIS makes it where a style is saved in a GeoPackage."""


def add_style(file: Path, layer: str, column: str, classes: Sequence[MaskClass], date: str) -> None:
    """Add the style of a layer to a GeoPackage.

    Parameters
    ----------
    column
        The layer's column of geometries.
    date
        When the style was made.
    """
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(_TABLE)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
            "last_change, srs_id) VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
            (date,),
        )
        database.execute(
            "INSERT INTO layer_styles VALUES (1, '', '', ?, ?, 'classes', ?, '', 1, "
            "'Colours of the classes', '', NULL, ?)",
            (layer, column, qml(classes), date),
        )


def qml(classes: Sequence[MaskClass]) -> str:
    """The style in the XML of QGIS: a colour for each class, half transparent."""
    root = ElementTree.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=CLASS, enableorderby="0",
        forceraster="0", symbollevels="0",
    )  # fmt: skip
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, each in enumerate(classes):
        name = one_line(each.name)
        ElementTree.SubElement(
            categories, "category", value=name, label=name, symbol=str(number), type="string",
            render="true",
        )  # fmt: skip
        _add_symbol(symbols, str(number), each.rgb)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ElementTree.tostring(root, encoding="unicode")


def _add_symbol(symbols: ElementTree.Element, name: str, rgb: tuple[int, int, int]) -> None:
    symbol = ElementTree.SubElement(
        symbols, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = ElementTree.SubElement(
        symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0"
    )
    colour = ",".join(map(str, rgb))
    properties = {
        "color": f"{colour},{FILL_ALPHA}",
        "outline_color": f"{colour},255",
        "outline_style": "solid",
        "outline_width": "0.3",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    options = ElementTree.SubElement(layer, "Option", type="Map")
    for key, value in properties.items():
        ElementTree.SubElement(options, "Option", name=key, type="QString", value=value)
        ElementTree.SubElement(layer, "prop", k=key, v=value)  # as before QGIS 3.20
