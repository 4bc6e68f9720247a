"""A model's description reads well and stays within 88 columns."""

from __future__ import annotations

from dataclasses import replace

from tilepipe.images.base import PixelSize
from tilepipe.models import ClassSpec, InputSpec, Model, OutputSpec, UNet, build_model, preset
from tilepipe.models.describe import describe

INPUT = InputSpec(3, "uint8", 1 / 255, (0.5,) * 3, (0.2,) * 3, PixelSize(0.25, 0.25, "micrometer"))
CLASSES = (ClassSpec("background", "#000000"), ClassSpec("nucleus", "#ff7f0e"))


def _model(output: OutputSpec, outputs: int = 2, about: dict[str, object] | None = None) -> Model:
    network = UNet(preset("unet-small", width=2, outputs=outputs))
    return build_model(network, INPUT, output, name="nuclei", about=about)


def test_a_model_is_described_in_the_words_of_the_field() -> None:
    about = {
        "source": "trained for this test",
        "data": {"images": 30, "split": {"train": 24, "test": 6}},
        "metrics": {"dice": 0.8123456789, "balanced": True, "none_yet": None},
        "runs": [{"seed": 1}, {"seed": 2}],
    }
    model = _model(OutputSpec("softmax", CLASSES, background=0), about=about)
    model = replace(model, path="nuclei.safetensors", fingerprint="0" * 64)
    assert describe(model).splitlines() == [
        "nuclei: finds nucleus",
        "",
        "classes         0  background  (#000000, background)",
        "                1  nucleus  (#ff7f0e)",
        "pixel size    0.25 micrometer",
        "input         3 bands of uint8; x / 255, minus (0.5, 0.5, 0.5), over (0.2, 0.2, 0.2)",
        "network       U-Net, 2 channels wide, 4 poolings deep, unpadded 3x3 convolutions, 2x2",
        "              up-convolutions, softmax over 2 outputs; 30,570 parameters, 0.1 MB in",
        "              memory",
        "tile          572 in, 388 out, step 384, margin 92, stride factor 16",
        "source        trained for this test",
        "data",
        "  images      30",
        "  split",
        "    train     24",
        "    test      6",
        "metrics",
        "  dice        0.812346",
        "  balanced    yes",
        "  none yet    none",
        "runs",
        "  1",
        "    seed      1",
        "  2",
        "    seed      2",
        "file          nuclei.safetensors",
        "fingerprint   " + "0" * 64,
    ]


def test_sigmoid_outputs_show_their_thresholds() -> None:
    assert "1  nucleus  (#ff7f0e, from 0.4)" in describe(
        _model(OutputSpec("sigmoid", CLASSES, (0.4,), 0), outputs=1)
    )
    assert "1  nucleus  (#ff7f0e, from 0.6, a plane of its own)" in describe(
        _model(OutputSpec("sigmoid", CLASSES, (0.4, 0.6)))
    )


def test_a_linear_model_measures() -> None:
    text = describe(_model(OutputSpec("linear", (ClassSpec("density"),)), outputs=1))
    assert text.startswith("nuclei: measures density\n")


def test_no_line_is_wider_than_88_columns_and_nothing_controls_the_terminal() -> None:
    deep: dict[str, object] = {"end": "word " * 50}
    for level in range(12):
        deep = {f"level {level} " + "x" * 30: deep, "y" * 200: "z" * 200}
    about = {"long": "word " * 100, "escape\x1b[2J": "\x1b[2J\n", "deep": deep, "list": [1.5] * 99}
    text = describe(_model(OutputSpec("softmax", CLASSES), about=about))
    assert max(len(line) for line in text.splitlines()) <= 88
    assert "\x1b" not in text
    assert "word word" in text
