"""`tilepipe info`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli.lines import say
from tilepipe.cli.options import collect, options_of
from tilepipe.engine.options import RunOptions


@click.command("info")
@click.argument("what")
@options_of(RunOptions, ("series",))
def command(what: str, **given: Any) -> None:
    """Describe WHAT: a model (file, or name of a shipped one) or an image."""
    from tilepipe.storage import is_url, readable

    options = collect(RunOptions, None, given)
    if what.lower().endswith((".safetensors", ".onnx")) or not (
        is_url(what) or readable(what).exists()
    ):
        from tilepipe import load_model
        from tilepipe.models.describe import describe

        say(describe(load_model(what)))
        return
    from tilepipe import open_image
    from tilepipe.cli.show import show_image
    from tilepipe.images.reading import Reading

    image = open_image(what, Reading(**options))
    try:
        say(show_image(image), indent=12)
    finally:
        image.close()
