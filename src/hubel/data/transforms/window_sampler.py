"""Crops of images that show what a window shows: an object in the middle and of its size, or not.

For networks that are slid over an image (:mod:`hubel.models.detection.sliding_window`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hubel.data.preprocessing import FILTERS, Preprocessing
from hubel.data.samples import UNLABELLED, Target
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import View, Window
from hubel.data.transforms.pipeline import Decoded, Transform

# As far as a window may be from an object until the next position or size is nearer, and a little more.
_BESIDE = 0.2  # of the window's side
_OCTAVES = 0.35


class WindowSampler(Transform):
    """Several crops of each image, for training.

    A third show an object as a window shows it that fits; a third are near one, but beside it or of another size; a
    third are anywhere. Of random changes there are "flip" and "color". Boxes are not cut off at a crop's edge, and may
    lie outside.

    Args:
        preprocessing: of the network, which stretches the whole image.
        window: side of a crop in pixels of the network's input; crops are of this size, and show this much or more.
        names: of the random changes; others than those two are ignored.
        crops: of each image.
    """

    stream = "crops"

    def __init__(self, preprocessing: Preprocessing, window: int, names: Sequence[str], crops: int = 4) -> None:
        super().__init__(preprocessing)
        self._whole = self.shape
        self.shape = (window, window, preprocessing.channels)
        self._window, self._names, self._crops = window, names, crops
        self._smallest = min(1.0, window / min(preprocessing.height, preprocessing.width))
        self._filter = FILTERS[preprocessing.interpolation]
        self._background = np.rint(preprocessing.mean).astype(np.uint8)

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`."""
        pixels: list[np.ndarray] = []
        targets: list[Target] = []
        for (image, *_), seed in zip(groups, seeds, strict=True):
            random = np.random.default_rng(seed)
            for _ in range(self._crops):
                window = draw_window(image.boxes, self._smallest, "flip" in self._names, random)
                view = View(window, self._window, self._window)
                drawn = view.pixels(image.pixels, image.extent, self._background, self._filter)
                pixels.append(Distortion.drawn(random)(drawn) if "color" in self._names else drawn)
                targets.append(_target(image, window, self._window))
        return np.stack(pixels), targets

    def cached_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Whole images, stretched to the network's input."""
        return self._whole

    def dummy_target(self) -> Target:
        """An object of the first class that fills the crop."""
        side = float(self._window)
        return replace(super().dummy_target(), boxes=np.array([[0.0, 0.0, side, side]], np.float32))


def draw_window(boxes: np.ndarray, smallest: float, flip: bool, random: np.random.Generator) -> Window:
    """A window in an image.

    Args:
        boxes: (M, 4) of the objects, in fractions of the image.
        smallest: side of the smallest window, in fractions of the image's.
        flip: half of the windows are turned left to right.
        random: what is drawn from.
    """
    kind = random.integers(3) if len(boxes) else 2
    side = float(smallest ** random.random())
    if kind == 2:
        x, y = random.random(2) * (1 - side)
    else:
        x1, y1, x2, y2 = boxes[random.integers(len(boxes))]
        if kind == 0:
            fitting = np.sqrt((x2 - x1) * (y2 - y1)) * 2 ** random.uniform(-_OCTAVES, _OCTAVES)
            side = float(np.clip(fitting, smallest, 1))
        reach = _BESIDE if kind == 0 else 1.0
        moved = random.uniform(-reach, reach, 2) * side
        x, y = (np.array([x1 + x2, y1 + y2]) / 2 + moved - side / 2).clip(0, 1 - side)
    return Window(float(x), float(y), float(x) + side, float(y) + side, flipped=flip and bool(random.random() < 0.5))


def _target(image: Decoded, window: Window, side: int) -> Target:
    """The objects in pixels of a crop."""
    corner, span = np.array([window.x1, window.y1] * 2), window.x2 - window.x1
    boxes = (image.boxes - corner) * (side / span)
    if window.flipped:
        boxes = np.stack((side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]), 1)
    return Target(UNLABELLED, boxes.astype(np.float32), image.labels)
