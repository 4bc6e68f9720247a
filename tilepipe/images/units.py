"""Units of length, however files spell them, by the names that NGFF has for them."""

from __future__ import annotations

import unicodedata

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "picometer": ("pm", "picometre", "picometers", "picometres"),
    "angstrom": ("å", "ångström", "angstroms", "ångströms"),
    "nanometer": ("nm", "nanometre", "nanometers", "nanometres"),
    "micrometer": (
        "μm", "um", "μ", "micron", "microns", "micrometre", "micrometers", "micrometres",
    ),
    "millimeter": ("mm", "millimetre", "millimeters", "millimetres"),
    "centimeter": ("cm", "centimetre", "centimeters", "centimetres"),
    "meter": ("m", "metre", "meters", "metres"),
    "kilometer": ("km", "kilometre", "kilometers", "kilometres"),
    "inch": ("in", "inches", '"'),
    "foot": ("ft", "feet"),
}  # fmt: skip

_NAMES = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others)}


def unit_name(text: str) -> str:
    """NGFF's name of a unit of length; any other text as it is.

    Takes symbols, British and American spelling, plurals, and either of the two characters that
    look like a Greek mu, also in the escaped form that ImageJ writes.
    """
    plain = text.replace("\\u00B5", "μ").replace("\\u00b5", "μ").strip()
    # Compatibility form: the micro sign becomes the Greek letter, the angstrom sign the letter.
    plain = unicodedata.normalize("NFKC", plain)
    # "Mm" is no millimetre: symbols have their case, words have none.
    folded = plain.casefold() if len(plain) > 2 or not plain.isascii() else plain
    return _NAMES.get(folded, text)
