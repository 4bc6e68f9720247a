"""Model files: loading, saving, and making models of networks and state dicts.

A model file is weights and one JSON document that says how to use them. What holds the weights
depends on the kind of network: `tilepipe.models.safetensors_file`, `tilepipe.models.onnx_file`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.grid import Geometry
from tilepipe.models import safetensors_file
from tilepipe.models.document import Document, checked
from tilepipe.models.geometry import geometry_of
from tilepipe.models.predictors import kind_of
from tilepipe.models.specs import ClassSpec, InputSpec, Model, OutputSpec
from tilepipe.models.unet_arguments import UNetArguments
from tilepipe.models.weights import TRAINING_ONLY, weights_of
from tilepipe.storage import local_file, require_room_for_name, write_whole

__all__ = [
    "DEFAULT_MODEL",
    "ClassSpec",
    "InputSpec",
    "Model",
    "OutputSpec",
    "build_model",
    "import_state_dict",
    "load_model",
    "save_model",
    "shipped_models",
]

ONNX_SUFFIX = ".onnx"

DEFAULT_MODEL = "nuclei-he"
"""The shipped model that is used where none is named."""


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Load a model from its file, or a shipped model by its name. Never runs code from the file.

    Raises
    ------
    InputError
        Where there is no such model, or something in the file is wrong; the message names the key.
    """
    text = os.fspath(name_or_path)
    if text in shipped_models():
        with resources.as_file(_weights_folder() / f"{text}{safetensors_file.SUFFIX}") as path:
            return _load(path)
    path = local_file(text, "a model file")
    if not path.exists():
        if path.suffix or path.name != text:
            raise InputError(f"{text}: there is no such file")
        names = ", ".join(shipped_models()) or "none"
        raise InputError(
            f"no model is called {text!r}: give the path of a {safetensors_file.SUFFIX} or "
            f"{ONNX_SUFFIX} file, or the name of a shipped model ({names})"
        )
    return _load(path)


def _load(path: Path) -> Model:
    if path.suffix == ONNX_SUFFIX:
        from tilepipe.models import onnx_file

        return onnx_file.load_onnx(path)
    return safetensors_file.load_safetensors(path)


def save_model(path: str | os.PathLike[str], model: Model, dtype: Any = "float32") -> None:
    """Write a model file; it appears under its name only when complete.

    Parameters
    ----------
    path
        Its stem becomes the model's name. It ends in ``.onnx`` for an ONNX network, else in
        ``.safetensors``.
    model
        A model from `build_model`, `import_onnx`, `import_state_dict` or `load_model`.
    dtype
        ``float32`` or ``float16``, as which safetensors files store the weights; torch's and
        numpy's types of these names will do, too. ONNX networks keep their own.

    Raises
    ------
    InputError
        Where the parts of the model do not agree, or its weights do not fit the dtype.
    """
    kind = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
    if kind not in ("float32", "float16"):
        raise InputError(f"weights are stored as float32 or float16, not {dtype}")
    target = Path(path)
    suffix = model.predictor.suffix
    if target.suffix != suffix:
        raise InputError(f"{target}: the name of this model's file ends in {suffix}")
    if suffix == ONNX_SUFFIX:
        from tilepipe.models import onnx_file

        content = onnx_file.onnx_content(model)
    else:
        content = safetensors_file.safetensors_content(model, kind, target.name)
    require_room_for_name(target)
    try:
        write_whole(target, content, alone=False)
    except OSError as error:
        cause = EnvironmentFailure if error.errno == errno.ENOSPC else InputError
        raise cause(f"{target}: cannot be written: {error.strerror}") from error


def exact_dtype(model: Model) -> str:
    """The smaller of the types of `save_model` that holds a model's weights as they are."""
    with np.errstate(over="ignore"):
        half = all(
            np.array_equal(array.astype(np.float16).astype(np.float32), array)
            for array in model.predictor.tensors.values()
        )
    return "float16" if half else "float32"


def build_model(
    network: Any,
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
        A `UNet`, or the torch module of another registered kind, with its ``arguments``. It is
        left as it is, and may be trained further.
    input, output
        How pixels become its input, and its logits a mask.
    name
        What it is called until it is saved.
    about
        Source, licence, data, metrics: JSON values.
    geometry
        Its tile; by default what its arguments imply (`geometry_of` for a U-Net).

    Raises
    ------
    InputError
        Where the parts do not agree.
    """
    arguments = network.arguments
    tile = geometry or kind_of(arguments).geometry(arguments)
    if tile is None:
        raise InputError(f"{name}: give the geometry of this network; see probe_geometry")
    document = checked(Document(arguments, tile, input, output, dict(about or {})), name)
    # Through the same copy that loading makes, so that both give the same network.
    tensors = {
        key: np.array(array, np.float32, order="C") for key, array in weights_of(network).items()
    }
    return safetensors_file.assemble(name, document, tensors, source=name, path=None)


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
        Where the file holds anything but tensors, or other tensors than the network's.
    """
    from tilepipe._torch import Tensor, torch

    source = Path(path).name
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    # A damaged or hostile pickle can make torch raise anything.
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
    document = checked(
        Document(arguments, geometry_of(arguments), input, output, dict(about or {})), source
    )
    shapes = {
        key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith(TRAINING_ONLY)
    }
    safetensors_file.check_shapes(shapes, arguments, source)
    tensors = {
        key: np.array(state[key].detach().to(torch.float32).numpy(), order="C") for key in shapes
    }
    return safetensors_file.assemble(Path(path).stem, document, tensors, source=source, path=None)


def shipped_models() -> list[str]:
    """Names of the models that come with tilepipe."""
    folder = _weights_folder()
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(
        name.removesuffix(safetensors_file.SUFFIX)
        for name in names
        if name.endswith(safetensors_file.SUFFIX)
    )


def _weights_folder() -> Traversable:
    return resources.files("tilepipe.models") / "weights"
