"""`tilepipe convert`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("convert")
@click.argument("image")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(image: str, target: Path | None, overwrite: bool, quiet: bool) -> None:
    """Turn IMAGE into a chunked OME-Zarr pyramid (TARGET: IMAGE.ome.zarr in this folder).

    For images that cannot be read in pieces: one huge strip, a large PNG or JPEG. Streams: the
    image is never held whole.
    """
    from rich.progress import Progress

    from tilepipe.engine.options import image_stem
    from tilepipe.images import open_image
    from tilepipe.images.convert import convert

    target = target or Path(f"{image_stem(image)}.ome.zarr")
    source = open_image(image, streaming=True)
    try:
        with Progress(disable=quiet) as bar:
            task = bar.add_task("convert", total=None)

            def tell(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            convert(source, target, overwrite=overwrite, progress=tell)
    finally:
        source.close()
    if not quiet:
        click.echo(target)
