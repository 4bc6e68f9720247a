"""`tilepipe info`."""

from __future__ import annotations

import click

from tilepipe.cli.options import series_option


@click.command("info")
@click.argument("what")
@series_option
def command(what: str, series: int | str | None) -> None:
    """Describe WHAT: a model (file, or name of a shipped one) or an image."""
    from tilepipe.storage import is_url, readable

    if what.lower().endswith((".safetensors", ".onnx")) or not (
        is_url(what) or readable(what).exists()
    ):
        from tilepipe.models.describe import describe
        from tilepipe.models.file import load_model

        click.echo(describe(load_model(what)))
        return
    from tilepipe.cli.show import show_image
    from tilepipe.images import open_image
    from tilepipe.images.reading import Reading

    image = open_image(what, Reading(series=series))
    try:
        click.echo(show_image(image))
    finally:
        image.close()
