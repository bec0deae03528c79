"""Data sets drawn with integers only, so that every version of NumPy and Pillow draws the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("cross", "disc", "frame")
COLOURS = {"disc": (220, 40, 40), "square": (40, 80, 220)}
_VOC = (
    "<annotation><filename>{name}</filename><size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
)
_OBJECT = (
    "<object><name>{label}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
    "<ymax>{box[3]}</ymax></bndbox></object>"
)


def shapes(root: Path, counts: dict[str, int], side: int = 32, seed: int = 0) -> Path:
    """Class folders ``root/KIND/N.png``: a shape of random colour, position and size on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    for kind, count in counts.items():
        (root / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
            radius = int(rng.integers(side // 5, side // 3))
            left, top = rng.integers(radius, side - radius, 2)
            across, down = abs(x - left), abs(y - top)
            pixels[_covered(kind, across, down, radius)] = rng.integers(140, 256, 3)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
    return root


def _covered(kind: str, across: np.ndarray, down: np.ndarray, radius: int) -> np.ndarray:
    if kind == "disc":
        return across**2 + down**2 <= radius**2
    inside = np.maximum(across, down) <= radius
    if kind == "frame":
        return inside & (np.maximum(across, down) > radius - 2)
    return inside & (abs(across - down) <= 1)


def objects(root: Path, counts: dict[str, int], side: int = 64, seed: int = 0, most: int = 2) -> Path:
    """``root/SPLIT/images/N.png`` with one to ``most`` discs and squares, and Pascal VOC boxes beside them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    for split, count in counts.items():
        for folder in ("images", "annotations"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(90, 150, (side, side, 3), dtype=np.uint8)
            text = _VOC.format(name=f"{number}.png", side=side)
            for part in range(1 + number % most):
                label = ("disc", "square")[int(rng.integers(2))]
                size = int(rng.integers(side // 4, side // 2 - 2))
                left = part * side // 2 + int(rng.integers(0, side // 2 - size + 1))
                top = int(rng.integers(0, side - size))
                covered = (x >= left) & (x < left + size) & (y >= top) & (y < top + size)
                if label == "disc":
                    covered &= (2 * x + 1 - 2 * left - size) ** 2 + (2 * y + 1 - 2 * top - size) ** 2 <= size**2
                pixels[covered] = COLOURS[label]
                text += _OBJECT.format(label=label, box=(left + 1, top + 1, left + size, top + size))
            Image.fromarray(pixels).save(root / split / "images" / f"{number}.png")
            (root / split / "annotations" / f"{number}.xml").write_text(text + "</annotation>\n")
    return root
