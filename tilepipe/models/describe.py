"""A model in words: what `tilepipe info MODEL` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from tilepipe.models.int8_network import Int8Network
from tilepipe.models.specs import Model
from tilepipe.text import count, sentence, shortened

WIDTH = 88
_INDENT = 14
_LONGEST = 5000
"""Characters of an entry of a card."""


def describe(model: Model) -> str:
    """A model as plain text, at most 88 columns wide."""
    lines = [f"{_plain(model.name)}: {_purpose(model)}", ""]
    lines += _classes(model)
    if model.output.objects is not None:
        lines += _entry("objects", str(model.output.objects))
    lines += _entry("pixel size", _pixel_size(model))
    lines += _entry("input", _input(model))
    lines += _entry("network", _network(model))
    lines += _entry("tile", _tile(model))
    if model.int8 is not None:
        lines += _entry("int8", _int8(model.int8))
    for key, value in model.about.items():
        lines += list(_about(key, value, level=0))
    if model.path is not None:
        lines += _entry("file", model.path)
    lines += _entry("fingerprint", model.fingerprint)
    return "\n".join(lines)


def _purpose(model: Model) -> str:
    names = [c.name for i, c in enumerate(model.output.classes) if i != model.output.background]
    what = ", ".join(names) if len(names) <= 3 else f"{len(names)} classes"
    if model.output.activation == "linear":
        return f"measures {what}" if len(names) <= 3 else f"measures {len(names)} quantities"
    if model.output.background is None and model.output.activation == "softmax":
        return f"tells apart {what}"
    return f"finds {what}"


def _classes(model: Model) -> list[str]:
    linear = model.output.activation == "linear"
    planes = model.output.activation == "sigmoid" and model.output.background is None
    rows = []
    for index, entry in enumerate(model.output.classes):
        notes = [] if linear else [entry.colour]
        if index == model.output.background:
            notes.append("background")
        if planes:
            notes.append(f"from {model.output.thresholds[index]:g}, a plane of its own")
        elif model.output.activation == "sigmoid" and index == 1:
            notes.append(f"from {model.output.thresholds[0]:g}")
        rows.append(f"{index:>3}  {entry.name}" + (f"  ({', '.join(notes)})" if notes else ""))
    label = "values" if linear else "classes"
    return [_labelled(label if i == 0 else "", line) for i, line in enumerate(_wrap_rows(rows))]


def _pixel_size(model: Model) -> str:
    size = model.input.pixel_size
    return "any" if size is None else f"{size.x:g} {size.unit}"


def _input(model: Model) -> str:
    given = model.input
    bands = "1 band" if given.bands == 1 else f"{given.bands} bands"
    bands += f" ({', '.join(given.band_names)})" if given.band_names else ""
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (given.mean, given.std))
    scale = 1 / given.scale
    factor = f"/ {scale:g}" if abs(scale) >= 1 else f"* {given.scale:g}"
    steps = "" if given.scale == 1 else f"x {factor}, "
    return f"{bands} of {given.dtype}; {steps}minus ({mean}), over ({std})"


def _network(model: Model) -> str:
    predictor = model.predictor
    return (
        f"{predictor.describe()}, {model.output.activation} over "
        f"{count(predictor.outputs, 'output')}; {predictor.weights:,} parameters, "
        f"{predictor.weight_bytes / 1e6:.1f} MB in memory"
    )


def _tile(model: Model) -> str:
    g = model.geometry
    return (
        f"{g.input} in, {g.output} out, step {g.step}, margin {g.margin}, "
        f"stride factor {g.stride_factor}"
        + (", no other window" if model.predictor.fixed else "")
        + (f"; not exact: {inexact}" if (inexact := model.predictor.inexact) else "")
    )


def _int8(network: Int8Network) -> str:
    dice = "" if network.dice is None else f", Dice between the two {network.dice:.4f}"
    return (
        f"comes quantised: calibrated on {count(network.tiles, 'tile')} of "
        f"{count(network.images, 'image')}; {100 * network.label_change:.2g} % of labels differ "
        f"from fp32's{dice}, on {count(network.measured, 'other tile')}"
    )


def _about(key: str, value: Any, level: int) -> Iterator[str]:
    """An entry of `about`, its contents indented below it."""
    label = "  " * level + _plain(key).replace("_", " ")
    if isinstance(value, dict) and value:
        yield _shortened(label)
        for name, inner in value.items():
            yield from _about(name, inner, level + 1)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        yield _shortened(label)
        for number, item in enumerate(value, 1):
            yield from _about(str(number), item, level + 1)
    else:
        yield from _entry(label, _value(value))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None or value == {} else str(value)


def _entry(label: str, text: str) -> list[str]:
    if len(label) >= _INDENT:
        # A label that reaches into the column of values stands in front of its own.
        return _wrap(f"{label}: {text}", "  " + " " * (len(label) - len(label.lstrip())))
    lines = _wrap(_labelled(label, text), " " * _INDENT)
    return [line.rstrip() for line in lines]


def _labelled(label: str, text: str) -> str:
    return f"{label:<{_INDENT}}{_plain(text)}"


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        _plain(text),
        WIDTH,
        subsequent_indent=indent if len(indent) < WIDTH // 2 else "",
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _wrap_rows(rows: list[str]) -> list[str]:
    return [_shortened(row, WIDTH - _INDENT) for row in rows]


def _shortened(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _plain(text: str) -> str:
    return shortened(sentence(text), _LONGEST)
