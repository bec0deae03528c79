"""Small objects in large images: a detector sees overlapping tiles of an image, each at its full input size.

"Slicing Aided Hyper Inference" (Akyon et al. 2022, arXiv 2202.06934): tiles overlap by a fifth of their side, and the
whole image is one more view, for objects larger than a tile.

Deviation: the paper joins boxes by their intersection over the smaller one, or suppresses them by IoU. The trouble is
with boxes that end at a tile's border inside the image, as they show a part of an object: its IoU with the whole object
is small, its score may be greater, and joining whatever overlaps makes one object of a crowd. So only such parts are
treated apart (:func:`merge`); whole objects are suppressed as in any image.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hubel.boxes import ioa, iou, nms, paired_iou
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import ImageSource
from hubel.errors import UsageError
from hubel.inference.pipeline import FailedImage, PreparedImage, prepare_parts
from hubel.metrics.coco import PredictedObjects
from hubel.results import Detections, InMemory, Prediction
from hubel.tasks.decoding import Thresholds

OVERLAP = 0.2
"""Of a tile's side."""

MIN_SIDE = 64
"""Of a tile in pixels: smaller ones only magnify what is not there, and there are tens of thousands of them."""

_MARGIN = 0.02  # of a tile's side: a box that ends so near to its border is cut by it
_SAME = 0.5  # IoU from which two parts are one object, where both tiles see it
_INSIDE = 0.5  # fraction of a part in the box of an object from which it belongs to that


@dataclass(frozen=True)
class Grid:
    """The tiles of an image: ``side`` pixels of the upright original wide and high, or what there is of it."""

    width: int
    height: int
    side: int

    @property
    def windows(self) -> Iterator[tuple[int, int, int, int]]:
        """The whole image, then the tiles row by row if there are several, as x1, y1, x2, y2."""
        yield 0, 0, self.width, self.height
        columns, rows = (tile_starts(length, self.side) for length in (self.width, self.height))
        if len(columns) * len(rows) > 1:
            for y in rows:
                for x in columns:
                    yield x, y, min(x + self.side, self.width), min(y + self.side, self.height)

    def cut(self, boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Which sides of boxes (N, 4) lie at borders of their windows (N, 4), those of the image aside: bool (N, 4)."""
        inside = windows != np.array([0, 0, self.width, self.height])
        at_border: np.ndarray = inside & (np.abs(boxes - windows) <= _MARGIN * self.side)
        return at_border

    def seen_whole(self, boxes: np.ndarray) -> np.ndarray:
        """Which boxes (N, 4) some tile contains with a margin: bool (N,)."""
        across = self._contains(boxes[:, 0], boxes[:, 2], self.width)
        down = self._contains(boxes[:, 1], boxes[:, 3], self.height)
        both: np.ndarray = across & down
        return both

    def _contains(self, low: np.ndarray, high: np.ndarray, length: int) -> np.ndarray:
        starts, margin = np.array(tile_starts(length, self.side)), _MARGIN * self.side
        # The last tile that begins before a box reaches furthest.
        end = starts[(np.searchsorted(starts, low - margin, side="right") - 1).clip(0)] + self.side
        contains: np.ndarray = (high <= end - margin) | (end >= length)
        return contains


def tile_starts(length: int, side: int) -> list[int]:
    """Where tiles begin along a side of an image, in pixels: the last one ends with the image."""
    return [*range(0, length - side, side - int(OVERLAP * side)), max(0, length - side)]


@dataclass(frozen=True, kw_only=True)
class View(PreparedImage):
    """A part of an image, prepared as an image of its own: ``window`` is x1, y1, x2, y2 in pixels of the original."""

    window: tuple[int, int, int, int]
    grid: Grid
    last: bool


def check_side(side: int) -> None:
    """Raise :class:`UsageError` for tiles that are too small."""
    if side < MIN_SIDE:
        raise UsageError(f"tiles of {side} pixels are too small", f"use {MIN_SIDE} pixels or more")


def prepare_views(
    images: Iterable[ImageSource], preprocessing: Preprocessing, ahead: int, side: int
) -> Generator[View | FailedImage, None, None]:
    """As :func:`hubel.inference.pipeline.prepare`, for the views of each image, the whole first."""
    return prepare_parts(images, partial(_views, preprocessing, side), ahead)


def _views(preprocessing: Preprocessing, side: int, source: ImageSource, image: Image.Image) -> Iterator[partial[View]]:
    grid = Grid(image.width, image.height, side)
    view = partial(_view, preprocessing, source, image, grid)
    windows = grid.windows
    window = next(windows)
    for following in windows:
        yield partial(view, window, last=False)
        window = following
    yield partial(view, window, last=True)


def _view(
    preprocessing: Preprocessing,
    source: ImageSource,
    image: Image.Image,
    grid: Grid,
    window: tuple[int, int, int, int],
    last: bool,
) -> View:
    part = image if window == (0, 0, *image.size) else image.crop(window)
    pixels, reader = preprocessing.pixels(part), source.reopen or InMemory(source.read)
    prepared = source.source, *part.size, pixels, source.frame, source.time, reader
    return View(*prepared, window=window, grid=grid, last=last)


def merge_views(
    outcomes: Iterable[tuple[View, Prediction] | FailedImage], thresholds: Thresholds
) -> Generator[Detections | FailedImage, None, None]:
    """The objects of each image from those of its views, in pixels of the view, which come in the order of windows."""
    windows: list[tuple[int, int, int, int]] = []
    seen: list[Detections] = []
    for outcome in outcomes:
        if isinstance(outcome, FailedImage):
            yield outcome
            continue
        view, found = outcome
        assert isinstance(found, Detections)
        windows.append(view.window)  # not the view: its pixels are no longer needed
        seen.append(found)
        if view.last:
            yield replace(_of_image(seen, windows, view.grid, thresholds), reader=view.reader)
            windows, seen = [], []


def _of_image(
    seen: list[Detections], windows: list[tuple[int, int, int, int]], grid: Grid, thresholds: Thresholds
) -> Detections:
    if len(seen) == 1:
        return seen[0]
    of_objects = np.array(windows).repeat([len(found) for found in seen], axis=0)
    boxes, scores, labels = (
        np.concatenate([getattr(found, name) for found in seen]) for name in ("boxes", "scores", "labels")
    )
    names = dict(zip(labels.tolist(), (name for found in seen for name in found.names), strict=True))
    moved = boxes + np.tile(of_objects[:, :2], 2).astype(np.float32)
    merged = merge(PredictedObjects(moved, scores, labels), of_objects, grid, thresholds)
    named = tuple(names[label] for label in merged.labels.tolist())
    return replace(seen[0], boxes=merged.boxes, scores=merged.scores, labels=merged.labels, names=named)


def merge(objects: PredictedObjects, windows: np.ndarray, grid: Grid, thresholds: Thresholds) -> PredictedObjects:
    """The objects of an image from those in each of its views, best first.

    1. A box that ends at the border of its tile inside the image is a part. If another tile contains all of it, that
       tile sees more of the object: the part is dropped.
    2. The other parts are longer than tiles overlap. Parts of a class that agree where both their tiles see them, by an
       IoU above 0.5, are joined to the box around them, with the best of their scores.
    3. What is whole now is suppressed as the objects of one image; scores, which fell in each view, fall no further.
    4. A part that remains is dropped if over half of it lies in a whole object of its class.

    Args:
        objects: (N) in pixels of the original; masks are ignored.
        windows: of their views (N, 4).
    """
    boxes, scores = objects.boxes, objects.scores
    cut = grid.cut(boxes, windows)
    is_part = cut.any(1)
    whole = np.flatnonzero(~is_part)
    parts = np.flatnonzero(is_part & ~grid.seen_whole(boxes))
    parts = parts[np.argsort(-scores[parts], kind="stable")[: thresholds.topk_candidates]]
    joined, is_cut = _joined(_take(objects, parts), windows[parts], cut[parts], _MARGIN * grid.side)
    complete = _suppressed(_concatenated(_take(objects, whole), _take(joined, np.flatnonzero(~is_cut))), thresholds)
    rest = _take(joined, np.flatnonzero(is_cut))
    rivals = rest.labels[:, None] == complete.labels
    if not thresholds.suppression.class_wise:
        rivals[:] = True
    inside = (ioa(rest.boxes, complete.boxes) > _INSIDE) & rivals
    rest = _suppressed(_take(rest, np.flatnonzero(~inside.any(1))), thresholds)
    both = _concatenated(complete, rest)
    return _take(both, np.argsort(-both.scores, kind="stable")[: thresholds.max_detections])


def _joined(
    parts: PredictedObjects, windows: np.ndarray, cut: np.ndarray, margin: float
) -> tuple[PredictedObjects, np.ndarray]:
    """Parts (P) of the same objects joined: (J), and which of these are still cut, bool (J,)."""
    boxes, scores, labels, _ = parts
    others = (labels[:, None] == labels) & (windows[:, None] != windows).any(2)
    row, column = np.nonzero((iou(boxes, boxes) > 0) & others)
    low = np.maximum(windows[row, :2], windows[column, :2])
    high = np.minimum(windows[row, 2:], windows[column, 2:])
    a, b = (
        np.concatenate((np.maximum(boxes[each, :2], low), np.minimum(boxes[each, 2:], high)), 1)
        for each in (row, column)
    )
    same = paired_iou(a, b) > _SAME
    links = coo_array((np.ones(same.sum(), bool), (row[same], column[same])), shape=(len(boxes), len(boxes)))
    count, group = connected_components(links, directed=False)
    joined, best, is_cut = np.empty((count, 4), np.float32), np.empty(count, np.int64), np.empty(count, bool)
    for number in range(count):
        members = np.flatnonzero(group == number)
        around = np.concatenate((boxes[members, :2].min(0), boxes[members, 2:].max(0)))
        # A side is cut unless a part that is not cut there ends with it.
        ends = np.abs(boxes[members] - around) <= margin
        joined[number], is_cut[number] = around, (~ends | cut[members]).all(0).any()
        best[number] = members[scores[members].argmax()]
    return PredictedObjects(joined, scores[best], labels[best]), is_cut


def _suppressed(objects: PredictedObjects, thresholds: Thresholds) -> PredictedObjects:
    rule = thresholds.suppression
    rivals = objects.labels if rule.class_wise else None
    return _take(objects, nms(objects.boxes, objects.scores, rivals, thresholds.iou, distance=rule.distance))


def _take(objects: PredictedObjects, indices: np.ndarray) -> PredictedObjects:
    return PredictedObjects(objects.boxes[indices], objects.scores[indices], objects.labels[indices])


def _concatenated(a: PredictedObjects, b: PredictedObjects) -> PredictedObjects:
    boxes, scores = np.concatenate((a.boxes, b.boxes)), np.concatenate((a.scores, b.scores))
    return PredictedObjects(boxes, scores, np.concatenate((a.labels, b.labels)))
