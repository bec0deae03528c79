"""From an image and its labels to a network's input, in two steps.

:meth:`Transform.prepare` does what is the same in every epoch, and can be cached; calling the transform does the random
rest. The pixels stay bytes until the network. What is drawn depends on seeds alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import IGNORE_INDEX, UNLABELLED, Sample, Target
from hubel.data.transforms.geometry import IDENTITY, View, Window
from hubel.errors import UsageError
from hubel.masks import Shape

# How many times the input's size the smallest crop must still have after an image has been reduced.
_REDUCING_GAP = 2.0


def resolve_names(names: Sequence[str], known: Sequence[str], presets: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The known augmentations that are named, in the order of application, presets spelled out.

    Raises :class:`UsageError` if a name is neither known nor a preset.
    """
    names = [single for name in names for single in presets.get(name, (name,))]
    for name in names:
        if name not in known:
            offer = ", ".join((*known, *presets))
            raise UsageError(f"unknown augmentation {name!r}", f"choose from: {offer}, or none")
    return tuple(name for name in known if name in names)


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image before any random change, with its labels.

    Attributes:
        pixels: uint8 (h, w, C).
        extent: width and height of the image in these pixels; see :meth:`~hubel.data.transforms.geometry.View.pixels`.
        boxes: float64 (M, 4), x1, y1, x2, y2 in fractions of the image.
        labels: int64 (M,), classes of the objects.
        class_map: uint8 (h, w), of any resolution.
        shapes: outlines or masks of the objects, in the whole image; ``None`` where they have none.
        size: width and height of the whole image, in whose pixels the outlines are.
        shown: the part of the whole image that the pixels show.
        ignored: float64 (I, 4), regions to be ignored, as ``boxes``.
        labelled: classes all of whose objects are labelled; ``None`` for all.
    """

    pixels: np.ndarray
    extent: tuple[float, float]
    boxes: np.ndarray
    labels: np.ndarray
    class_map: np.ndarray | None = None
    label: int = UNLABELLED
    shapes: tuple[Shape, ...] | None = None
    size: tuple[int, int] = (0, 0)
    shown: Window = IDENTITY
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    labelled: np.ndarray | None = None


class Transform(ABC):
    """Base of the transforms of training and validation images.

    Without crops an image is cut and scaled as for prediction in the first step; with them it stays whole, reduced
    where it is several times the input's size: whole blocks of pixels are averaged, which JPEG can be decoded to. Of a
    photograph of twelve megapixels a crop of 192 pixels keeps a hundredth; reading and caching the rest would cost more
    than anything else.

    Attributes:
        shape: (height, width, channels) of what the second step gives.
        crops: the second step takes parts of images, so the first gives arrays of the images' own sizes.
        stream: name of the random numbers, so that two transforms of one run do not draw the same.
    """

    stream = "pixels"

    def __init__(self, preprocessing: Preprocessing, crops: bool = False) -> None:
        self.preprocessing = preprocessing
        self.shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
        self.crops = crops
        self._background = preprocessing.background
        self._filter = preprocessing.filter

    @abstractmethod
    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """Randomly changed images: uint8 (N, height, width, channels) and N targets.

        N is the number of groups, or a multiple of it, the first ones of the first group. A group is an image and the
        others that :meth:`partners` asked for; its seed alone decides how it is changed.
        """

    def partners(self, seed: int, count: int) -> list[int]:
        """Indices, of ``count`` images, of others that are shown together with the one that has this seed."""
        return []

    def dummy_target(self) -> Target:
        """Labels of every kind, of the first class; the box is in the middle of the image."""
        height, width, _ = self.shape
        box = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32) * np.array([width, height] * 2, np.float32)
        masks = np.zeros((1, height, width), np.uint8)
        masks[:, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
        return Target(0, box, np.zeros(1, np.int64), masks, np.zeros((height, width), np.uint8))

    def smallest_crop(self, width: int, height: int) -> float:
        """Length of the smallest crop of an image over that of the input, where :attr:`crops`."""
        return 1.0

    def reduction(self, width: int, height: int) -> float:
        """Factor by which an image may be reduced before :meth:`prepare` sees it; below 2 for most.

        With crops, so that the smallest has twice the input's size: scaled to the input it then differs from one taken
        of the original by about 1 of 255 on average in a detailed photograph.
        """
        if not self.crops:
            return self.preprocessing.reduction(width, height)
        return self.smallest_crop(width, height) / _REDUCING_GAP

    def cached_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Shape (H, W, C) of the array that :meth:`prepare` gives for an upright image of this size."""
        if not self.crops:
            return self.shape
        block = self._block(width, height)
        return -(-height // block), -(-width // block), self.shape[2]

    def prepare(self, image: Image.Image, original: tuple[int, int, int] | None = None) -> np.ndarray:
        """The pixels of an upright image before any random change: uint8 (H, W, C), of the input's size without crops.

        ``original`` is as in :meth:`hubel.data.preprocessing.Preprocessing.pixels`.
        """
        if not self.crops:
            return self.preprocessing.pixels(image, original)
        image = image.convert("L" if self.shape[2] == 1 else "RGB")
        width, height, scale = original or (*image.size, 1)
        left = self._block(width, height) // scale
        pixels = np.asarray(image.reduce(left) if left > 1 else image)
        return pixels.reshape(*pixels.shape[:2], self.shape[2])

    def decoded(self, pixels: np.ndarray, sample: Sample, class_map: np.ndarray | None = None) -> Decoded:
        """Pixels that :meth:`prepare` gave, with the sample's labels where they lie in them."""
        width, height = sample.width, sample.height
        ignored = np.zeros((0, 4))
        if sample.crowd.any():
            ignored = sample.boxes[sample.crowd].astype(np.float64) / (width, height, width, height)
            sample = sample.select(~sample.crowd)
        boxes, labels, shapes, window = sample.boxes.astype(np.float64), sample.labels, sample.shapes, IDENTITY
        extent: tuple[float, float] = (pixels.shape[1], pixels.shape[0])
        if self.crops and width:
            block = self._block(width, height)
            extent = width / block, height / block
        if len(boxes) or len(ignored) or class_map is not None:
            boxes = boxes / (width, height, width, height)
            if not self.crops:
                x1, y1, x2, y2 = self.preprocessing.crop_box(width, height)
                window = Window(x1 / width, y1 / height, x2 / width, y2 / height)
                boxes, kept = window.transform_boxes(boxes)
                ignored = window.transform_regions(ignored)
                labels, shapes = labels[kept], shapes and tuple(shapes[index] for index in kept.tolist())
                view = View(window, *self.shape[:2])
                class_map = None if class_map is None else view.masks(class_map[None], fill=IGNORE_INDEX)[0]
        size = (width, height)
        others = (sample.label, shapes, size, window, ignored, sample.labelled)
        return Decoded(pixels, extent, boxes, labels, class_map, *others)

    def _block(self, width: int, height: int) -> int:
        """Side of the blocks of pixels that are averaged: 1, 2, 4 or 8."""
        most = self.reduction(width, height)
        return next((side for side in (8, 4, 2) if side <= most), 1)
