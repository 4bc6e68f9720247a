"""`tilepipe convert`."""

from __future__ import annotations

import click

from tilepipe.cli.options import as_bytes, series_option


@click.command("convert")
@click.argument("image")
@click.argument("target", required=False)
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
@click.option(
    "--memory",
    metavar="SIZE",
    callback=as_bytes,
    default="1GB",
    show_default=True,
    help="Pixels held at once.",
)
@series_option
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(
    image: str,
    target: str | None,
    overwrite: bool,
    memory: int,
    series: int | str | None,
    quiet: bool,
) -> None:
    """Turn IMAGE into a chunked OME-Zarr pyramid (TARGET: IMAGE.ome.zarr in this folder).

    For images that cannot be read in pieces: one huge strip, a large PNG or JPEG. Streams: the
    image is never held whole.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tilepipe.engine.options import image_stem
    from tilepipe.images.convert import convert
    from tilepipe.images.reading import Reading

    target = target or f"{image_stem(image)}.ome.zarr"
    with Progress(disable=quiet, console=Console(stderr=True)) as bar:
        task = bar.add_task("convert", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        # The path, not an opened image: some files can only be streamed from top to bottom.
        convert(
            image,
            target,
            reading=Reading(series=series),
            memory_limit=memory,
            overwrite=overwrite,
            progress=tell,
        )
    if not quiet:
        click.echo(target)
