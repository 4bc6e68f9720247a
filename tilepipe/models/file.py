"""Model files: weights as safetensors, and one JSON document that says how to use them.

Networks in ONNX carry the same document: see `tilepipe.models.onnx_file`.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from tilepipe._torch import Tensor, torch
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.grid import Geometry
from tilepipe.models import onnx_file
from tilepipe.models.document import Document, checked, parse_document
from tilepipe.models.geometry import geometry_of
from tilepipe.models.onnx_file import import_onnx
from tilepipe.models.onnx_network import OnnxNetwork
from tilepipe.models.specs import ClassSpec, InputSpec, Model, OutputSpec
from tilepipe.models.unet import UNet, UNetArguments
from tilepipe.storage import local_file, require_room_for_name, write_whole
from tilepipe.text import some

__all__ = [
    "DEFAULT_MODEL",
    "ClassSpec",
    "InputSpec",
    "Model",
    "OutputSpec",
    "build_model",
    "import_onnx",
    "import_state_dict",
    "load_model",
    "save_model",
    "shipped_models",
]

DEFAULT_MODEL = "nuclei-he"
"""The shipped model that is used where none is named."""

METADATA_KEY = "tilepipe"
SUFFIX = ".safetensors"

# Batch normalisation counts its training steps; inference has no use for the count.
_TRAINING_ONLY = ".num_batches_tracked"


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Load a model from its file, or a shipped model by its name. Never runs code from the file.

    Raises
    ------
    InputError
        Where there is no such model, or something in the file is wrong; the key is named.
    """
    text = os.fspath(name_or_path)
    if text in shipped_models():
        with resources.as_file(_weights_folder() / f"{text}{SUFFIX}") as path:
            return _load(path)
    path = local_file(text, "a model file")
    if not path.exists():
        if path.suffix or path.name != text:
            raise InputError(f"{text}: there is no such file")
        names = ", ".join(shipped_models()) or "none"
        raise InputError(
            f"no model is called {text!r}: give the path of a {SUFFIX} or {onnx_file.SUFFIX} file, "
            f"or the name of a shipped model ({names})"
        )
    return _load(path)


def save_model(
    path: str | os.PathLike[str], model: Model, dtype: torch.dtype = torch.float32
) -> None:
    """Write a model file; it appears under its name only when complete.

    Parameters
    ----------
    path
        Its stem becomes the model's name. It ends in ``.onnx`` for an ONNX network, else in
        ``.safetensors``.
    model
        What `build_model`, `import_onnx` or `load_model` gave.
    dtype
        ``torch.float32`` or ``torch.float16``, as which the weights are stored. ONNX networks
        keep their own.

    Raises
    ------
    InputError
        Where the model does not hold together, or its weights do not fit the dtype.
    """
    from safetensors.torch import save

    if dtype not in (torch.float32, torch.float16):
        raise InputError(f"weights are stored as float32 or float16, not {dtype}")
    target = Path(path)
    onnx = isinstance(model.network, OnnxNetwork)
    suffix = onnx_file.SUFFIX if onnx else SUFFIX
    if target.suffix != suffix:
        raise InputError(f"{target}: the name of this model's file ends in {suffix}")
    if onnx:
        content = onnx_file.onnx_content(model)
    else:
        document = checked(
            Document(model.arguments, model.geometry, model.input, model.output, model.about),
            "model",
        )
        tensors = {name: t.to(dtype).contiguous() for name, t in _tensors(model.network).items()}
        _check_finite(tensors, target.name)
        content = save(tensors, metadata={METADATA_KEY: document.dumps()})
    require_room_for_name(target)
    try:
        write_whole(target, content)
    except OSError as error:
        kind = EnvironmentFailure if error.errno == errno.ENOSPC else InputError
        raise kind(f"{target}: cannot be written: {error.strerror}") from error


def build_model(
    network: UNet,
    input: InputSpec,  # noqa: A002 - the word of the model file
    output: OutputSpec,
    *,
    name: str = "model",
    about: Mapping[str, Any] | None = None,
    geometry: Geometry | None = None,
) -> Model:
    """Make a model of a network: a copy of its weights, checked, ready for inference or saving.

    Parameters
    ----------
    network
        Left as it is: it may go on training.
    input, output
        How pixels become its input, and its logits an answer.
    name
        What it is called until it is saved.
    about
        Source, licence, data, metrics: JSON values.
    geometry
        Its tile; by default the one of `geometry_of`.

    Raises
    ------
    InputError
        Where the parts do not agree.
    """
    document = checked(
        Document(
            network.arguments,
            geometry or geometry_of(network.arguments),
            input,
            output,
            dict(about or {}),
        ),
        name,
    )
    # Through the same copy that loading makes, so that both give the same network.
    tensors = {key: t.to("cpu", torch.float32, copy=True) for key, t in _tensors(network).items()}
    return _assemble(name, document, tensors, source=name, path=None)


def import_state_dict(
    path: str | os.PathLike[str],
    arguments: UNetArguments,
    input: InputSpec,  # noqa: A002 - the word of the model file
    output: OutputSpec,
    *,
    about: Mapping[str, Any] | None = None,
) -> Model:
    """Make a model of a PyTorch state dict, whose keys must be those of `UNet`.

    Raises
    ------
    InputError
        Where the file holds anything but tensors, or not just those that the network needs.
    """
    source = Path(path).name
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    # What a damaged or hostile pickle makes torch raise is of no fixed kind.
    except Exception as error:
        raise InputError(
            f"{source}: is not a state dict of tensors alone, which is all that is safe to read"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise InputError(
            f"{source}: must hold a state dict (names and their tensors), as torch.save("
            "network.state_dict(), ...) writes it"
        )
    name = Path(path).stem
    document = checked(
        Document(arguments, geometry_of(arguments), input, output, dict(about or {})), source
    )
    shapes = {k: tuple(t.shape) for k, t in state.items() if not k.endswith(_TRAINING_ONLY)}
    _check_shapes(shapes, arguments, source)
    tensors = {key: state[key].to(torch.float32, copy=True) for key in shapes}
    return _assemble(name, document, tensors, source=source, path=None)


def shipped_models() -> list[str]:
    """Names of the models that come with tilepipe."""
    folder = _weights_folder()
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def _weights_folder() -> Traversable:
    return resources.files("tilepipe.models") / "weights"


def _load(path: Path) -> Model:
    source = path.name
    if path.suffix == onnx_file.SUFFIX:
        return onnx_file.load_onnx(path)
    _refuse_pickle(path, source)
    try:
        with (
            path.open("rb") as opened,
            safe_open(_utf8_name(path, opened), framework="pt", device="cpu") as file,
        ):
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise InputError(
                    f"{source}: has weights but no description under the metadata key "
                    f"{METADATA_KEY!r}, so it is not a tilepipe model; write one with save_model"
                )
            document = parse_document(metadata[METADATA_KEY], source)
            if not isinstance(document.arguments, UNetArguments):
                raise InputError(f"{source}: network.name must be unet, found onnx")
            views = {
                name: file.get_slice(name)
                for name in file.keys()  # noqa: SIM118 - safe_open is no mapping
                if not name.endswith(_TRAINING_ONLY)
            }
            # Before anything is allocated: a few bytes of JSON can ask for terabytes.
            shapes = {name: tuple(view.get_shape()) for name, view in views.items()}
            _check_shapes(shapes, document.arguments, source)
            for name, view in views.items():
                if view.get_dtype() not in ("F32", "F16"):
                    raise InputError(
                        f"{source}: tensor {name} must be F32 or F16, found {view.get_dtype()}"
                    )
            # Copied out of the mapped file, which may be replaced while the model is in use.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in views}
    except SafetensorError as error:
        raise InputError(f"{source}: is damaged or not a safetensors file: {error}") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    return _assemble(path.stem, document, tensors, source=source, path=str(path))


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


def _assemble(
    name: str, document: Document, tensors: dict[str, Tensor], *, source: str, path: str | None
) -> Model:
    assert isinstance(document.arguments, UNetArguments)
    _check_finite(tensors, source)
    network = _skeleton(document.arguments)
    state = dict(tensors)
    for key in network.state_dict():
        if key.endswith(_TRAINING_ONLY):
            state[key] = torch.zeros((), dtype=torch.int64)
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    return Model(
        name=name,
        arguments=document.arguments,
        network=network,
        geometry=document.geometry,
        input=document.input,
        output=document.output,
        about=document.about,
        fingerprint=_fingerprint(document, tensors),
        path=path,
    )


def _skeleton(arguments: UNetArguments) -> UNet:
    with torch.device("meta"):
        return UNet(arguments)


def _tensors(network: torch.nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: t.detach() for name, t in state.items() if not name.endswith(_TRAINING_ONLY)}


def _check_shapes(
    found: Mapping[str, tuple[int, ...]], arguments: UNetArguments, source: str
) -> None:
    expected = {name: tuple(t.shape) for name, t in _tensors(_skeleton(arguments)).items()}
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


def _check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in tensors.items():
        # NaN wins both minimum and maximum; one pass, with no copy of the weights.
        if not all(math.isfinite(value) for value in torch.aminmax(tensor)):
            raise InputError(
                f"{source}: tensor {name} holds values that are not finite (as {tensor.dtype})"
            )


def _fingerprint(document: Document, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(document.canonical().encode())
    for name in sorted(tensors):
        values = tensors[name].contiguous().numpy().astype(np.dtype("<f4"), copy=False)
        digest.update(f"\n{name} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()
