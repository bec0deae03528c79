"""Draw the images of the page "Look twice": what each stage of a Faster R-CNN sees of flowers.

    python docs/draw_two_looks.py [RUN]

Flowers, cut out of scikit-learn's ``flower.jpg``, are pasted into parts of its ``china.jpg``: a set of photographs with
known boxes. A small Faster R-CNN is trained on them for some minutes, unless ``RUN`` is one that was, and looks at an
image that it has not seen.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn import datasets

import hubel
from hubel.models import load_model
from hubel.models.detection.two_stage.roi_align import PyramidRoIAlign

IMAGES = Path(__file__).resolve().parent / "images"
PHOTOGRAPHS = Path(datasets.__file__).parent / "images"
SIZE = 240
SMALL = {"pyramid_channels": 48, "features": 64, "proposals": 100, "training_proposals": 200, "regions": 32}
_FLOWER = (85, 45, 425, 405)  # of flower.jpg
_SHOWN, _SIDE = 6, 112  # proposals whose squares are shown; pixels of a side


def draw_scene(random: np.random.Generator) -> tuple[Image.Image, list[list[float]]]:
    """A part of china.jpg with one to three flowers that do not touch, and their boxes: x, y, width, height."""
    china = Image.open(PHOTOGRAPHS / "china.jpg")
    left, top = (int(random.integers(0, side - SIZE)) for side in china.size)
    scene = china.crop((left, top, left + SIZE, top + SIZE))
    flower = Image.open(PHOTOGRAPHS / "flower.jpg").crop(_FLOWER)
    boxes: list[list[float]] = []
    for _ in range(int(random.integers(1, 4))):
        side = int(random.integers(36, 110))
        x, y = (int(random.integers(0, SIZE - side)) for _ in range(2))
        if any(abs(x - ox) < max(side, other) and abs(y - oy) < max(side, other) for ox, oy, other, _ in boxes):
            continue
        mask = Image.new("L", flower.size)
        ImageDraw.Draw(mask).ellipse((4, 4, flower.width - 5, flower.height - 5), fill=255)
        turned = flower.rotate(float(random.uniform(0, 360)), Image.Resampling.BICUBIC).resize((side, side))
        scene.paste(turned, (x, y), mask.resize((side, side)))
        boxes.append([x, y, side, side])
    return scene, boxes


def write_set(folder: Path, counts: dict[str, int]) -> None:
    """Scenes as COCO JSON, a folder for each split."""
    random = np.random.default_rng(0)
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            scene, boxes = draw_scene(random)
            scene.save(folder / split / f"{number}.jpg", quality=95)
            images.append({"id": number, "file_name": f"{number}.jpg", "width": SIZE, "height": SIZE})
            for box in boxes:
                row = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box}
                annotations.append({**row, "area": box[2] * box[3], "iscrowd": 0})
        data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "flower"}]}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(data))


def train(folder: Path) -> Path:
    """The run of a small Faster R-CNN."""
    write_set(folder / "flowers", {"train": 40, "val": 4})
    hubel.train(
        folder / "flowers",
        out=folder / "run",
        task="detect",
        model="faster_rcnn",
        options=SMALL,
        image_size=160,
        epochs=6,
        batch=8,
        augmentation="flip",
        workers=0,
        precision="float32",
    )
    return folder / "run"


def draw(run: Path) -> None:
    """``two-looks-proposals.jpg`` and ``two-looks-squares.png``."""
    network, metadata = load_model(run / "best")
    ready = metadata.preprocessing
    scene, _ = draw_scene(np.random.default_rng(7))
    pixels = torch.from_numpy(ready.pixels(scene).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        outputs = network.eval()(ready.normalize(pixels))
    proposals = outputs["proposals"][0]
    scores = outputs["scores"][0].softmax(1)[:, 1]
    count = int((proposals[:, 2] > proposals[:, 0]).sum())
    print(f"{count} proposals; the second stage gives {int((scores[:count] > 0.5).sum())} more than 0.5")

    scale = 2 * SIZE / ready.width
    shown = scene.resize((2 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC)
    first, second = shown.copy(), shown.copy()
    for box in (scale * proposals[:count]).flip(0).tolist():
        ImageDraw.Draw(first).rectangle(box, outline=(255, 255, 255), width=1)
    for box in (scale * proposals[:_SHOWN]).tolist():
        ImageDraw.Draw(first).rectangle(box, outline=(230, 80, 0), width=3)
    for result in hubel.Predictor(run, engine="torch", iou=0.3)([scene]):
        for box in (2 * result.boxes).tolist():
            ImageDraw.Draw(second).rectangle(box, outline=(86, 180, 233), width=4)
    beside(first, second).save(IMAGES / "two-looks-proposals.jpg", quality=78)

    # RoIAlign, of the photograph itself instead of a map of features: what is in each proposal's square.
    rows = torch.cat((torch.zeros(_SHOWN, 1), proposals[:_SHOWN]), 1)
    fine, coarse = (PyramidRoIAlign((1,), side)([pixels.float()], rows) for side in (_SIDE, 7))
    squares = Image.new("RGB", (_SHOWN * (_SIDE + 8) - 8, 2 * _SIDE + 8 + 22), "white")
    for column in range(_SHOWN):
        for row, values in enumerate((fine, coarse)):
            square = Image.fromarray(values[column].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())
            at = (column * (_SIDE + 8), row * (_SIDE + 8))
            squares.paste(square.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), at)
        words = f"flower {scores[column]:.0%}"
        ImageDraw.Draw(squares).text((column * (_SIDE + 8) + 4, 2 * _SIDE + 13), words, fill=(51, 58, 69))
    squares.quantize(256, dither=Image.Dither.NONE).save(IMAGES / "two-looks-squares.png", optimize=True)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two images of one size, with a gap of 12 pixels."""
    both = Image.new("RGB", (2 * left.width + 12, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 12, 0))
    return both


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        draw(Path(sys.argv[1]) if sys.argv[1:] else train(Path(name)))
