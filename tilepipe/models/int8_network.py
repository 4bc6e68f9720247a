"""The quantised network that a model file may hold beside its weights, and how good it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from msgspec import Meta

from tilepipe.errors import InputError
from tilepipe.models.quantise import unpacked
from tilepipe.schema import decode, load_json

TENSOR, METADATA_KEY = "int8.network", "tilepipe.int8"
"""Where it stands in a safetensors file: its bytes as a tensor of U8, and its document."""

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class Int8Network:
    """A network quantised to int8, which comes with the model that it was made of."""

    weights: str
    """SHA-256 of that model's weights."""
    images: Count
    """The number of images that it was calibrated on."""
    tiles: Count
    """The number of their tiles."""
    label_change: Share
    """The share of labels that differ from fp32's, on other tiles of these images."""
    dice: Share | None
    """The Dice coefficient between the two there, mean over the classes without the background;
    None where there are none."""
    measured: Count
    """The number of these other tiles."""
    versions: dict[str, str]
    """Of the libraries that made it."""
    content: bytes = field(default=b"", repr=False)
    """See `tilepipe.models.quantise.quantised`. Its sums overflow on no processor."""

    def document(self) -> str:
        """All but its content, as JSON."""
        value = {name: item for name, item in asdict(self).items() if name != "content"}
        return json.dumps(value, indent=1)


def read_int8_network(content: bytes, metadata: dict[str, str], source: str) -> Int8Network:
    """The network of a model file.

    Parameters
    ----------
    content
        The bytes of the tensor `TENSOR`.
    metadata
        Of the safetensors file.
    source
        The name of the file, for messages.

    Raises
    ------
    InputError
        Where it is damaged or not described.
    """
    advice = "make it anew with `tilepipe quantise`"
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{source}: holds an int8 network without the metadata {METADATA_KEY!r}; {advice}"
        )
    try:
        document: Any = load_json(metadata[METADATA_KEY])
        found = decode(Int8Network, document, METADATA_KEY)
        unpacked(content)
    except ValueError as error:
        raise InputError(f"{source}: its int8 network cannot be used: {error}; {advice}") from error
    return replace(found, content=content)


def check_same_weights(network: Int8Network, weights: str, source: str) -> None:
    """Refuse a network that was made of other weights than those of this hash.

    Raises
    ------
    InputError
        Names the file.
    """
    if network.weights != weights:
        raise InputError(
            f"{source}: its int8 network was made of other weights than it has now; make it anew "
            "with `tilepipe quantise`"
        )
