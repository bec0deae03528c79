"""Crops of pictures that show what a window shows: an object in the middle and of its size, or not.

For networks that are slid over a picture (:mod:`hubel.models.detection.sliding_window`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from hubel.data.image_cache import PixelCache
from hubel.data.loader import CachedReader, ObjectBatch, seed_for
from hubel.data.preprocessing import FILTERS, Preprocessing
from hubel.data.samples import ObjectSample, Targets
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import View, Window
from hubel.data.transforms.object_pipeline import LabelledPixels, ObjectPixels

# As far as a window may be from an object until the next place or size is nearer, and a little more.
_BESIDE = 0.2  # of the window's side
_OCTAVES = 0.35


class WindowCrops(Dataset[ObjectBatch]):
    """Crops of pictures from disk, several of each, for the loader that :func:`hubel.data.loader.batches` makes.

    A third show an object as a window shows it that fits; a third are near one, but beside it or of another size; a
    third are anywhere. Of random changes there are "flip" and "color".

    Args:
        samples: readable ones.
        preprocessing: of the network, which stretches the whole picture.
        window: side of a crop in pixels of the network's input; crops are of this size, and show this much or more.
        names: of the random changes; others than those two are passed over.
        seed: of the run; the crops of a picture are drawn from it, the epoch and the index.
        crops: of each picture.
        cache: keeps the stretched pictures.
    """

    def __init__(
        self,
        samples: Sequence[ObjectSample],
        preprocessing: Preprocessing,
        window: int,
        names: Sequence[str],
        seed: int,
        crops: int = 4,
        cache: PixelCache | None = None,
    ) -> None:
        self._samples = [sample.only(~sample.crowd) for sample in samples]
        self._pixels = ObjectPixels(preprocessing)
        self._window, self._names, self._seed, self._crops = window, names, seed, crops
        self._smallest = min(1.0, window / min(preprocessing.height, preprocessing.width))
        self._filter = FILTERS[preprocessing.interpolation]
        self._ground = np.rint(preprocessing.mean).astype(np.uint8)
        self._decoded = CachedReader(
            [sample.path for sample in samples], self._pixels.fixed, cache, self._pixels.reduction
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> ObjectBatch:
        """The crops of these keys (epoch, index). Boxes are not cut off at a crop's edge, and may lie outside."""
        pixels: list[np.ndarray] = []
        targets: list[Targets] = []
        indices: list[int] = []
        for epoch, index in keys:
            decoded, sample = self._decoded(index), self._samples[index]
            if decoded is None:
                continue
            picture = self._pixels.labelled(decoded, sample.boxes, sample.labels, sample.width, sample.height)
            random = np.random.default_rng(seed_for(self._seed, "crops", epoch, index))
            for _ in range(self._crops):
                window = drawn_window(picture.boxes, self._smallest, "flip" in self._names, random)
                view = View(window, self._window, self._window)
                drawn = view.pixels(picture.pixels, picture.extent, self._ground, self._filter)
                pixels.append(Distortion.drawn(random)(drawn) if "color" in self._names else drawn)
                targets.append(_seen(picture, window, self._window))
                indices.append(index)
        shape = (0, self._window, self._window, self._pixels.shape[2])
        stacked = torch.from_numpy(np.stack(pixels) if pixels else np.empty(shape, np.uint8))
        return ObjectBatch(stacked.permute(0, 3, 1, 2), targets, torch.tensor(indices, dtype=torch.int64))


def drawn_window(boxes: np.ndarray, smallest: float, flip: bool, random: np.random.Generator) -> Window:
    """A window in a picture.

    Args:
        boxes: (M, 4) of the objects, in fractions of the picture.
        smallest: side of the smallest window, in fractions of the picture's.
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


def _seen(picture: LabelledPixels, window: Window, side: int) -> Targets:
    """The objects in pixels of a crop."""
    corner, span = np.array([window.x1, window.y1] * 2), window.x2 - window.x1
    boxes = (picture.boxes - corner) * (side / span)
    if window.flipped:
        boxes = np.stack((side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]), 1)
    return Targets(torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(picture.labels))
