"""Instance segmentation of painted shapes whose masks are known: average precision on images that were held out.

    python benchmarks/painted_shapes.py [--train 80] [--test 40] [--epochs N] [--model mask_rcnn] [--out DIR]

Discs, squares and triangles of random colours, sizes and rotations on a mottled ground, up to six in an image; those
painted later hide those before, whose masks are what is left to be seen. Trains as ``hubel train --task instances``
does, from the network's pretrained backbone, and scores the weights that did best on the validation images. Exits with
1 if the mask AP50 of the test images is below 0.95.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import hubel
from hubel.masks import encode, mask_area, mask_box

CLASSES = ("disc", "square", "triangle")
TARGET = 0.95
FINE = 4  # times as large are shapes painted, so that their edges are smooth


def main() -> None:
    """Paint, train, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=80, help="images")
    parser.add_argument("--test", type=int, default=40, help="images, and half as many for validation")
    parser.add_argument("--side", type=int, default=192, help="of an image in pixels")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--model", default="mask_rcnn")
    parser.add_argument("--backbone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="folder of the images and the run; by default they are removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        counts = {"train": arguments.train, "val": arguments.test // 2, "test": arguments.test}
        paint(folder / "shapes", counts, arguments.side, arguments.seed)
        result = hubel.train(
            folder / "shapes",
            out=folder / "run",
            task="instances",
            model=arguments.model,
            backbone=arguments.backbone,
            image_size=arguments.side,
            epochs=arguments.epochs,
            seed=arguments.seed,
            threads=arguments.threads,
        )
    metrics = result.scores["test"].to_json()["metrics"]
    for name in ("mask_AP50", "mask_AP75", "mask_AP", "boundary_AP", "AP50", "AP"):
        print(f"{name:<12} {metrics[name]:.4f}")
    print(f"{result.seconds:.0f} s, best epoch {result.best_epoch}")
    if metrics["mask_AP50"] < TARGET:
        raise SystemExit(f"mask AP50 is below {TARGET}")


def paint(root: Path, counts: dict[str, int], side: int = 192, seed: int = 0, most: int = 6) -> Path:
    """Write images of splits, and the masks of the shapes in COCO's format: ``SPLIT/N.png``, ``SPLIT/labels.json``.

    There are ``most`` shapes in an image at most.
    """
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        document: dict[str, Any] = {"images": [], "annotations": []}
        document["categories"] = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
        for image in range(1, count + 1):
            pixels, labels, masks = painted(rng, side, int(rng.integers(1, most + 1)))
            name = f"{image:04d}.png"
            Image.fromarray(pixels).save(root / split / name)
            document["images"].append({"id": image, "file_name": name, "width": side, "height": side})
            for label, mask in zip(labels, masks, strict=True):
                shown = encode(mask)
                x1, y1, x2, y2 = mask_box(shown)
                row = {"id": len(document["annotations"]) + 1, "image_id": image, "category_id": label + 1}
                row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": mask_area(shown), "iscrowd": 0}
                document["annotations"].append(row | {"segmentation": shown.to_coco()})
        (root / split / "labels.json").write_text(json.dumps(document))
    return root


def painted(rng: np.random.Generator, side: int, count: int) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """An image, uint8 (side, side, 3), the classes of its shapes, and what is seen of each, bool (side, side)."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = 0.4 * np.asarray(coarse, np.float64) + 80 + rng.normal(0, 8, (side, side, 3))
    owner = np.zeros((side, side), int)
    labels = []
    for number in range(1, count + 1):
        label = int(rng.integers(len(CLASSES)))
        cover = _shape(rng, CLASSES[label], side)
        colour = rng.integers(0, 256, 3) + rng.normal(0, 6, (side, side, 3))
        pixels += cover[..., None] * (colour - pixels)
        owner[cover >= 0.5] = number
        labels.append(label)
    masks = [owner == number for number in range(1, count + 1)]
    seen = [index for index, mask in enumerate(masks) if mask.sum() >= 50]
    return pixels.clip(0, 255).astype(np.uint8), [labels[index] for index in seen], [masks[index] for index in seen]


def _shape(rng: np.random.Generator, kind: str, side: int) -> np.ndarray:
    """The part of each pixel that a shape of random size, place and rotation covers, 0..1, float64 (side, side)."""
    radius = side * rng.uniform(0.08, 0.22)
    x, y = rng.uniform(radius / 2, side - radius / 2, 2)
    canvas = Image.new("L", (FINE * side, FINE * side))
    corners = {"disc": 64, "square": 4, "triangle": 3}[kind]
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    points = np.stack((x + radius * np.cos(angles), y + radius * np.sin(angles)), 1) * FINE
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=255)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float64) / 255


if __name__ == "__main__":
    main()
