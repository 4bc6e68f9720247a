"""Model files of weights as safetensors, with the JSON document in their metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tilepipe.errors import InputError
from tilepipe.models import int8_network
from tilepipe.models.document import Document, document_of, parse_document
from tilepipe.models.int8_network import Int8Network
from tilepipe.models.predictors import kind_of
from tilepipe.models.predictors.base import Arguments
from tilepipe.models.specs import Model
from tilepipe.models.weights import TRAINING_ONLY, Weights
from tilepipe.text import some

METADATA_KEY = "tilepipe"
SUFFIX = ".safetensors"


def load_safetensors(path: Path) -> Model:
    """Load a model file of weights; nothing in it runs.

    Raises
    ------
    InputError
        Where something in the file is wrong; names the key or the tensor.
    """
    source = path.name
    _refuse_pickle(path, source)
    try:
        with (
            path.open("rb") as opened,
            safe_open(_utf8_name(path, opened), framework="np") as file,
        ):
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise InputError(
                    f"{source}: has weights but no description under the metadata key "
                    f"{METADATA_KEY!r}, so it is not a tilepipe model; write one with save_model"
                )
            document = parse_document(metadata[METADATA_KEY], source)
            kind = kind_of(document.arguments)
            if kind.suffix != SUFFIX:
                raise InputError(
                    f"{source}: network.name must be one whose weights are in a {SUFFIX} file, "
                    f"found {document.arguments.kind}"
                )
            views = {
                name: file.get_slice(name)
                for name in file.keys()  # noqa: SIM118 - safe_open is not a mapping
                if not name.endswith(TRAINING_ONLY)
            }
            int8 = views.pop(int8_network.TENSOR, None)
            # Before anything is allocated: a few bytes of JSON can ask for terabytes.
            shapes = {name: tuple(view.get_shape()) for name, view in views.items()}
            check_shapes(shapes, document.arguments, source)
            for name, view in views.items():
                if view.get_dtype() not in ("F32", "F16"):
                    raise InputError(
                        f"{source}: tensor {name} must be F32 or F16, found {view.get_dtype()}"
                    )
            # Copied out of the mapped file, which may be replaced while the model is in use.
            tensors = {name: _copied(file.get_tensor(name)) for name in views}
            network = None if int8 is None else _int8(int8, metadata, source)
    except SafetensorError as error:
        raise InputError(f"{source}: is damaged or not a safetensors file: {error}") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    model = assemble(path.stem, document, tensors, source=source, path=str(path))
    if network is not None:
        int8_network.check_same_weights(network, weights_hash(tensors), source)
    return replace(model, int8=network)


def _int8(view: Any, metadata: dict[str, str], source: str) -> Int8Network:
    """The quantised network of a file, of the view of its bytes."""
    if view.get_dtype() != "U8" or len(view.get_shape()) != 1:
        raise InputError(
            f"{source}: tensor {int8_network.TENSOR} must be bytes, found {view.get_dtype()} of "
            f"shape {tuple(view.get_shape())}"
        )
    return int8_network.read_int8_network(view[:].tobytes(), metadata, source)


def safetensors_content(model: Model, dtype: str, source: str) -> bytes:
    """The bytes of a model file, its weights stored as ``dtype``: ``float32`` or ``float16``."""
    from safetensors.numpy import save

    document = document_of(model, "model")
    with np.errstate(over="ignore"):  # what does not fit is infinite, and refused
        stored = {name: t.astype(dtype) for name, t in model.predictor.tensors.items()}
    _check_finite(stored, source)
    metadata = {METADATA_KEY: document.dumps()}
    if model.int8 is not None:
        # Rounded to half precision, weights are others.
        int8_network.check_same_weights(model.int8, weights_hash(stored), source)
        metadata[int8_network.METADATA_KEY] = model.int8.document()
        stored[int8_network.TENSOR] = np.frombuffer(model.int8.content, np.uint8)
    return bytes(save(stored, metadata=metadata))


def assemble(
    name: str, document: Document, tensors: Weights, *, source: str, path: str | None
) -> Model:
    """The model of a checked document and of arrays that nobody else holds."""
    _check_finite(tensors, source)
    kind = kind_of(document.arguments)
    return Model(
        name=name,
        predictor=kind(
            document.arguments, tensors, inexact=document.inexact, fixed=not document.exact
        ),
        geometry=document.geometry,
        input=document.input,
        output=document.output,
        about=document.about,
        fingerprint=_fingerprint(document, tensors),
        path=path,
    )


def check_shapes(found: Mapping[str, tuple[int, ...]], arguments: Arguments, source: str) -> None:
    """Refuse tensors that are not just those of the network."""
    expected = kind_of(arguments).shapes(arguments)
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        parts = [
            f"{what} {some(sorted(names))}"
            for what, names in (("lacks", missing), ("has an unexpected", unexpected))
            if names
        ]
        raise InputError(f"{source}: does not fit its network: {' and '.join(parts)}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(
                f"{source}: tensor {name} must have the shape {shape}, found {found[name]}"
            )


def _utf8_name(path: Path, opened: BinaryIO) -> str:
    """A name of an open file that is UTF-8: safetensors takes no other."""
    try:
        return os.fspath(path).encode().decode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{opened.fileno()}"


def _refuse_pickle(path: Path, source: str) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    # A safetensors header of 640 bytes starts as a pickle of protocol 2 does, but for its brace.
    if start[4:] == b"\0\0\0\0{":
        return
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise InputError(
            f"{source}: is a PyTorch pickle, which can run code when it is read; convert its "
            "state dict with tilepipe.models.import_state_dict"
        )


def _copied(array: NDArray[np.floating]) -> NDArray[np.float32]:
    """A copy in C order."""
    return np.array(array, np.float32, order="C")


def _check_finite(tensors: Mapping[str, NDArray[np.floating]], source: str) -> None:
    for name, array in tensors.items():
        # NaN wins both minimum and maximum; no copy of the weights.
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            raise InputError(
                f"{source}: tensor {name} holds values that are not finite (as {array.dtype})"
            )


def weights_hash(tensors: Weights) -> str:
    """SHA-256 of the weights alone, as hexadecimal digits; of their values as float32."""
    digest = hashlib.sha256()
    _add(digest, tensors)
    return digest.hexdigest()


def _fingerprint(document: Document, tensors: Weights) -> str:
    digest = hashlib.sha256(document.canonical().encode())
    _add(digest, tensors)
    return digest.hexdigest()


def _add(digest: Any, tensors: Weights) -> None:
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name], np.dtype("<f4"))
        digest.update(f"\n{name} {values.shape}\n".encode())
        digest.update(values.data)
