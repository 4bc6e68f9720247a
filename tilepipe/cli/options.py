"""Command-line options made from the dataclasses that declare them, and the YAML file of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from tilepipe.options import (
    Options,
    core,
    details_of,
    read_yaml,
    shown_default,
    types_of,
)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

READING = ("series", "bands", "nodata", "unscale", "rescale")
"""Options of a run that decide how an image is read; see `tilepipe.images.reading.Reading`."""

config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="YAML file of these options."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


def options_of(
    kind: type[Options],
    only: Collection[str] = (),
    *,
    without: Collection[str] = (),
    after: Mapping[str, Decorator] | None = None,
) -> Decorator:
    """A decorator that gives a command an option for each field of a dataclass of options.

    Parameters
    ----------
    kind
        The dataclass. Fields without a help are no options.
    only, without
        Names of the only fields to take, and of those to leave out.
    after
        Options of the command line alone, each after the field that it belongs to.
    """
    made: list[Decorator] = []
    for each in fields(kind):
        if each.name not in without and (not only or each.name in only):
            made.append(_option(each, core(types_of(kind)[each.name])))
        made += [after[each.name]] if after and each.name in after else []

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(made):
            command = option(command)
        return command

    return decorate


def _option(each: Field[Any], bare: Any) -> Decorator:
    details = details_of(each)
    flag = f"--{(details.flag or each.name).replace('_', '-')}"
    settings: dict[str, Any] = {"metavar": details.metavar}
    if bare is bool:
        settings = {"is_flag": True, "default": None}
        flag += f"/--no-{flag[2:]}" if each.default is not False else ""
    elif get_origin(bare) is tuple and details.parse is None:
        settings |= {"multiple": True, "type": get_args(bare)[0]}
    elif get_origin(bare) is Literal:
        settings["type"] = click.Choice(list(map(str, get_args(bare))))
    elif details.parse is None and bare in (int, float):
        settings["type"] = bare
    default = shown_default(each)
    text = details.help + (f" [{default}]." if default else ".")
    names = [name for name in (details.short, flag, each.name) if name]
    return click.option(*names, help=text, **settings)


def collect(kind: type[Options], config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a YAML file, with those given as flags winning.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    document = read_yaml(config) if config is not None else {}
    values = kind.read(document, str(config))
    flags = {name: value for name, value in given.items() if value not in (None, ())}
    return values | kind.read(flags)
