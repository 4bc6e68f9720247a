"""`tilepipe convert`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli.options import READING, collect, options_of, quiet_option
from tilepipe.engine.options import RunOptions


@click.command("convert")
@click.argument("image")
@click.argument("target", required=False)
@options_of(RunOptions, READING)
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it exists.")
@click.option(
    "--memory", metavar="SIZE", default="1GB", show_default=True, help="Memory for pixels."
)
@quiet_option
def command(
    image: str, target: str | None, overwrite: bool, memory: str, quiet: bool, **given: Any
) -> None:
    """Turn IMAGE into a chunked OME-Zarr pyramid (TARGET: IMAGE.ome.zarr in this folder).

    For images that cannot be read in pieces: one huge strip, a large PNG or JPEG. The image is
    streamed, never held whole. --series, --bands, --nodata, --unscale and --rescale (to 8 bits)
    apply to what is written.
    """
    from rich.progress import Progress

    from tilepipe import convert
    from tilepipe.cli.show import near
    from tilepipe.cli.terminal import Terminal
    from tilepipe.engine.options import image_stem

    options = collect(RunOptions, None, {**given, "memory": memory})
    target = target or f"{image_stem(image)}.ome.zarr"
    console = Terminal(stderr=True)
    with Progress(disable=quiet or not console.is_terminal, console=console) as bar:
        task = bar.add_task("convert", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        # The path, not an opened image: some files can only be streamed from top to bottom.
        convert(
            image, target, reading=_reading(options), memory_limit=options["memory"],
            overwrite=overwrite, progress=tell,
        )  # fmt: skip
    if not quiet:
        click.echo(near(target))


def _reading(options: dict[str, Any]) -> Any:
    """What to read of the image, and how."""
    from tilepipe.images.reading import Reading

    given = {name: options[name] for name in READING if name in options}
    return Reading(**given, dtype="uint8" if "rescale" in given else None)
