"""Pictures of coloured discs and squares with their boxes: a data set that a small detector learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hubel.data.annotations import LabelledDataset, LabelledImage, LabelledObject, write_annotations

COLOURS = {"disc": (220, 40, 40), "square": (40, 80, 220)}
SIDE = 96


def painted(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Pictures of one or two large discs and squares on noise, with their boxes, as Pascal VOC."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, count in counts.items():
        images = []
        for number in range(count):
            picture = Image.fromarray(rng.integers(90, 150, (SIDE, SIDE, 3), dtype=np.uint8))
            objects = []
            for left in (0, SIDE // 2)[: 1 + number % 2]:
                label = int(rng.integers(2))
                side = int(rng.integers(26, 44))
                x, y = left + int(rng.integers(0, SIDE // 2 - side + 1)), int(rng.integers(0, SIDE - side))
                draw = ImageDraw.Draw(picture)
                shape = draw.ellipse if label == 0 else draw.rectangle
                shape((x, y, x + side - 1, y + side - 1), fill=list(COLOURS.values())[label])
                objects.append(LabelledObject(label, (x, y, x + side, y + side)))
            path = root.parent / "painted" / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            images.append(LabelledImage(path, SIDE, SIDE, tuple(objects)))
        splits[split] = tuple(images)
    write_annotations(LabelledDataset(root.parent / "painted", tuple(COLOURS), splits), "voc", root)
    return root
