"""The place of an image without a transform: ground control points, or a sensor's RPCs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tilepipe.schema import decode


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """A place in the image, and where on the Earth it is."""

    row: float
    """From the upper edge of the image, so that the centre of the first pixel is 0.5."""
    column: float
    x: float
    """In the CRS of the points: easting or longitude."""
    y: float
    z: float = 0.0
    id: str = ""
    info: str = ""


@dataclass(frozen=True, slots=True)
class GroundControl:
    """What places an image on the Earth where no transform can."""

    points: tuple[ControlPoint, ...] = ()
    crs: str | None = None
    """Of the points, as WKT."""
    rpcs: tuple[tuple[str, str], ...] = ()
    """Rational polynomial coefficients: GDAL's items of metadata of the domain ``RPC``."""

    def on_grid(self, y: float, x: float) -> GroundControl:
        """Convert it to a grid whose pixels are ``y`` rows and ``x`` columns of this one's."""
        points = tuple(replace(p, row=p.row / y, column=p.column / x) for p in self.points)
        factors = {"LINE": y, "SAMP": x}
        rpcs = tuple((key, _on_axis(key, value, factors)) for key, value in self.rpcs)
        return replace(self, points=points, rpcs=rpcs)

    def to_json(self) -> dict[str, Any]:
        """As a document of plain JSON types."""
        document: dict[str, Any] = {"rpcs": dict(self.rpcs), "crs": self.crs}
        document["points"] = [asdict(point) for point in self.points]
        return {key: value for key, value in document.items() if value}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> GroundControl:
        """Read what `to_json` wrote; ValueError for RPCs that are none."""
        if not isinstance(document, dict):
            raise ValueError("ground control that is not an object")
        rpcs = document.get("rpcs", {})
        if not isinstance(rpcs, dict) or (rpcs and not are_rpcs(rpcs)):
            raise ValueError("RPCs that do not say where rows and columns lie")
        return decode(cls, {**document, "rpcs": list(rpcs.items())})

    def __str__(self) -> str:
        parts = []
        if self.points:
            parts.append(f"{len(self.points)} ground control points")
        if self.rpcs:
            parts.append("RPCs")
        return " and ".join(parts)


def are_rpcs(items: Mapping[str, str]) -> bool:
    """Tell whether items of metadata are RPCs: at least offset and scale of rows and columns."""
    try:
        return all(
            math.isfinite(float(str(items[f"{axis}_{what}"]).split()[0]))
            for axis in ("LINE", "SAMP")
            for what in ("OFF", "SCALE")
        )
    except (KeyError, ValueError, IndexError):
        return False


def _on_axis(key: str, value: str, factors: dict[str, float]) -> str:
    """An item of RPC metadata on a grid of larger pixels.

    RPCs count from the centre of the first pixel, so that offsets move by half a pixel of each.
    """
    axis, _, what = key.partition("_")
    factor = factors.get(axis, 1.0)
    if factor == 1.0 or what not in ("OFF", "SCALE"):
        return value
    number = float(value.split()[0])
    return repr((number + 0.5) / factor - 0.5 if what == "OFF" else number / factor)
