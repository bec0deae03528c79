"""Random changes of training images that carry boxes and masks along: each has a name and can be switched off.

The pixels stay bytes until the network. What is drawn depends on a seed alone. All changes of geometry together scale
the pixels once (:mod:`hubel.data.transforms.geometry`); torchvision's transforms of the same names are the judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hubel.data.preprocessing import FILTERS, Preprocessing
from hubel.data.prescale import Prescaler
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import (
    WHOLE,
    View,
    Window,
    mosaic_cell,
    mosaic_cells,
    random_iou_crop,
    random_zoom_out,
    scale_jitter,
)
from hubel.data.transforms.pipeline import REDUCING_GAP, resolve_names

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


@dataclass(frozen=True)
class LabelledPixels:
    """A picture before any random change, with its objects.

    Attributes:
        pixels: uint8 (h, w, C).
        extent: width and height of the image in these pixels; see
            :meth:`~hubel.data.transforms.geometry.View.pixels`.
        boxes: float64 (M, 4), x1, y1, x2, y2 in fractions of the picture.
        labels: int64 (M,).
        masks: (M, h, w), of the objects; or ``None``.
    """

    pixels: np.ndarray
    extent: tuple[float, float]
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


@dataclass(frozen=True)
class ChangedPixels:
    """What a network is trained on.

    Attributes:
        pixels: uint8 (H, W, C), of the input's size.
        boxes: float32 (M, 4), x1, y1, x2, y2 in its pixels.
        labels: int64 (M,).
        masks: (M, H, W), or ``None``.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


class ObjectPixels:
    """From an upright Pillow image and its boxes to pixels and boxes of the network's input, in two steps.

    :meth:`fixed` does what is the same in every epoch, and can be kept; :meth:`changed` does the random rest. Without
    changes that take parts of a picture it is cut and scaled as for prediction in the first step; with them it stays
    whole, reduced where it is several times the input's size, and the parts are stretched to the input.

    Args:
        preprocessing: of the network; gives size, channels, filter, and with its mean the ground beside pictures.
        names: of :data:`OBJECT_AUGMENTATIONS`; none for validation.

    Attributes:
        crops: whether the arrays of the first step are of the pictures' own sizes.
        shape: (height, width, channels) of those of the second.
    """

    def __init__(self, preprocessing: Preprocessing, names: Sequence[str] = ()) -> None:
        size = preprocessing
        self.shape = (size.height, size.width, size.channels)
        self._preprocessing = size
        self._names = check_object_augmentations(names)
        self._windows = [draw for name, draw in _WINDOWS.items() if name in self._names]
        self.crops = bool(self._windows) or "mosaic" in self._names
        self._whole = Prescaler(size.channels, self.reduction)
        self._ground = np.rint(size.mean).astype(np.uint8)
        self._filter = FILTERS[size.interpolation]

    def reduction(self, width: int, height: int) -> float:
        """How many times a picture may be reduced before :meth:`fixed` sees it: to twice the input's size."""
        size = self._preprocessing
        if not self.crops:
            return size.reduction(width, height)
        return min(width / size.width, height / size.height) / REDUCING_GAP

    def fixed_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Of the array that :meth:`fixed` gives for an upright picture of this size: (H, W, C)."""
        return self._whole.shape(width, height) if self.crops else self.shape

    def fixed(self, image: Image.Image, original: tuple[int, int, int] | None = None) -> np.ndarray:
        """The pixels before any random change: uint8 (H, W, C), of the input's size where nothing takes parts.

        Args:
            image: upright.
            original: as in :meth:`hubel.data.preprocessing.Preprocessing.pixels`.
        """
        size = self._preprocessing
        image = image.convert("L" if size.channels == 1 else "RGB")
        return self._whole.pixels(image, original) if self.crops else size.pixels(image, original)

    def labelled(
        self, pixels: np.ndarray, boxes: np.ndarray, labels: np.ndarray, width: int, height: int
    ) -> LabelledPixels:
        """What :meth:`fixed` gave, with the picture's objects.

        Args:
            pixels: of the picture.
            boxes: (M, 4) in pixels of the upright picture.
            labels: (M,).
            width: of the upright picture in pixels.
            height: likewise.
        """
        boxes = boxes.astype(np.float64) / (width, height, width, height)
        if self.crops:
            block = self._whole.block(width, height)
            return LabelledPixels(pixels, (width / block, height / block), boxes, labels)
        x1, y1, x2, y2 = self._preprocessing.crop_box(width, height)
        seen, kept = Window(x1 / width, y1 / height, x2 / width, y2 / height).seen(boxes)
        return LabelledPixels(pixels, (pixels.shape[1], pixels.shape[0]), seen, labels[kept])

    def mosaic_indices(self, seed: int, count: int) -> list[int]:
        """The indices of the three other pictures that a mosaic shows, of ``count``; none where there is no mosaic."""
        if "mosaic" not in self._names:
            return []
        random = np.random.default_rng((seed, 1))
        return random.integers(count, size=3).tolist() if random.random() < _MOSAICS else []

    def changed(self, pictures: Sequence[LabelledPixels], seed: int) -> ChangedPixels:
        """A randomly changed image.

        Args:
            pictures: one, or four of which a mosaic is made.
            seed: nothing else decides how they are changed.
        """
        random = np.random.default_rng((seed, 0))
        made = self._mosaic(pictures, random) if len(pictures) == 4 else self._single(pictures[0], random)
        pixels = Distortion.drawn(random)(made.pixels) if "color" in self._names else made.pixels
        sides = made.boxes[:, 2:] - made.boxes[:, :2]
        kept = (sides >= TINY).all(1) if self._names else (sides > 0).all(1)
        masks = None if made.masks is None else made.masks[kept]
        return ChangedPixels(pixels, made.boxes[kept].astype(np.float32), made.labels[kept], masks)

    def _single(self, picture: LabelledPixels, random: np.random.Generator) -> ChangedPixels:
        window, boxes, kept = WHOLE, picture.boxes, np.arange(len(picture.boxes))
        aspect = picture.extent[0] / picture.extent[1]
        steps = [*self._windows, self._flipped]
        for draw in steps:
            step = draw(boxes, aspect, random)
            boxes, still = step.seen(boxes)
            kept, window = kept[still], step.within(window)
            aspect *= (step.x2 - step.x1) / (step.y2 - step.y1)
        height, width, _ = self.shape
        return self._drawn(picture, View(window, height, width), boxes, kept)

    def _flipped(self, boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
        return Window(flipped="flip" in self._names and random.random() < _FLIPPED)

    def _mosaic(self, pictures: Sequence[LabelledPixels], random: np.random.Generator) -> ChangedPixels:
        height, width, channels = self.shape
        pixels = np.empty((height, width, channels), np.uint8)
        with_masks = all(picture.masks is not None for picture in pictures)
        boxes, labels, masks = [], [], []
        for picture, (rows, columns) in zip(pictures, mosaic_cells(random, height, width), strict=True):
            down, across = rows.stop - rows.start, columns.stop - columns.start
            window = mosaic_cell(picture.boxes, across / width, down / height, random)
            seen, kept = window.seen(picture.boxes)
            turn = self._flipped(seen, 1.0, random)
            seen, still = turn.seen(seen)
            part = self._drawn(picture, View(turn.within(window), down, across), seen, kept[still])
            pixels[rows, columns] = part.pixels
            boxes.append(part.boxes + np.array([columns.start, rows.start] * 2))
            labels.append(part.labels)
            if part.masks is not None and with_masks:
                whole = np.zeros((len(part.masks), height, width), part.masks.dtype)
                whole[:, rows, columns] = part.masks
                masks.append(whole)
        joined = np.concatenate(masks) if with_masks else None
        return ChangedPixels(pixels, np.concatenate(boxes), np.concatenate(labels), joined)

    def _drawn(self, picture: LabelledPixels, view: View, boxes: np.ndarray, kept: np.ndarray) -> ChangedPixels:
        """The view of a picture; ``boxes`` are those of the objects ``kept``, in fractions of the view."""
        pixels = view.pixels(picture.pixels, picture.extent, self._ground, self._filter)
        scaled = boxes * (view.width, view.height, view.width, view.height)
        masks = None if picture.masks is None else view.masks(picture.masks[kept])
        return ChangedPixels(pixels, scaled, picture.labels[kept], masks)
