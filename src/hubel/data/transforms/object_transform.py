"""Random changes of training images that carry boxes, masks and class maps along.

All changes of geometry together scale the pixels once (:mod:`hubel.data.transforms.geometry`); torchvision's transforms
of the same names are the judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from hubel.data.preprocessing import Preprocessing, fit_box
from hubel.data.samples import UNLABELLED, Target
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import (
    IDENTITY,
    RANDOM_WINDOWS,
    View,
    Window,
    flip_boxes,
    large_scale_jitter,
    mosaic_cell,
    mosaic_cells,
)
from hubel.data.transforms.pipeline import Decoded, Transform, resolve_names
from hubel.data.transforms.shapes import draw_shapes, fit_boxes, fit_cut_boxes

TINY = 2.0
"""Objects of a narrower width or height, in pixels of the network's input, are dropped from what has been changed."""

OBJECT_AUGMENTATIONS: dict[str, str] = {
    "mosaic": "mosaic: half of the images are composed of parts of four, cut in the middle half, each at up to its "
    "full scale; they are not zoomed or cropped further (Bochkovskiy et al. 2020, arXiv 2004.10934, section 3.3)",
    "zoom": "zoom out: half of the images are placed on a canvas of up to four times the width and height "
    "(Liu et al. 2016, arXiv 1512.02325, section 3.6)",
    "scale": "scale jitter: 0.5 to 2 times the scale, at a random position (Ghiasi et al. 2021, arXiv 2012.07177)",
    "crop": "IoU crop: a part of 0.3 to 1 of the width and height that overlaps an object by a random minimum IoU "
    "(Liu et al. 2016, section 2.2)",
    "flip": "horizontal flip with probability 0.5",
    "copy-paste": "copy-paste: objects of another image, each with probability 0.5, are pasted with their masks; both "
    "images are flipped with probability 0.5 and drawn at 0.1 to 2 times their scale, or as scale jitter has it "
    "(Ghiasi et al. 2021, section 3), for instances",
    "color": "photometric distortion: brightness by up to 12.5 %, contrast and saturation by up to 50 %, hue by up to "
    "5 % of the circle, each in half of the images (Liu et al. 2016, section 2.2)",
    "multiscale": "multi-scale training: every ten batches another size of the input, 0.75 to 1.5 times its own in "
    "steps of 32 pixels, for detection (Redmon and Farhadi 2017, arXiv 1612.08242, section 2)",
}
"""By name, what a person reads; in the order in which they are applied."""

_PRESETS = {"ssd": ("zoom", "crop", "flip", "color")}  # what a paper trained with, as one name
_MOSAICS = 0.5
_FLIPPED = 0.5
_PASTED = 0.5  # of another image's objects

# The farthest that a sliding window's crop may be from an object before the next position or size is nearer, and more.
_BESIDE = 0.2  # of the window's side
_OCTAVES = 0.35


def check_object_augmentations(names: Sequence[str]) -> tuple[str, ...]:
    """The names as :func:`~hubel.data.transforms.pipeline.resolve_names` gives them."""
    return resolve_names(names, tuple(OBJECT_AUGMENTATIONS), _PRESETS)


def describe_object_augmentations(names: Sequence[str]) -> list[str]:
    """One sentence for each augmentation, in the order of application."""
    return [OBJECT_AUGMENTATIONS[name] for name in check_object_augmentations(names)]


class ObjectTransform(Transform):
    """Images with objects or a class map; without names as for prediction.

    Pixels beside the image have the colour that the preprocessing fills with, and the class ``ignore_index``. Where it
    keeps an image's aspect, random windows are those of the padded image.
    """

    def __init__(self, preprocessing: Preprocessing, names: Sequence[str] = (), ignore_index: int = 255) -> None:
        self._names = check_object_augmentations(names)
        self._windows = [draw for name, draw in RANDOM_WINDOWS.items() if name in self._names]
        if "copy-paste" in self._names and "scale" not in self._names:
            self._windows.insert(0, large_scale_jitter)
        self._flips = "flip" in self._names or "copy-paste" in self._names
        super().__init__(preprocessing, crops=bool(self._windows) or "mosaic" in self._names)
        self._ignore_index = ignore_index

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`; four images become a mosaic, and of two the second lends objects to the first."""
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
        """The three other images of a mosaic, else the one that objects are copied from; none where neither is."""
        random = np.random.default_rng((seed, 1))
        others = int("copy-paste" in self._names)
        if "mosaic" in self._names and random.random() < _MOSAICS:
            others = 3
        drawn: list[int] = random.integers(count, size=others).tolist()
        return drawn

    def augment(self, group: Sequence[Decoded], seed: int) -> tuple[np.ndarray, Target]:
        """One randomly changed image, uint8 (height, width, channels), with its labels."""
        random = np.random.default_rng((seed, 0))
        combine = {4: self._mosaic, 2: self._copy_paste}.get(len(group))
        pixels, target = self._single(group[0], random) if combine is None else combine(group, random)
        if "color" in self._names:
            pixels = Distortion.drawn(random)(pixels)
        sizes = target.boxes[:, 2:] - target.boxes[:, :2]
        kept = (sizes >= TINY).all(1) if self._names else (sizes > 0).all(1)
        masks = target.masks
        if masks is not None:
            kept &= masks.any((1, 2))
            masks = masks if kept.all() else masks[kept]
        boxes, labels = target.boxes[kept].astype(np.float32), target.labels[kept]
        if target.label != UNLABELLED and not len(labels):  # the class is known, and no box
            labels = np.array([target.label], np.int64)
        return pixels, replace(target, boxes=boxes, labels=labels, masks=masks)

    def _single(self, image: Decoded, random: np.random.Generator) -> tuple[np.ndarray, Target]:
        window, boxes, kept = self._whole(image)
        aspect = image.extent[0] * (window.x2 - window.x1) / (image.extent[1] * (window.y2 - window.y1))
        # Each step is drawn for what the steps before it show; composed, they are one window on the image.
        for draw in (*self._windows, self._flipped):
            step = draw(boxes, aspect, random)
            boxes, still = step.transform_boxes(boxes)
            kept, window = kept[still], step.compose(window)
            aspect *= (step.x2 - step.x1) / (step.y2 - step.y1)
        height, width, _ = self.shape
        return self._drawn(image, View(window, height, width), boxes, kept)

    def _whole(self, image: Decoded) -> tuple[Window, np.ndarray, np.ndarray]:
        """What the input shows of an image without random changes; the boxes in that, and their indices."""
        if not self.crops or self.preprocessing.resize != "fit":  # images that are not cropped have been padded before
            return IDENTITY, image.boxes, np.arange(len(image.boxes))
        width, height = image.extent
        x1, y1, x2, y2 = fit_box(width, height, self.preprocessing.width, self.preprocessing.height)[0]
        window = Window(x1 / width, y1 / height, x2 / width, y2 / height)
        return window, *window.transform_boxes(image.boxes)

    def _flipped(self, boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
        return Window(flipped=self._flips and random.random() < _FLIPPED)

    def _copy_paste(self, group: Sequence[Decoded], random: np.random.Generator) -> tuple[np.ndarray, Target]:
        """The first image, with objects of the second on it; the paper finds that their edges need no blending."""
        (pixels, target), (other, lent) = (self._single(image, random) for image in group)
        chosen = random.random(len(lent.labels)) < _PASTED
        chosen &= (lent.boxes[:, 2:] - lent.boxes[:, :2] >= TINY).all(1)  # what is dropped must not be seen
        assert target.masks is not None and lent.masks is not None
        pasted = lent.masks[chosen]
        covered = np.asarray(pasted.any(0))
        hidden = np.asarray((target.masks & covered).any((1, 2)))
        masks = target.masks & ~covered
        boxes = np.concatenate((fit_boxes(target.boxes, masks, hidden), lent.boxes[chosen]))
        labels = np.concatenate((target.labels, lent.labels[chosen]))
        pixels = np.where(covered[:, :, None], other, pixels)
        return pixels, replace(target, boxes=boxes, labels=labels, masks=np.concatenate((masks, pasted)))

    def _mosaic(self, group: Sequence[Decoded], random: np.random.Generator) -> tuple[np.ndarray, Target]:
        height, width, _ = self.shape
        pixels = np.empty(self.shape, np.uint8)
        with_masks = all(image.shapes is not None for image in group)
        class_map = None if any(image.class_map is None for image in group) else np.empty((height, width), np.uint8)
        boxes, labels, masks, ignored = [], [], [], []
        for image, (rows, columns) in zip(group, mosaic_cells(random, height, width), strict=True):
            down, across = rows.stop - rows.start, columns.stop - columns.start
            whole, seen, kept = self._whole(image)
            cell = mosaic_cell(seen, across / width, down / height, random)
            seen, still = cell.transform_boxes(seen)
            turn, kept = self._flipped(seen, 1.0, random), kept[still]
            seen, still = turn.transform_boxes(seen)
            view = View(turn.compose(cell).compose(whole), down, across)
            part, target = self._drawn(image, view, seen, kept[still])
            pixels[rows, columns] = part
            corner = np.array([columns.start, rows.start] * 2, np.float32)
            boxes.append(target.boxes + corner)
            ignored.append(target.ignored + corner)
            labels.append(target.labels)
            if target.masks is not None and with_masks:
                canvas = np.zeros((len(target.masks), height, width), target.masks.dtype)
                canvas[:, rows, columns] = target.masks
                masks.append(canvas)
            if class_map is not None and target.class_map is not None:
                class_map[rows, columns] = target.class_map
        joined = np.concatenate(masks) if with_masks else None
        regions = np.concatenate(ignored)
        objects = np.concatenate(boxes), np.concatenate(labels)
        labelled = labelled_in_all(group)
        return pixels, Target(UNLABELLED, *objects, joined, class_map, ignored=regions, labelled=labelled)

    def _drawn(self, image: Decoded, view: View, boxes: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, Target]:
        """The view of an image; ``boxes`` are those of the objects ``kept``, in fractions of the view."""
        pixels = view.pixels(image.pixels, image.extent, self._background, self._filter)
        size = (view.width, view.height, view.width, view.height)
        scaled = boxes * size
        ignored = (view.window.transform_regions(image.ignored) * size).astype(np.float32)
        masks = None
        if image.shapes is not None:
            whole = replace(view, window=view.window.compose(image.shown))
            masks = draw_shapes([image.shapes[index] for index in kept.tolist()], *image.size, whole)
            scaled = fit_cut_boxes(scaled, masks)
        class_map = None
        if image.class_map is not None:
            class_map = view.masks(image.class_map[None], fill=self._ignore_index)[0]
        labels = image.labels[kept]
        return pixels, Target(image.label, scaled, labels, masks, class_map, None, ignored, image.labelled)


def labelled_in_all(group: Sequence[Decoded]) -> np.ndarray | None:
    """The classes that each of the images labels, (L,), ascending; ``None`` for all."""
    stated = [image.labelled for image in group if image.labelled is not None]
    return reduce(np.intersect1d, stated) if stated else None


class WindowSampler(Transform):
    """Several crops of each image, as the windows of a network that is slid over an image see it, for training.

    For :mod:`hubel.models.detection.sliding_window`. A third of the crops show an object as a window shows it that
    fits; a third are near one, but beside it or of another size; a third are anywhere. Of the random changes "flip" and
    "color" count. Boxes are not cut off at a crop's edge, and may lie outside.

    ``window`` is the side of a crop in pixels of the network's input, into which the whole image is stretched; crops
    are of this size, and show this much or more.
    """

    stream = "crops"

    def __init__(self, preprocessing: Preprocessing, window: int, names: Sequence[str], crops: int = 4) -> None:
        super().__init__(preprocessing)
        self._whole = self.shape
        self.shape = (window, window, preprocessing.channels)
        self._window, self._names, self._crops = window, names, crops
        self._smallest = min(1.0, window / min(preprocessing.height, preprocessing.width))

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`."""
        pixels: list[np.ndarray] = []
        targets: list[Target] = []
        for (image, *_), seed in zip(groups, seeds, strict=True):
            random = np.random.default_rng(seed)
            for _ in range(self._crops):
                window = self._draw(image.boxes, random)
                crop = View(window, self._window, self._window).pixels(
                    image.pixels, image.extent, self._background, self._filter
                )
                pixels.append(Distortion.drawn(random)(crop) if "color" in self._names else crop)
                corner, span = np.array([window.x1, window.y1] * 2), window.x2 - window.x1
                boxes = (image.boxes - corner) * (self._window / span)
                if window.flipped:
                    boxes = flip_boxes(boxes, self._window)
                ignored = (window.transform_regions(image.ignored) * self._window).astype(np.float32)
                boxes = boxes.astype(np.float32)
                targets.append(Target(UNLABELLED, boxes, image.labels, ignored=ignored, labelled=image.labelled))
        return np.stack(pixels), targets

    def cached_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Whole images, stretched to the network's input."""
        return self._whole

    def dummy_target(self) -> Target:
        """An object of the first class that fills the crop."""
        side = float(self._window)
        return replace(super().dummy_target(), boxes=np.array([[0.0, 0.0, side, side]], np.float32))

    def _draw(self, boxes: np.ndarray, random: np.random.Generator) -> Window:
        """A window in an image with these boxes (M, 4), in fractions of it."""
        kind = random.integers(3) if len(boxes) else 2
        side = float(self._smallest ** random.random())
        if kind == 2:
            x, y = random.random(2) * (1 - side)
        else:
            x1, y1, x2, y2 = boxes[random.integers(len(boxes))]
            if kind == 0:
                fitting = np.sqrt((x2 - x1) * (y2 - y1)) * 2 ** random.uniform(-_OCTAVES, _OCTAVES)
                side = float(np.clip(fitting, self._smallest, 1))
            reach = _BESIDE if kind == 0 else 1.0
            moved = random.uniform(-reach, reach, 2) * side
            x, y = (np.array([x1 + x2, y1 + y2]) / 2 + moved - side / 2).clip(0, 1 - side)
        flipped = "flip" in self._names and bool(random.random() < _FLIPPED)
        return Window(float(x), float(y), float(x) + side, float(y) + side, flipped)
