"""How an image is read where the user, and not the file alone, decides."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tilepipe.schema import decode

NodataChoice = float | Literal["none"]
"""A value that means "no data" in every band, or ``none``: no value does."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of a file, and how; the default is what the file itself says.

    It travels wherever the path of the image does: with the plan, to every worker, to `verify`.
    """

    series: int | str | None = None
    """Number (from 0) or name of the image in a file that holds several; None: the main one."""
    nodata: NodataChoice | None = None
    """Overrules what the file says; None: as the file says."""
    unscale: bool = False
    """Apply the file's scale and offset, which gives float32: ``value * scale + offset``."""
    bands: tuple[int | str, ...] | None = None
    """Numbers (from 1) or names of the bands that are read, in this order; None: all of them."""
    rescale: tuple[float, float] | None = None
    """(low, high): mapped linearly onto the range of `dtype`, and clipped to it."""
    dtype: str | None = None
    """The integer type that `rescale` maps to, in numpy's spelling; set together with it."""

    @property
    def is_plain(self) -> bool:
        """Whether everything is as the file says."""
        return self == Reading()

    @property
    def key(self) -> str:
        """A short text that differs between readings; empty for the plain one."""
        if self.is_plain:
            return ""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values, of what is not the default only."""
        plain = Reading()
        document = {k: v for k, v in asdict(self).items() if v != getattr(plain, k)}
        nodata = document.get("nodata")
        if isinstance(nodata, float) and not math.isfinite(nodata):
            document["nodata"] = {"float": str(nodata)}  # JSON has no NaN
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any] | None) -> Reading:
        """The reading that `to_json` wrote; ValueError for anything else."""
        if not isinstance(document, dict | None):
            raise ValueError("a reading that is not an object")
        values = dict(document or {})
        nodata = values.get("nodata")
        if isinstance(nodata, dict):
            del values["nodata"]
        reading = decode(cls, values)
        return reading if not isinstance(nodata, dict) else replace(
            reading, nodata=float(str(nodata.get("float")))
        )  # fmt: skip
