"""Random changes of training images that carry boxes, masks and class maps along: each has a name.

All changes of geometry together scale the pixels once (:mod:`hubel.data.transforms.geometry`); torchvision's transforms
of the same names are the judges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hubel.data.preprocessing import FILTERS, Preprocessing
from hubel.data.samples import UNLABELLED, Target
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import (
    IDENTITY,
    View,
    Window,
    mosaic_cell,
    mosaic_cells,
    random_iou_crop,
    random_zoom_out,
    scale_jitter,
)
from hubel.data.transforms.pipeline import Decoded, Transform, resolve_names

TINY = 2.0
"""Objects of a narrower width or height, in pixels of the network's input, are dropped from what has been changed."""

OBJECT_AUGMENTATIONS: dict[str, str] = {
    "mosaic": "mosaic: half of the images are put together of parts of four, cut in the middle half, each at up to its "
    "full scale; they are not zoomed or cropped further (Bochkovskiy et al. 2020, arXiv 2004.10934, section 3.3)",
    "zoom": "zoom out: half of the images lie on a canvas of up to four times the width and height "
    "(Liu et al. 2016, arXiv 1512.02325, section 3.6)",
    "scale": "scale jitter: 0.5 to 2 times the scale, at a random place (Ghiasi et al. 2021, arXiv 2012.07177)",
    "crop": "IoU crop: a part of 0.3 to 1 of the width and height that overlaps an object by a random least IoU "
    "(Liu et al. 2016, section 2.2)",
    "flip": "horizontal flip of every second image",
    "color": "photometric distortion: brightness by up to 12.5 %, contrast and saturation by up to 50 %, hue by up to "
    "5 % of the circle, each in half of the images (Liu et al. 2016, section 2.2)",
}
"""By name, what a person reads; in the order in which they are applied."""

OBJECT_PRESETS = {"ssd": ("zoom", "crop", "flip", "color")}
"""What a paper trained with, as one name."""

_WINDOWS = {"zoom": random_zoom_out, "scale": scale_jitter, "crop": random_iou_crop}
_MOSAICS = 0.5
_FLIPPED = 0.5


def check_object_augmentations(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the order of application, presets spelled out.

    Raises:
        UsageError: a name does not exist.
    """
    return resolve_names(names, tuple(OBJECT_AUGMENTATIONS), OBJECT_PRESETS)


def describe_object_augmentations(names: Sequence[str]) -> list[str]:
    """One sentence for each augmentation, in the order of application."""
    return [OBJECT_AUGMENTATIONS[name] for name in check_object_augmentations(names)]


class ObjectTransform(Transform):
    """Images with objects or a class map; without names as for prediction.

    Args:
        preprocessing: of the network; its mean is the colour beside images.
        names: of :data:`OBJECT_AUGMENTATIONS`; none for validation.
        ignore_index: class of pixels beside images.
    """

    def __init__(self, preprocessing: Preprocessing, names: Sequence[str] = (), ignore_index: int = 255) -> None:
        self._names = check_object_augmentations(names)
        self._windows = [draw for name, draw in _WINDOWS.items() if name in self._names]
        super().__init__(preprocessing, crops=bool(self._windows) or "mosaic" in self._names)
        self._background = np.rint(preprocessing.mean).astype(np.uint8)
        self._filter = FILTERS[preprocessing.interpolation]
        self._ignore_index = ignore_index

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`; four images become a mosaic."""
        pixels = np.empty((len(groups), *self.shape), np.uint8)
        targets = []
        for index, (group, seed) in enumerate(zip(groups, seeds, strict=True)):
            pixels[index], target = self.augment(group, seed)
            targets.append(target)
        return pixels, targets

    def smallest_crop(self, width: int, height: int) -> float:
        """An image that fills the input: smaller crops are enlarged."""
        return min(width / self.preprocessing.width, height / self.preprocessing.height)

    def partners(self, seed: int, count: int) -> list[int]:
        """The three other images of a mosaic; none where there is no mosaic."""
        if "mosaic" not in self._names:
            return []
        random = np.random.default_rng((seed, 1))
        return random.integers(count, size=3).tolist() if random.random() < _MOSAICS else []

    def augment(self, group: Sequence[Decoded], seed: int) -> tuple[np.ndarray, Target]:
        """One randomly changed image, uint8 (height, width, channels), with its labels."""
        random = np.random.default_rng((seed, 0))
        pixels, made = self._mosaic(group, random) if len(group) == 4 else self._single(group[0], random)
        if "color" in self._names:
            pixels = Distortion.drawn(random)(pixels)
        sizes = made.boxes[:, 2:] - made.boxes[:, :2]
        kept = (sizes >= TINY).all(1) if self._names else (sizes > 0).all(1)
        masks = None if made.masks is None else made.masks[kept]
        boxes = made.boxes[kept].astype(np.float32)
        return pixels, Target(made.label, boxes, made.labels[kept], masks, made.class_map)

    def _single(self, image: Decoded, random: np.random.Generator) -> tuple[np.ndarray, Target]:
        window, boxes, kept = IDENTITY, image.boxes, np.arange(len(image.boxes))
        aspect = image.extent[0] / image.extent[1]
        # Each step is drawn for what the steps before it show; composed, they are one window on the image.
        for draw in (*self._windows, self._flipped):
            step = draw(boxes, aspect, random)
            boxes, still = step.transform_boxes(boxes)
            kept, window = kept[still], step.compose(window)
            aspect *= (step.x2 - step.x1) / (step.y2 - step.y1)
        height, width, _ = self.shape
        return self._drawn(image, View(window, height, width), boxes, kept)

    def _flipped(self, boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
        return Window(flipped="flip" in self._names and random.random() < _FLIPPED)

    def _mosaic(self, group: Sequence[Decoded], random: np.random.Generator) -> tuple[np.ndarray, Target]:
        height, width, _ = self.shape
        pixels = np.empty(self.shape, np.uint8)
        with_masks = all(image.masks is not None for image in group)
        class_map = None if any(image.class_map is None for image in group) else np.empty((height, width), np.uint8)
        boxes, labels, masks = [], [], []
        for image, (rows, columns) in zip(group, mosaic_cells(random, height, width), strict=True):
            down, across = rows.stop - rows.start, columns.stop - columns.start
            window = mosaic_cell(image.boxes, across / width, down / height, random)
            seen, kept = window.transform_boxes(image.boxes)
            turn = self._flipped(seen, 1.0, random)
            seen, still = turn.transform_boxes(seen)
            part, target = self._drawn(image, View(turn.compose(window), down, across), seen, kept[still])
            pixels[rows, columns] = part
            boxes.append(target.boxes + np.array([columns.start, rows.start] * 2))
            labels.append(target.labels)
            if target.masks is not None and with_masks:
                whole = np.zeros((len(target.masks), height, width), target.masks.dtype)
                whole[:, rows, columns] = target.masks
                masks.append(whole)
            if class_map is not None and target.class_map is not None:
                class_map[rows, columns] = target.class_map
        joined = np.concatenate(masks) if with_masks else None
        return pixels, Target(UNLABELLED, np.concatenate(boxes), np.concatenate(labels), joined, class_map)

    def _drawn(self, image: Decoded, view: View, boxes: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, Target]:
        """The view of an image; ``boxes`` are those of the objects ``kept``, in fractions of the view."""
        pixels = view.pixels(image.pixels, image.extent, self._background, self._filter)
        scaled = boxes * (view.width, view.height, view.width, view.height)
        masks = None if image.masks is None else view.masks(image.masks[kept])
        class_map = None
        if image.class_map is not None:
            class_map = view.masks(image.class_map[None], fill=self._ignore_index)[0]
        return pixels, Target(image.label, scaled, image.labels[kept], masks, class_map)
