"""What the parts of a training are worth: short runs of equal length, judged on unseen patients.

    python benchmarks/training.py TNBC_FOLDER [--steps 800]

TNBC_FOLDER holds images/ and masks/ of Naylor et al. 2018. Each run trains a small U-Net (width 8)
on patients 01 to 06 for the same number of steps; its last weights are judged on 07 and 08.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import WORK, command_line, parse, record

import tilepipe

BASE: dict[str, Any] = {
    "labels": "instances", "classes": ["background", "nucleus"], "pixel_size": 0.25,
    "validation": "07_*,08_*", "keep": "last", "metric": "object-f1",
    "width": 8, "normalisation": "batch", "class_weights": "1,2", "border_weight": 10.0,
    "scale": 1.4, "hed": 0.3, "brightness": 0.2, "contrast": 0.2, "lr": 0.003, "average": 0.99,
}  # fmt: skip
PLAIN = {
    "flips": False, "rotate": False, "scale": 1.0, "elastic": 0.0, "hed": 0.0,
    "brightness": 0.0, "contrast": 0.0,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "valid, weight map, augmentation": {},
    "padded": {"padding": "same"},
    "without weight map": {"border_weight": 0.0},
    "without augmentation": PLAIN,
    "without elastic deformation": {"elastic": 0.0},
    "three classes (border of 4 px)": {
        "border": 4.0, "class_weights": "1,2,2", "classes": ["background", "nucleus", "border"],
    },
}  # fmt: skip


def main() -> None:
    """Run all cases, or those named."""
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--case", action="append", choices=list(CASES))
    options = parse(parser, steps=2)
    for number, case in enumerate(CASES):
        if options.case and case not in options.case:
            continue
        summary = tilepipe.train(
            options.folder, WORK / f"training_{number}.safetensors", overwrite=True,
            steps=options.steps, validate_every=options.steps, threads=options.threads,
            **{**BASE, **CASES[case]},
        )  # fmt: skip
        scores = summary.scores
        record(
            "training", f"TNBC 07 and 08, width 8, {options.steps} steps: {case}",
            [
                ("mean Dice of the images", scores["image_dice"], "", ""),
                ("F1 of objects at IoU 0.5", scores["object-f1"], "", ""),
                ("time", summary.seconds / 60, "min", "<= 10"),
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
