"""Random crops of training images with class maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import IGNORE_INDEX, UNLABELLED, Target
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import View, Window
from hubel.data.transforms.pipeline import Decoded, Transform, resolve_names

CLASS_MAP_AUGMENTATIONS: dict[str, str] = {
    "scale": "scale: 0.5 to 2 times the size in prediction (Chen et al. 2018, arXiv 1802.02611, section 4)",
    "flip": "horizontal flip with probability 0.5",
    "color": "photometric distortion: brightness by up to 12.5 %, contrast and saturation by up to 50 %, hue by up to "
    "5 % of the circle, each in half of the crops (Liu et al. 2016, arXiv 1512.02325, section 2.2)",
}
"""By name, what a person reads; in the order in which they are applied."""

_FLIPPED = 0.5
_SCALES = (0.5, 2.0)
_BALANCED = 0.5  # of the crops, where classes are balanced, show a pixel of a class that is drawn first


def check_class_map_augmentations(names: Sequence[str]) -> tuple[str, ...]:
    """The names as :func:`~hubel.data.transforms.pipeline.resolve_names` gives them."""
    return resolve_names(names, tuple(CLASS_MAP_AUGMENTATIONS), {})


class ClassMapTransform(Transform):
    """Square crops at random positions, ``crops`` of each image, scaled once.

    Beside the image there is the mean colour of the preprocessing, and the class :data:`IGNORE_INDEX`.

    Args:
        preprocessing: of prediction. At scale 1 objects have their size there.
        side: of a crop in pixels.
        names: of :data:`CLASS_MAP_AUGMENTATIONS`.
        crops: of each image.
        classes: if given, half of the crops show a pixel of a class that is drawn before from those in the image, so
            that each is shown as often as any other.
    """

    stream = "crops"

    def __init__(
        self, preprocessing: Preprocessing, side: int, names: Sequence[str], crops: int = 1, classes: int | None = None
    ) -> None:
        super().__init__(preprocessing, crops=True)
        self.shape = (side, side, preprocessing.channels)
        self._names, self._crops, self._classes = check_class_map_augmentations(names), crops, classes

    def smallest_crop(self, width: int, height: int) -> float:
        """An image that fills the input of prediction, at the largest scale."""
        size = self.preprocessing
        return min(width / size.width, height / size.height) / (_SCALES[1] if "scale" in self._names else 1)

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`."""
        pixels = np.empty((len(groups) * self._crops, *self.shape), np.uint8)
        targets: list[Target] = []
        for (image, *_), seed in zip(groups, seeds, strict=True):
            random = np.random.default_rng(seed)
            for _ in range(self._crops):
                pixels[len(targets)], target = self._crop(image, random)
                targets.append(target)
        return pixels, targets

    def _crop(self, image: Decoded, random: np.random.Generator) -> tuple[np.ndarray, Target]:
        assert image.class_map is not None
        low, high = _SCALES if "scale" in self._names else (1.0, 1.0)
        scale = math.exp(random.uniform(math.log(low), math.log(high)))
        width, height = image.extent
        size, side = self.preprocessing, self.shape[0]
        if size.resize == "stretch":
            spans = np.array([side / (scale * size.width), side / (scale * size.height)])
        else:  # the shape is kept
            whole = min(size.width / width, size.height / height) * scale
            spans = side / (whole * np.array([width, height]))
        x, y = random.random(2) * (1 - spans)  # inside the image, or around it
        focus = self._focus(image.class_map, random)
        if focus is not None:
            least, most = np.minimum(0, 1 - spans), np.maximum(0, 1 - spans)
            x, y = (focus - random.random(2) * spans).clip(least, most)
        flipped = "flip" in self._names and bool(random.random() < _FLIPPED)
        view = View(Window(x, y, x + float(spans[0]), y + float(spans[1]), flipped), side, side)
        pixels = view.pixels(image.pixels, image.extent, self._background, self._filter)
        if "color" in self._names:
            pixels = Distortion.drawn(random)(pixels)
        return pixels, Target(UNLABELLED, class_map=view.masks(image.class_map[None], fill=IGNORE_INDEX)[0])

    def _focus(self, class_map: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
        """A pixel that the crop is to show, as fractions of the width and height; ``None``: any crop will do."""
        if self._classes is None or random.random() >= _BALANCED:
            return None
        # A coarse grid is enough to find a class that a crop can show much of.
        grid = class_map[::4, ::4]
        present = np.unique(grid[grid < self._classes])
        if not len(present):
            return None
        rows, columns = np.nonzero(grid == random.choice(present))
        index = random.integers(len(rows))
        return np.array([columns[index] / grid.shape[1], rows[index] / grid.shape[0]])
