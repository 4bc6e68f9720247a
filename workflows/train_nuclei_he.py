"""Train the shipped model `nuclei-he`: a small valid U-Net for nuclei in H&E.

    python workflows/train_nuclei_he.py TNBC_FOLDER -o nuclei-he.safetensors

TNBC_FOLDER holds `images/` and `masks/` of the TNBC set (Naylor et al. 2018, Zenodo 1175282,
CC BY 4.0): 512 x 512 RGB at 0.25 um/px, names beginning with the patient's number. Patients 01
to 07 are trained on; 08 is only looked at, and its Dice is written into the model file.

The network trains with batch normalisation and is saved without: in inference a batch
normalisation is an affine map per channel, and folds exactly into the convolution before it.
"""

from __future__ import annotations

import argparse
import csv
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tilepipe.images.base import PixelSize
from tilepipe.models.file import build_model, save_model
from tilepipe.models.specs import ClassSpec, InputSpec, OutputSpec
from tilepipe.models.unet import DoubleConvolution, UNet, UNetArguments

INPUT, OUTPUT, MARGIN = 572, 388, 92
HELD_OUT = "08"
ARGUMENTS = UNetArguments(width=16, normalisation="batch", dropout=0.2)

# Ruifrok and Johnston 2001: optical densities of haematoxylin, eosin and DAB in R, G, B.
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def load(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Each image as (3, H, W) in 0..1 and its mask as (H, W) of 0 and 1, by stem."""
    pairs = {}
    for path in sorted((folder / "images").glob("*.png")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        mask = np.asarray(Image.open(folder / "masks" / path.name).convert("L")) > 127
        pairs[path.stem] = (
            torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255,
            torch.from_numpy(mask.astype(np.int64)),
        )
    if not pairs:
        raise SystemExit(f"{folder}: no images/*.png here")
    return pairs


def sample(image: Tensor, mask: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random tile: 572 in, 388 out, mirrored at the image's border, bent and restained."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=rng))

    height, width = mask.shape
    angle = uniform(0, 2 * np.pi)
    scale = np.exp(uniform(np.log(0.8), np.log(1.25)))
    flip = 1.0 if uniform(0, 1) < 0.5 else -1.0
    centre = torch.tensor([uniform(0, width - 1), uniform(0, height - 1)])
    rotate = (
        torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    ).float() @ torch.diag(torch.tensor([flip, 1.0]))
    steps = torch.arange(INPUT) - (INPUT - 1) / 2
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1) @ rotate.T + centre
    # The paper's elastic deformation: displacements of 10 px on a coarse 3x3 grid, bicubic between.
    coarse = torch.randn(1, 2, 3, 3, generator=rng) * 10
    bend = functional.interpolate(coarse, size=(INPUT, INPUT), mode="bicubic", align_corners=True)
    grid = grid + bend[0].permute(1, 2, 0)
    grid = 2 * grid / torch.tensor([width - 1, height - 1]) - 1

    pixels = functional.grid_sample(
        restain(image, rng)[None], grid[None], padding_mode="reflection", align_corners=True
    )[0]
    labels = functional.grid_sample(
        mask[None, None].float(),
        grid[None, MARGIN:-MARGIN, MARGIN:-MARGIN],
        mode="nearest",
        padding_mode="reflection",
        align_corners=True,
    )[0, 0].long()
    return pixels, labels


def restain(image: Tensor, rng: torch.Generator) -> Tensor:
    """More or less of each stain, and a little more or less light."""
    density = -torch.log(image.clamp_min(1 / 255)).permute(1, 2, 0)
    amounts = density @ torch.linalg.inv(STAINS)
    gain = 1 + 0.25 * (2 * torch.rand(3, generator=rng) - 1)
    offset = 0.06 * (2 * torch.rand(3, generator=rng) - 1)
    pixels = torch.exp(-((amounts * gain + offset) @ STAINS)).clamp(0, 1).permute(2, 0, 1)
    return (pixels * (1 + 0.1 * (2 * torch.rand(1, generator=rng) - 1))).clamp(0, 1)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, nuclei weighing twice, plus one minus the soft Dice of the nuclei."""
    entropy = functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0]))
    nucleus = logits.softmax(1)[:, 1]
    overlap = (nucleus * labels).sum()
    return entropy + 1 - (2 * overlap + 1) / (nucleus.sum() + labels.sum() + 1)


@torch.inference_mode()
def dice(network: nn.Module, image: Tensor, mask: Tensor, mean: Tensor, std: Tensor) -> float:
    """Dice of the nuclei over one whole image, in one exact window."""
    side = image.shape[-1]
    window = side + (-side % 16) + 2 * MARGIN + 4
    index = torch.from_numpy(
        np.pad(np.arange(side), (MARGIN, window - side - MARGIN), mode="reflect")
    )
    x = image[:, index][:, :, index]
    labels = network(((x - mean) / std)[None]).argmax(1)[0, :side, :side]
    return float(2 * (labels & mask).sum() / (labels.sum() + mask.sum()).clamp_min(1))


def fold_batch_normalisation(network: UNet) -> UNet:
    """The same function without batch normalisation (exact in inference) and dropout."""
    plain = UNet(replace(network.arguments, normalisation="none", dropout=0.0)).eval()
    plain.head.load_state_dict(network.head.state_dict())
    plain.up.load_state_dict(network.up.state_dict())
    doubles = zip([*network.down, *network.merge], [*plain.down, *plain.merge], strict=True)
    for source, target in doubles:
        assert isinstance(source, DoubleConvolution)
        convolutions = [m for m in target if isinstance(m, nn.Conv2d)]
        for i, convolution in enumerate(convolutions):
            fused = nn.utils.fusion.fuse_conv_bn_eval(source[3 * i], source[3 * i + 1])
            convolution.load_state_dict(fused.state_dict())
    return plain


def train(
    pairs: dict[str, tuple[Tensor, Tensor]], minutes: float, seed: int, log: Path
) -> tuple[UNet, Tensor, Tensor]:
    """Train for a given time; returns the averaged network and the input's mean and std."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    training = [pair for stem, pair in pairs.items() if not stem.startswith(HELD_OUT)]
    looked_at = {stem: pair for stem, pair in pairs.items() if stem.startswith(HELD_OUT)}
    stacked = torch.stack([image for image, _ in training])
    mean = stacked.mean((0, 2, 3)).reshape(3, 1, 1)
    std = stacked.std((0, 2, 3)).reshape(3, 1, 1)

    network = UNet(ARGUMENTS).to(memory_format=torch.channels_last)
    average = deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    begin, step, peak = time.perf_counter(), 0, 3e-3
    with log.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "seconds", "loss", "dice_08"])
        while (done := (time.perf_counter() - begin) / (60 * minutes)) < 1:
            warm = min(1.0, done / 0.05)
            for group in optimiser.param_groups:
                group["lr"] = peak * warm * (0.5 * (1 + np.cos(np.pi * done)) + 1e-3)
            chosen = torch.randint(len(training), (2,), generator=rng).tolist()
            tiles = [sample(*training[i], rng) for i in chosen]
            x = ((torch.stack([t[0] for t in tiles]) - mean) / std).contiguous(
                memory_format=torch.channels_last
            )
            labels = torch.stack([t[1] for t in tiles])
            network.train()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(x)
            loss = loss_of(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
            # A moving average of the weights generalises better than any one of them.
            share = min(0.995, step / (step + 10))
            with torch.no_grad():
                ours, theirs = average.state_dict(), network.state_dict()
                for name, value in ours.items():
                    if value.is_floating_point():
                        value.lerp_(theirs[name], 1 - share)
            if step % 200 == 0:
                score = np.mean([dice(average, *pair, mean, std) for pair in looked_at.values()])
                seconds = time.perf_counter() - begin
                rows.writerow(
                    [step, round(seconds), round(float(loss.detach()), 4), round(score, 4)]
                )
                file.flush()
                print(
                    f"step {step}  {seconds:.0f} s  loss {float(loss.detach()):.3f}  "
                    f"Dice 08 {score:.4f}"
                )
    return average, mean, std


def main() -> None:
    """Train, judge, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = load(options.folder)
    trained, mean, std = train(
        pairs, options.minutes, options.seed, options.output.with_suffix(".csv")
    )
    network = fold_batch_normalisation(trained)
    # Judged as it will be used: folded, and with the half-precision weights of the file.
    network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    scores = {
        stem: round(dice(network, *pair, mean, std), 4)
        for stem, pair in pairs.items()
        if stem.startswith(HELD_OUT)
    }
    print("Dice on held-out images:", scores, "mean", np.mean(list(scores.values())))
    save(network, mean, std, scores, options.output)


def save(network: UNet, mean: Tensor, std: Tensor, scores: dict[str, float], path: Path) -> None:
    """Write the model file, its weights as float16 (3.9 MB)."""
    model = build_model(
        network,
        InputSpec(
            bands=3,
            dtype="uint8",
            scale=1 / 255,
            mean=tuple(round(float(m), 6) for m in mean.flatten()),
            std=tuple(round(float(s), 6) for s in std.flatten()),
            pixel_size=PixelSize(0.25, 0.25, "micrometer"),
        ),
        OutputSpec(
            activation="softmax",
            classes=(ClassSpec("background", "#000000"), ClassSpec("nucleus", "#00a0ff")),
            background=0,
        ),
        name=path.stem,
        about={
            "finds": "nuclei in haematoxylin and eosin (H&E) at 40x",
            "data": "TNBC, Naylor et al. 2018, Zenodo 1175282; patients 01 to 07",
            "data_licence": "CC BY 4.0",
            "licence": "BSD-3-Clause",
            "trained_by": "workflows/train_nuclei_he.py",
            "metrics": {
                "dice_patient_08": round(float(np.mean(list(scores.values()))), 4),
                "dice_by_image": scores,
                "note": "patient 08 was never trained on, but was watched during training; "
                "fields of 512 x 512, mean of the images' Dice",
            },
            "limits": "breast cancer of one laboratory and scanner; not for diagnosis",
        },
    )
    save_model(path, model, dtype=torch.float16)


if __name__ == "__main__":
    main()
