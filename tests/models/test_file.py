"""A model file gives back what was saved, and names what is wrong with it."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.images.base import PixelSize
from tilepipe.models import (
    ClassSpec,
    InputSpec,
    Model,
    OutputSpec,
    UNet,
    UNetArguments,
    build_model,
    import_state_dict,
    load_model,
    save_model,
    shipped_models,
)

INPUT = InputSpec(2, "uint8", 1 / 255, (0.5, 0.4), (0.2, 0.3), PixelSize(0.25, 0.25, "micrometer"))
CLASSES = (ClassSpec("background", "#000000"), ClassSpec("nucleus", "#ff7f0e"))
OUTPUT = OutputSpec("softmax", CLASSES, background=0)
ABOUT = {"source": "a test", "metrics": {"dice": 0.9}, "data": ["one", "two"]}


def _model(output: OutputSpec = OUTPUT, **changes: Any) -> Model:
    torch.manual_seed(0)
    network = UNet(UNetArguments(**{"bands": 2, "width": 1, "depth": 1, **changes}))
    return build_model(network, INPUT, output, name="tiny", about=ABOUT)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_model(path, _model())
    return path


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The description in a model file, and its weights."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return json.loads(header["__metadata__"]["tilepipe"]), content


def _with_description(source: Path, target: Path, description: str) -> Path:
    content = source.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"tilepipe": description}
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return target


@pytest.mark.parametrize("normalisation", ["none", "batch"])
def test_a_saved_model_comes_back(tmp_path: Path, normalisation: str) -> None:
    model = _model(normalisation=normalisation)
    save_model(tmp_path / "tiny.safetensors", model)
    loaded = load_model(tmp_path / "tiny.safetensors")
    assert loaded.path == str(tmp_path / "tiny.safetensors")
    for name in ("name", "arguments", "geometry", "input", "output", "about", "fingerprint"):
        assert getattr(loaded, name) == getattr(model, name)
    x = torch.rand(1, 2, 44, 44)
    assert torch.equal(loaded.network(x), model.network(x))
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_names_of_bands_are_kept_and_leave_models_without_them_as_they_were(
    tiny: Path, tmp_path: Path
) -> None:
    plain = load_model(tiny)
    assert "band_names" not in _parts(tiny)[0]["input"]
    given = replace(plain.input, band_names=("red", "nir"))
    named = build_model(plain.network, given, OUTPUT, name="tiny", about=ABOUT)
    save_model(tmp_path / "named.safetensors", named)
    assert load_model(tmp_path / "named.safetensors").input.band_names == ("red", "nir")
    assert named.fingerprint != plain.fingerprint


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    model = _model(width=2)
    save_model(tmp_path / "a.safetensors", model, torch.float16)
    save_model(tmp_path / "b.safetensors", model, torch.float32)
    loaded = load_model(tmp_path / "a.safetensors")
    for ours, theirs in zip(loaded.network.parameters(), model.network.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.half().float())
    sizes = [(tmp_path / name).stat().st_size for name in ("a.safetensors", "b.safetensors")]
    assert sizes[0] < sizes[1]


def test_building_leaves_a_network_in_training_alone() -> None:
    network = UNet(UNetArguments(bands=2, width=1, depth=1)).train()
    model = build_model(network, INPUT, OUTPUT)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    ours, theirs = next(network.parameters()), next(model.network.parameters())
    assert ours.data_ptr() != theirs.data_ptr()


def test_a_copy_has_the_fingerprint_of_its_original(tiny: Path, tmp_path: Path) -> None:
    copied = tmp_path / "other.safetensors"
    copied.write_bytes(tiny.read_bytes())
    assert load_model(copied).fingerprint == load_model(tiny).fingerprint


def test_another_weight_or_another_word_is_another_fingerprint() -> None:
    one = _model()
    network = copy.deepcopy(one.network)
    assert isinstance(network, UNet)
    network.head.bias[0] += 1e-6
    assert build_model(network, INPUT, OUTPUT, about=ABOUT).fingerprint != one.fingerprint
    assert build_model(one.network, INPUT, OUTPUT, about={}).fingerprint != one.fingerprint  # type: ignore[arg-type]


def test_saving_twice_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again.safetensors", load_model(tiny))
    assert (tmp_path / "again.safetensors").read_bytes() == tiny.read_bytes()


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    model = _model()
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        save_model(tmp_path / "taken.safetensors", model)
    with pytest.raises(InputError, match="cannot be written"):
        save_model(tmp_path / "nowhere" / "m.safetensors", model)
    assert [p.name for p in tmp_path.iterdir()] == ["taken.safetensors"]


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    model = _model()
    model.network.head.bias[0] = 1e6  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=r"head\.bias holds values that are not finite"):
        save_model(tmp_path / "m.safetensors", model, torch.float16)


@pytest.mark.parametrize(
    ("output", "outputs"),
    [
        (OutputSpec("sigmoid", CLASSES, (0.4,), 0), 1),
        (OutputSpec("sigmoid", CLASSES, (0.4, 0.6)), 2),
        (OutputSpec("linear", (ClassSpec("density"),)), 1),
        (OutputSpec("softmax", CLASSES), 2),
    ],
)
def test_each_kind_of_output_comes_back(tmp_path: Path, output: OutputSpec, outputs: int) -> None:
    save_model(tmp_path / "m.safetensors", _model(output, outputs=outputs))
    assert load_model(tmp_path / "m.safetensors").output == output


def test_thresholds_left_out_are_one_half() -> None:
    assert _model(OutputSpec("sigmoid", CLASSES)).output.thresholds == (0.5, 0.5)


def test_a_larger_tile_or_margin_of_the_right_phase_is_taken(tmp_path: Path) -> None:
    network = UNet(UNetArguments(bands=2, width=1, depth=1))
    geometry = Geometry(256, 240, 12, 2)
    save_model(tmp_path / "m.safetensors", build_model(network, INPUT, OUTPUT, geometry=geometry))
    assert load_model(tmp_path / "m.safetensors").geometry == geometry


def test_one_sigmoid_output_takes_two_classes() -> None:
    with pytest.raises(InputError, match="background and foreground"):
        _model(OutputSpec("sigmoid", CLASSES[:1], background=0), outputs=1)


def test_oblong_pixels_are_refused() -> None:
    given = InputSpec(2, "uint8", 1.0, (0, 0), (1, 1), PixelSize(1, 2, "meter"))
    with pytest.raises(InputError, match="must be square"):
        build_model(UNet(UNetArguments(bands=2, width=1, depth=1)), given, OUTPUT)


MUTATIONS: list[tuple[str, Any, str]] = [
    ("format", 2, "format must be 1"),
    ("format", True, "format must be a whole number"),
    ("format", ..., "format is missing"),
    ("extra", 1, "extra is not a known key"),
    ("network", [], "network must be an object"),
    ("network.name", "resnet", "network.name must be one of unet, onnx"),
    ("network.arguments.width", True, "network.arguments.width must be a whole number"),
    ("network.arguments.width", 10**30, "network.arguments.width must be at most"),
    ("network.arguments.width", 60000, "down.0.0.weight must have the shape (60000, 2, 3, 3)"),
    ("network.arguments.depth", 9, "network.arguments.depth must be at most 8"),
    ("network.arguments.depth", 0, "network.arguments.depth must be a whole number of at least 1"),
    ("network.arguments.padding", "full", "network.arguments.padding must be one of"),
    (
        "network.arguments.padding",
        ["valid"],
        "network.arguments.padding must be one of valid, same",
    ),
    ("network.arguments.dropout", False, "network.arguments.dropout must be a number"),
    ("network.arguments.dropout", 2, "network.arguments.dropout must lie in"),
    ("network.arguments.upsampling", ..., "network.arguments.upsampling is missing"),
    ("network.arguments.groups", 2, "network.arguments.groups is not a known key"),
    ("tile.input", 573, "tile.input must be 572"),
    ("tile.input", 0, "tile.input must be"),
    ("tile.input", "572", "tile.input must be a whole number"),
    ("tile.output", 388, "tile.output must be 556"),
    ("tile.margin", 6, "tile.margin must be 8"),
    ("tile.margin", 9, "tile.margin must be 8"),
    ("tile.margin", 10**5, "tile does not hold together"),
    ("tile.stride_factor", 4, "tile.stride_factor must be 2"),
    ("tile.stride_factor", ..., "tile.stride_factor is missing"),
    ("input.bands", 3, "input.bands must be 2"),
    ("input.dtype", "complex64", "input.dtype must be one of"),
    ("input.dtype", ["uint8"], "input.dtype must be one of"),
    ("input.scale", 0, "input.scale must be a number other than 0"),
    ("input.scale", "1", "input.scale must be a number"),
    ("input.mean", [0.5], "input.mean must have 2 entries"),
    ("input.mean", 0.5, "input.mean must be a list"),
    ("input.mean", [0.5, None], "input.mean[1] must be a number"),
    ("input.std", [1, 0], "input.std[1] must be above 0"),
    ("input.std", [1, 10**400], "input.std[1] must be a finite number"),
    ("input.pixel_size.value", 0, "input.pixel_size.value must be above 0"),
    ("input.pixel_size.unit", "furlong", "input.pixel_size.unit must be one of"),
    ("input.pixel_size", 0.25, "input.pixel_size must be an object"),
    ("input.band_names", ["red"], "input.band_names must have 2 entries"),
    ("input.band_names", ["red", "Red"], "input.band_names[1] must be a name that no other band"),
    ("input.band_names", ["red", "\x1b[2J"], "input.band_names[1] must be a printable name"),
    ("input.band_names", ["red", 2], "input.band_names[1] must be a string"),
    ("output.activation", "tanh", "output.activation must be one of"),
    ("output.thresholds", [0.5], "output.thresholds must be left out"),
    ("output.classes", [], "output.classes must have 2 entries"),
    ("output.classes", {}, "output.classes must be a list"),
    ("output.classes.0", "nucleus", "output.classes[0] must be an object"),
    ("output.classes.1.name", "background", "output.classes[1].name must be a name that no other"),
    ("output.classes.1.name", " ", "output.classes[1].name must be a printable name"),
    ("output.classes.1.name", "\x1b[2J", "output.classes[1].name must be a printable name"),
    ("output.classes.1.colour", "red", "output.classes[1].colour must be a colour"),
    ("output.classes.1.colour", ..., "output.classes[1].colour is missing"),
    ("output.background", 2, "output.background must be at most 1"),
    ("output.background", True, "output.background must be a whole number"),
    ("about", "none", "about must be an object"),
]


def _mutated(description: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    description = copy.deepcopy(description)
    target: Any = description
    *path, last = key.split(".")
    for name in path:
        target = target[int(name) if isinstance(target, list) else name]
    if value is ...:
        del target[last]
    elif isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    return description


@pytest.mark.parametrize(("key", "value", "message"), MUTATIONS)
def test_the_key_at_fault_is_named(
    tiny: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    description = json.dumps(_mutated(_parts(tiny)[0], key, value))
    path = _with_description(tiny, tmp_path / "bad.safetensors", description)
    with pytest.raises(InputError) as error:
        load_model(path)
    text = str(error.value)
    assert text.startswith("bad.safetensors: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([0.5, 1.0], "output.thresholds[1] must be between 0 and 1"),
        ([0.5, 0], "output.thresholds[1] must be between 0 and 1"),
        ([0.5], "output.thresholds must have 2 entries"),
        (0.5, "output.thresholds must be a list"),
    ],
)
def test_thresholds_at_fault_are_named(
    tiny: Path, tmp_path: Path, thresholds: Any, message: str
) -> None:
    description = _parts(tiny)[0]
    description["output"] |= {
        "activation": "sigmoid",
        "background": None,
        "thresholds": thresholds,
    }
    path = _with_description(tiny, tmp_path / "bad.safetensors", json.dumps(description))
    with pytest.raises(InputError) as error:
        load_model(path)
    assert message in str(error.value)


def test_more_than_255_classes_leave_no_label_for_no_answer() -> None:
    classes = tuple(ClassSpec(f"class {i}") for i in range(256))
    with pytest.raises(InputError, match="at most 255"):
        _model(OutputSpec("softmax", classes), outputs=256)
    assert len(_model(OutputSpec("softmax", classes[:255]), outputs=255).output.classes) == 255


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"format": NaN}',
        '{"format": 1e999}',
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        '{"format": 1}',
    ],
    ids=lambda text: text[:12],
)
def test_text_that_is_no_description_is_refused(tiny: Path, tmp_path: Path, text: str) -> None:
    path = _with_description(tiny, tmp_path / "bad.safetensors", text)
    with pytest.raises(InputError, match=r"bad\.safetensors: "):
        load_model(path)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_even_in_about(
    tiny: Path, tmp_path: Path, number: str
) -> None:
    text = json.dumps(_parts(tiny)[0]).replace("0.9", number)
    path = _with_description(tiny, tmp_path / "bad.safetensors", text)
    with pytest.raises(InputError, match=r"about\.metrics\.dice must be a finite number"):
        load_model(path)


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_about_is_not_nested_without_end(tiny: Path, tmp_path: Path) -> None:
    description = _parts(tiny)[0] | {"about": {"x": _deep(200)}}
    path = _with_description(tiny, tmp_path / "bad.safetensors", json.dumps(description))
    with pytest.raises(InputError, match="nested deeper"):
        load_model(path)


def _resaved(tiny: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    tensors = dict(load_model(tiny).network.state_dict())
    change(tensors)
    save_file(tensors, target, metadata={"tilepipe": json.dumps(_parts(tiny)[0])})
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bias"), r"lacks head\.bias$"),
        (lambda t: t.update(extra=torch.zeros(1)), r"has an unexpected extra$"),
        (lambda t: t.update({"head.bias": torch.zeros(3)}), r"tensor head\.bias must have the sh"),
        (lambda t: t.update({"head.bias": torch.tensor([0, torch.nan])}), r"head\.bias holds val"),
        (lambda t: t.update({"head.bias": torch.tensor([0, torch.inf])}), r"head\.bias holds val"),
        (lambda t: t.update({"head.bias": torch.zeros(2).int()}), r"must be F32 or F16, found I32"),
    ],
)
def test_the_tensor_at_fault_is_named(
    tiny: Path,
    tmp_path: Path,
    change: Callable[[dict[str, torch.Tensor]], object],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(_resaved(tiny, tmp_path / "bad.safetensors", change))


def test_weights_without_a_description_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "plain.safetensors").write_bytes(save({"a": torch.zeros(1)}))
    with pytest.raises(InputError, match="no description under the metadata key 'tilepipe'"):
        load_model(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_unread(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"PyTorch pickle.*tilepipe\.models\.import_state_dict"):
        load_model(path)


def test_a_header_that_begins_as_a_pickle_does_is_still_read(tmp_path: Path) -> None:
    for length in range(200):
        save_model(
            tmp_path / "m.safetensors",
            build_model(
                UNet(UNetArguments(bands=2, width=1, depth=1)),
                INPUT,
                OUTPUT,
                about={"x": "x" * length},
            ),
        )
        if (tmp_path / "m.safetensors").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header began with 0x80")
    load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(tiny: Path, tmp_path: Path, keep: float) -> None:
    content = tiny.read_bytes()
    stop = int(len(content) * keep) if isinstance(keep, float) else keep
    (tmp_path / "bad.safetensors").write_bytes(content[:stop])
    with pytest.raises(InputError, match="is damaged or not a safetensors file"):
        load_model(tmp_path / "bad.safetensors")


def test_a_name_that_is_no_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no model is called 'cells'"):
        load_model("cells")
    with pytest.raises(InputError, match="there is no such file"):
        load_model("cells.safetensors")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a model file"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", shipped_models())
def test_every_shipped_model_loads(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert {"data", "data_licence", "licence", "metrics", "limits"} <= set(model.about)


def test_any_damage_is_an_input_error_or_harmless(tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    chance = random.Random(0)
    path = tmp_path / "fuzz.safetensors"
    complaints = []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            end = chance.choice((8, header, header, len(content)))
            content[chance.randrange(end)] = chance.choice((chance.randrange(256), 48, 34, 255))
        if chance.random() < 0.1:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            load_model(path)
        except InputError as error:
            complaints.append(str(error))
    assert len(complaints) > 200
    assert not any("\n" in text for text in complaints)


@pytest.mark.slow
def test_any_value_in_the_wrong_place_is_an_input_error_or_harmless(
    tiny: Path, tmp_path: Path
) -> None:
    description = _parts(tiny)[0]
    values = (None, True, 0, -1, 1.5, 10**40, "", "\ud800", [], {}, [[]], {"a": {}})

    def keys(value: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        children = value.items() if isinstance(value, dict) else enumerate(value)
        found = []
        for name, child in children:
            found.append((*prefix, str(name)))
            if isinstance(child, dict | list):
                found += keys(child, (*prefix, str(name)))
        return found

    for key in keys(description):
        for value in values:
            text = json.dumps(_mutated(description, ".".join(key), value))
            path = _with_description(tiny, tmp_path / "bad.safetensors", text)
            try:
                load_model(path)
            except InputError as error:
                str(error).encode()


def test_a_state_dict_becomes_a_model(tmp_path: Path) -> None:
    network = UNet(UNetArguments(bands=2, width=1, depth=1, normalisation="batch"))
    torch.save(network.state_dict(), tmp_path / "tiny.pt")
    model = import_state_dict(tmp_path / "tiny.pt", network.arguments, INPUT, OUTPUT)
    assert model.name == "tiny"
    assert model.fingerprint == build_model(network, INPUT, OUTPUT).fingerprint


def test_a_state_dict_of_another_network_is_refused_with_its_keys(tmp_path: Path) -> None:
    state = UNet(UNetArguments(bands=2, width=1, depth=1)).state_dict()
    state["conv.weight"] = state.pop("head.weight")
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"lacks head\.weight and has an unexpected conv\.weight"):
        import_state_dict(
            tmp_path / "m.pt", UNetArguments(bands=2, width=1, depth=1), INPUT, OUTPUT
        )


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code from the file was run",)


@pytest.mark.parametrize("content", [_RunsCode(), [1, 2], {"a": 1}])
def test_a_pickle_of_anything_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(InputError, match="state dict"):
        import_state_dict(tmp_path / "m.pt", UNetArguments(), INPUT, OUTPUT)
