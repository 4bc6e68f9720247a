"""How pixels become objects, as models declare it and users ask for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tilepipe.schema import decode

Method = Literal["components", "seeded", "split"]

REACH = 4
"""How far seeds grow by default, in pixels."""

DEPTH = 1.0
"""By default, basins are joined if the way between them is not this much lower than both, in
pixels of distance to the background."""


LARGEST_REACH = 1024
SMALLEST_DEPTH, LARGEST_DEPTH = 1 / 64, 24.0
"""In pixels: heights are multiples of the one and at most the other (`tilepipe.objects.basins`)."""


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """How pixels become objects (`tilepipe.objects`). Sizes are in pixels of the mask.

    ============== ==========================================================================
    ``components`` connected pixels of a class are an object, by edges or corners
    ``seeded``     connected pixels of the core class, grown into the border class
    ``split``      connected pixels of a class, parted where they are narrow
    ============== ==========================================================================
    """

    method: Method = "components"
    classes: tuple[str, ...] = ()
    """Names of the classes that are objects; the core classes if seeded. Empty: all but the border
    and the background, which is the first class of a mask that does not say."""
    border: str = ""
    """Seeded only: the class around cores. In masks of planes, the plane of whole objects."""
    reach: int = REACH
    """Seeded only: how many pixels cores grow."""
    depth: float = DEPTH
    """Split only: necks less deep than this do not part objects."""
    min_area: int = 0
    """Smaller objects are specks."""
    specks: Literal["drop", "merge"] = "drop"
    """Whether specks are left out, or join the neighbour with which they share most edges."""
    fill_holes: bool = False
    """Whether pixels that one class encloses become part of it."""
    max_hole: int = 0
    """Larger holes are kept; 0 for no limit."""

    def __post_init__(self) -> None:
        if self.method == "seeded" and not self.border:
            raise ValueError("seeded objects need the class of their borders")
        if self.border and self.method != "seeded":
            raise ValueError(f"border belongs to seeded objects, not to {self.method}")
        if self.border and self.border in self.classes:
            raise ValueError(f"{self.border!r} cannot be core and border at once")
        if not 0 <= self.reach <= LARGEST_REACH:
            raise ValueError(f"reach must be 0 to {LARGEST_REACH} pixels, not {self.reach}")
        if not SMALLEST_DEPTH <= self.depth <= LARGEST_DEPTH:
            raise ValueError(f"depth must be 1/64 to 24 pixels, not {self.depth:g}")
        if self.min_area < 0 or self.max_hole < 0:
            raise ValueError("areas must be at least 0 pixels")

    def __str__(self) -> str:
        """The rule in words: ``split nucleus, from 60 px, holes up to 10 px filled``."""
        parts = [" ".join((self.method, ", ".join(self.classes))).strip()]
        if self.method == "seeded":
            parts.append(f"grown {self.reach} px into {self.border}")
        if self.method == "split":
            parts.append(f"at necks {self.depth:g} px deep")
        if self.min_area:
            parts.append(f"from {self.min_area} px" + ("" if self.specks == "drop" else ", merged"))
        if self.fill_holes:
            size = f"holes up to {self.max_hole} px" if self.max_hole else "holes"
            parts.append(f"{size} filled")
        return ", ".join(parts)

    def scaled(self, by: float) -> ObjectRule:
        """The rule for pixels ``by`` times as small: with as large sizes in them."""
        return replace(
            self,
            min_area=round(self.min_area * by * by),
            max_hole=max(1, round(self.max_hole * by * by)) if self.max_hole else 0,
            reach=min(round(self.reach * by), LARGEST_REACH),
            depth=min(LARGEST_DEPTH, max(SMALLEST_DEPTH, self.depth * by)),
        )

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON values, without what the method does not use."""
        document = asdict(self)
        document["classes"] = list(self.classes)
        unused = {
            "components": ("border", "reach", "depth"),
            "seeded": ("depth",),
            "split": ("border", "reach"),
        }
        for name in unused[self.method]:
            del document[name]
        return document

    @classmethod
    def from_json(cls, document: Any, key: str = "objects") -> ObjectRule:
        """Read what `to_json` returned; ValueError that names the key at fault."""
        return decode(cls, document, key)
