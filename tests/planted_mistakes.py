"""A small sound data set on disk, to plant mistakes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from hubel.data.annotations import LabelledDataset, LabelledImage, LabelledObject, write_annotations

WIDTH, HEIGHT = 160, 120
CLASSES = ("bus", "car")
SOUND = (
    LabelledObject(0, (20, 30, 60, 70)),
    LabelledObject(0, (90, 20, 130, 60)),
    LabelledObject(1, (60, 75, 100, 110)),
)


def scene(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture of soft spots; another seed, another picture."""
    spots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


@dataclass
class Planted:
    """The sound set, whose pictures and labels are changed before and after it is written.

    Attributes:
        root: an empty folder.
        images: by file name; the first six are of ``train``, the rest of ``val``.
        classes: their names.
        afterwards: called with the written folder.
    """

    root: Path
    images: dict[str, LabelledImage] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    afterwards: list[Callable[[Path], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        for number in range(9):
            name = f"{'train' if number < 6 else 'val'}{number}.png"
            scene(number).save(self.root / name)
            self.images[name] = LabelledImage(self.root / name, WIDTH, HEIGHT, SOUND)

    def put(self, name: str, *boxes: tuple[float, float, float, float], label: int = 0) -> None:
        """More objects in a picture; the first is number 4."""
        image = self.images[name]
        more = tuple(LabelledObject(label, box) for box in boxes)
        self.images[name] = replace(image, objects=(*(image.objects or ()), *more))

    def only(self, name: str, *boxes: tuple[float, float, float, float]) -> None:
        """These boxes in place of all that a picture has."""
        things = tuple(LabelledObject(at % 2, box) for at, box in enumerate(boxes))
        self.images[name] = replace(self.images[name], objects=things)

    def dataset(self) -> LabelledDataset:
        """The records."""
        images = tuple(self.images.values())
        return LabelledDataset(self.root, self.classes, {"train": images[:6], "val": images[6:]})

    def write(self, format: str) -> Path:
        """Write it and return the folder."""
        out = self.root.with_name(f"{self.root.name}-{format}")
        write_annotations(self.dataset(), format, out)
        for change in self.afterwards:
            change(out)
        return out


def edit(file: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a text, which is there, in a file of the written folder, once."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change
