r"""Write what `tilepipe evaluate --json` found into a model's card.

    python workflows/write_card.py nuclei-he.safetensors evaluation.json nuclei \
        --on "TNBC patients 07 and 08, which were not trained on"

The third argument is the class that counts. The figures stand under `metrics`; the weights, and
what else the card says, stay as they are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilepipe.models.file import exact_dtype, load_model, save_model


def metrics_of(document: dict[str, Any], label: str, images: str) -> dict[str, Any]:
    """The figures of a card: means over images, their 95 % intervals, and each image's Dice."""
    over = document["over_images"]
    metrics: dict[str, Any] = {}
    named = [(metric, over["classes"][label][metric]) for metric in ("dice", "iou")]
    if "objects" in over:
        named += [(f"object_{metric}", over["objects"][metric]) for metric in ("f1", "aji")]
    for metric, found in named:
        metrics[metric] = round(found["mean"], 4)
        metrics[f"{metric}_95_percent"] = [round(found["low"], 4), round(found["high"], 4)]
    metrics["on"] = images
    metrics["images"] = document["images"]
    metrics["note"] = "means over images, with 95 % bootstrap intervals over images"
    return metrics


def main() -> None:
    """Read, put in, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("label")
    parser.add_argument("--on", required=True, metavar="IMAGES", help="what was judged, in words")
    options = parser.parse_args()
    model = load_model(options.model)
    found = metrics_of(json.loads(options.evaluation.read_text()), options.label, options.on)
    about = {k: v for k, v in model.about.items() if k != "metrics"}
    made = replace(model, about={**about, "metrics": found})
    save_model(options.model, made, dtype=exact_dtype(model))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
