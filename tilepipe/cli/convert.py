"""`tilepipe convert`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli.options import as_bytes, reading_options


@click.command("convert")
@click.argument("image")
@click.argument("target", required=False)
@reading_options
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
@click.option(
    "--memory",
    metavar="SIZE",
    callback=as_bytes,
    default="1GB",
    show_default=True,
    help="Pixels held at once.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(
    image: str, target: str | None, overwrite: bool, memory: int, quiet: bool, **reading: Any
) -> None:
    """Turn IMAGE into a chunked OME-Zarr pyramid (TARGET: IMAGE.ome.zarr in this folder).

    For images that cannot be read in pieces: one huge strip, a large PNG or JPEG. Streams: the
    image is never held whole. What is written is what --series, --bands, --nodata, --unscale and
    --rescale (to 8 bits) make of it.
    """
    from rich.progress import Progress

    from tilepipe.cli.show import near
    from tilepipe.cli.terminal import Terminal
    from tilepipe.engine.options import image_stem
    from tilepipe.images.convert import convert

    target = target or f"{image_stem(image)}.ome.zarr"
    console = Terminal(stderr=True)
    with Progress(disable=quiet or not console.is_terminal, console=console) as bar:
        task = bar.add_task("convert", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        # The path, not an opened image: some files can only be streamed from top to bottom.
        convert(
            image, target, reading=_reading(**reading), memory_limit=memory, overwrite=overwrite,
            progress=tell,
        )  # fmt: skip
    if not quiet:
        click.echo(near(target))


def _reading(**options: Any) -> Any:
    """What of the image is read, and how; the plain reading where nothing is asked for."""
    from tilepipe.images.reading import Reading

    given = {name: value for name, value in options.items() if value is not None}
    return Reading(**given, dtype="uint8" if "rescale" in given else None)
