"""`tilepipe convert`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli.options import READING, collect, options_of, quiet_option
from tilepipe.engine.options import RunOptions


@click.command("convert")
@click.argument("source")
@click.argument("target", required=False)
@click.option(
    "--as", "kind", type=click.Choice(["auto", "image", "mask"]), default="auto",
    help="What SOURCE is [auto: a mask if tilepipe wrote it or it names its classes].",
)  # fmt: skip
@click.option(
    "--classes", metavar="TABLE",
    help="Classes of a mask that does not name them: 0=background,1=nucleus:#ff0000, or a .csv "
    "or .json file.",
)  # fmt: skip
@click.option("-m", "--model", help="Model whose classes the mask has, instead of --classes.")
@click.option(
    "--binary", is_flag=True, help="Every value of the mask but 0 is one class (label 1)."
)
@click.option("--partial", is_flag=True, help="Convert what there is of an unfinished run.")
@click.option("--image", metavar="IMAGE", help="Image on which a .png of the mask is drawn.")
@options_of(RunOptions, READING)
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it exists.")
@click.option(
    "--memory", metavar="SIZE", default="1GB", show_default=True, help="Memory for pixels."
)
@quiet_option
def command(
    source: str, target: str | None, overwrite: bool, memory: str, quiet: bool, **given: Any
) -> None:
    """Turn an image into a chunked OME-Zarr pyramid, or a mask into another format.

    An image that cannot be read in pieces (one huge strip, a large PNG or JPEG) is streamed into
    TARGET [SOURCE.ome.zarr in this folder]; --series, --bands, --nodata, --unscale and --rescale
    (to 8 bits) apply to what is written.

    A mask, by tilepipe or another program, is written as TARGET: .ome.zarr, .ome.tif, .tif
    (GeoTIFF) or .png, with its pyramid, classes and place. One that does not name its classes needs
    --classes or --model.
    """
    from rich.progress import Progress

    from tilepipe import convert
    from tilepipe.cli.lines import say
    from tilepipe.cli.show import near
    from tilepipe.cli.terminal import Terminal
    from tilepipe.engine.options import image_stem

    of_masks = {name: given.pop(name) for name in ("classes", "model", "binary", "partial")}
    of_masks |= {"kind": given.pop("kind"), "image": given.pop("image")}
    options = collect(RunOptions, None, {**given, "memory": memory})
    target = target or f"{image_stem(source)}.ome.zarr"
    console = Terminal(stderr=True)
    with Progress(disable=quiet or not console.is_terminal, console=console) as bar:
        task = bar.add_task("convert", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        # The path, not an opened image: some files can only be streamed from top to bottom.
        left_out = convert(
            source, target, reading=_reading(options), memory_limit=options["memory"],
            overwrite=overwrite, progress=tell, **of_masks,
        )  # fmt: skip
    for sentence in left_out:
        say(f"tilepipe: {sentence}", err=True)
    if not quiet:
        click.echo(near(target))


def _reading(options: dict[str, Any]) -> Any:
    """What to read of the image, and how."""
    from tilepipe.images.reading import Reading

    given = {name: options[name] for name in READING if name in options}
    return Reading(**given, dtype="uint8" if "rescale" in given else None)
