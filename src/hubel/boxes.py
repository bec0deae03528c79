"""Box geometry: formats, overlap, regression targets, suppression.

A box is ``x1, y1, x2, y2`` in pixels, x to the right, y down, with ``x2 - x1`` as its width; boxes are rows of
(N, 4). Files and heads that use other formats convert at their border.

Every function takes NumPy arrays or torch tensors and returns the same kind; integers become float32. Arrays need no
torch, except in :func:`giou`, :func:`diou` and :func:`ciou`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hubel.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMATS",
    "MAX_LOG_RATIO",
    "area",
    "ciou",
    "clip",
    "convert",
    "decode",
    "diou",
    "encode",
    "giou",
    "interval_pairs",
    "ioa",
    "iou",
    "nms",
    "paired_iou",
    "scalar_iou",
    "shape_iou",
    "soft_nms",
]

Array = TypeVar("Array", np.ndarray, "Tensor")

FORMATS = ("xyxy", "xywh", "cxcywh")
"""Corners; top left corner and size (COCO); centre and size (YOLO, SSD)."""

MAX_LOG_RATIO = 4.135166556742356
"""Largest log of a size ratio that is decoded: log(1000 / 16), as in Faster R-CNN's code."""

_BLOCK = 128  # boxes that the NumPy suppression resolves at a time


def convert(boxes: Array, source: str, target: str) -> Array:
    """Convert boxes (N, 4) from one of :data:`FORMATS` into another.

    Raises:
        UsageError: the format is unknown.
    """
    for name in (source, target):
        if name not in FORMATS:
            raise UsageError(f"unknown box format {name!r}", f"use {', '.join(FORMATS)}")
    x1, y1, x2, y2 = _columns(_floats(boxes))
    if source == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    elif source == "cxcywh":
        half_width, half_height = 0.5 * x2, 0.5 * y2
        x1, y1, x2, y2 = x1 - half_width, y1 - half_height, x1 + half_width, y1 + half_height
    if target == "xywh":
        x2, y2 = x2 - x1, y2 - y1
    elif target == "cxcywh":
        x1, y1, x2, y2 = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    converted: Array = _library(boxes).stack((x1, y1, x2, y2), -1)
    return converted


def area(boxes: Array) -> Array:
    """Width times height (N,); 0 for a box whose corners are swapped."""
    x1, y1, x2, y2 = _columns(_floats(boxes))
    areas: Array = _positive(x2 - x1) * _positive(y2 - y1)
    return areas


def clip(boxes: Array, width: float, height: float) -> Array:
    """Clip boxes (N, 4) to a ``width`` × ``height`` image."""
    boxes = _floats(boxes)
    x, y = boxes[..., 0::2].clip(0, width), boxes[..., 1::2].clip(0, height)
    clipped: Array = _library(boxes).stack((x, y), -1).reshape(boxes.shape)
    return clipped


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of each box of ``a`` (N, 4) with each of ``b`` (M, 4): (N, M), 0..1.

    0, not NaN, for two boxes without area.
    """
    return paired_iou(a[:, None], b[None])


def paired_iou(a: Array, b: Array) -> Array:
    """Intersection over union of each box of ``a`` (N, 4) with its counterpart in ``b`` (N, 4): (N,), 0..1."""
    shared = _intersection(a, b)
    return _ratio(shared, area(a) + area(b) - shared)


def scalar_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, 0..1: for a few tuples, where arrays would be slower."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    if shared == 0:
        return 0.0
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def ioa(a: Array, b: Array) -> Array:
    """Intersection over the area of ``a``: (N, M), 0..1; used for COCO's crowds and MOTChallenge's distractors."""
    return _ratio(_intersection(a[:, None], b[None]), area(a)[:, None])


def shape_iou(a: Array, b: Array) -> Array:
    """IoU (N, M) of boxes of widths and heights (N, 2) and (M, 2) with a common corner."""
    at_origin: list[Array] = [_library(sizes).concatenate((0 * sizes, sizes), 1) for sizes in (a, b)]
    return iou(*at_origin)


def _intersection(a: Array, b: Array) -> Array:
    minimum, maximum = _library(a).minimum, _library(a).maximum
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _columns(_floats(a)), _columns(_floats(b))
    width, height = minimum(ax2, bx2) - maximum(ax1, bx1), minimum(ay2, by2) - maximum(ay1, by1)
    shared: Array = _positive(width) * _positive(height)
    return shared


def _positive(values: Array, least: float = 0) -> Array:
    raised: Array = np.maximum(values, least) if isinstance(values, np.ndarray) else values.clamp(min=least)
    return raised


def _ratio(part: Array, whole: Array) -> Array:
    ratio: Array = part / _positive(whole, _library(whole).finfo(whole.dtype).tiny)
    return ratio


def _columns(boxes: Array) -> tuple[Array, Array, Array, Array]:
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _library(array: Any) -> Any:
    """The module whose functions take the array: NumPy or torch."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _floats(array: Array) -> Array:
    """Floats of 32 bits or more: in 16 the area of a box overflows at 256 × 256 pixels."""
    wide = array.dtype.itemsize >= 4
    if isinstance(array, np.ndarray):
        return array if array.dtype.kind == "f" and wide else array.astype(np.float32)
    return array if array.is_floating_point() and wide else array.float()


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.cpu().numpy()


def _with_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of tensors take and return arrays too."""

    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        import torch

        def tensor(value: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

        result = function(*map(tensor, arguments), **{name: tensor(value) for name, value in named.items()})
        return result.numpy() if isinstance(arguments[0], np.ndarray) else result

    return wrapped


def _operators() -> Any:
    """torchvision's, which takes a second to import."""
    import torchvision

    return torchvision.ops


@_with_torch
def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU, pairwise (N, M), -1..1 (Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1)."""
    pairs: Tensor = _operators().generalized_box_iou(_floats(a), _floats(b))
    return pairs


@_with_torch
def diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU, pairwise (N, M), -1..1 (Zheng et al. 2020, arXiv 1911.08287, equation 7)."""
    pairs: Tensor = _operators().distance_box_iou(_floats(a), _floats(b))
    return pairs


@_with_torch
def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU, pairwise (N, M): distance IoU less a term for the aspect ratio (arXiv 1911.08287, equation 10)."""
    pairs: Tensor = _operators().complete_box_iou(_floats(a), _floats(b))
    return pairs


def encode(boxes: Array, anchors: Array, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Array:
    """Regression targets (N, 4) of boxes relative to their anchors (Girshick et al. 2014, arXiv 1311.2524, appendix C).

    ``(x - x_a) / w_a, (y - y_a) / h_a, log(w / w_a), log(h / h_a)`` of centres and sizes, each over its variance, 1 in
    R-CNN's papers. Boxes (N, 4) have a positive width and height; anchors (N, 4) are default boxes or proposals.
    """
    library = _library(boxes)
    x, y, w, h = _columns(convert(boxes, "xyxy", "cxcywh"))
    x_a, y_a, w_a, h_a = _columns(convert(anchors, "xyxy", "cxcywh"))
    offsets = (x - x_a) / w_a, (y - y_a) / h_a, library.log(w / w_a), library.log(h / h_a)
    targets: Array = library.stack([o / variance for o, variance in zip(offsets, variances, strict=True)], -1)
    return targets


def decode(offsets: Array, anchors: Array, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Array:
    """The inverse of :func:`encode`: boxes (..., N, 4) of offsets (..., N, 4) from anchors (N, 4).

    Logarithms of size ratios are limited to :data:`MAX_LOG_RATIO`, so that extreme outputs give large boxes instead of
    infinite ones.
    """
    library = _library(offsets)
    dx, dy, dw, dh = (o * variance for o, variance in zip(_columns(offsets), variances, strict=True))
    x1, y1, x2, y2 = _columns(_floats(anchors))
    width, height = x2 - x1, y2 - y1
    x, y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
    half_width = width / 2 * library.exp(dw.clip(max=MAX_LOG_RATIO))
    half_height = height / 2 * library.exp(dh.clip(max=MAX_LOG_RATIO))
    boxes: Array = library.stack((x - half_width, y - half_height, x + half_width, y + half_height), -1)
    return boxes


def nms(
    boxes: Array,
    scores: Array,
    labels: Array | None = None,
    iou: float = 0.6,
    limit: int | None = None,
    distance: bool = False,
) -> Array:
    """Greedy non-maximum suppression: keep the best box, drop those that overlap it too much, and repeat.

    Args:
        boxes: (N, 4).
        scores: (N,); of equal scores the first box comes first.
        labels: (N,) classes: boxes suppress only those of their own class; ``None``: all do.
        iou: a box is dropped if its IoU with a better one is greater.
        limit: maximum number of boxes kept; ``None``: keep all.
        distance: compare the distance IoU instead, which is less where centres are apart: DIoU-NMS (Zheng et al. 2020,
            arXiv 1911.08287, "NMS using DIoU") keeps more of the neighbours in a crowd.

    Returns:
        int64 indices of the kept boxes, best first.
    """
    if isinstance(boxes, np.ndarray):
        return _nms(boxes, scores, labels, iou, limit, distance)
    boxes = _floats(boxes)
    scores = _floats(scores).to(boxes.dtype)
    if distance:
        import torch

        indices = _nms(_array(boxes), _array(scores), _array(labels), iou, limit, distance)
        return torch.from_numpy(indices).to(boxes.device)
    operators = _operators()
    kept: Array = (
        operators.nms(boxes, scores, iou) if labels is None else operators.batched_nms(boxes, scores, labels, iou)
    )
    return kept[:limit]


def interval_pairs(lowest: np.ndarray, highest: np.ndarray, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j) with ``lowest[i] <= ascending[j] <= highest[i]``, ordered by i: int64 (K,) and (K,)."""
    first = ascending.searchsorted(lowest)
    counts = ascending.searchsorted(highest, side="right") - first
    rows = np.arange(len(lowest)).repeat(counts)
    columns = np.arange(len(rows)) + (first - counts.cumsum() + counts).repeat(counts)
    return rows, columns


def _nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray | None,
    iou: float,
    limit: int | None,
    distance: bool,
) -> np.ndarray:
    """Suppression in blocks of scores; boxes sorted by x, so that only neighbours are compared.

    An IoU above t bounds how far apart two left edges may be: x_b - x_a is at most (1 - t) of a's width where b is to
    the right of a, and (1 / t - 1) of it where b is to the left.
    """
    order = np.argsort(-scores, kind="stable")
    if not len(order):
        return order
    x1, y1, x2, y2 = np.ascontiguousarray(_floats(boxes).T)
    areas = (x2 - x1) * (y2 - y1)
    # Classes lie side by side on the axis that is searched, in float64; IoU is computed in the boxes' own precision.
    shift = np.zeros(len(order)) if labels is None else labels * (float(x2.max()) - float(x1.min()) + 1)
    left, width = x1 + shift, (x2 - x1).astype(np.float64)
    lowest = np.maximum(left - (1.001 / max(iou, 1e-6) - 1) * width, shift + x1.min())
    highest = left + (1.001 - iou) * width
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    others, alive = np.argsort(left, kind="stable"), np.ones(len(order), bool)
    kept: list[np.ndarray] = []
    for start in range(0, len(order), _BLOCK):
        if limit is not None and sum(map(len, kept)) >= limit:
            break
        block = order[start : start + _BLOCK]
        block = block[alive[block]]
        others = others[alive[others] & (rank[others] >= start)]
        rows, columns = interval_pairs(lowest[block], highest[block], left[others])
        a, b = block[rows], others[columns]
        near = (rank[b] > rank[a]) & (y1[a] < y2[b]) & (y1[b] < y2[a])
        a, b = a[near], b[near]
        shared = np.maximum(np.minimum(x2[a], x2[b]) - np.maximum(x1[a], x1[b]), 0)
        shared *= np.minimum(y2[a], y2[b]) - np.maximum(y1[a], y1[b])
        with np.errstate(invalid="ignore"):  # two boxes without area
            overlap = shared / (areas[a] + areas[b] - shared)
        over = overlap > np.float64(iou)
        a, b = a[over], b[over]
        if distance:
            # The diagonal of the box around both is not 0, as boxes without area were left out.
            near = overlap[over] - _centre_distance(boxes[a], boxes[b]) > iou
            a, b = a[near], b[near]
        # Within the block in order of score: a box that is suppressed suppresses no other.
        inside = np.flatnonzero(rank[b] < start + _BLOCK)
        for pair in inside[np.argsort(rank[a[inside]], kind="stable")].tolist():
            if alive[a[pair]]:
                alive[b[pair]] = False
        alive[b[alive[a]]] = False
        kept.append(block[alive[block]])
    return np.concatenate(kept)[:limit]


def _centre_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distance of the centres of pairs of boxes (N, 4) over the squared diagonal of the box around both."""
    a, b = _floats(a), _floats(b)
    apart = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2
    around = np.maximum(a[:, 2:], b[:, 2:]) - np.minimum(a[:, :2], b[:, :2])
    squared: np.ndarray = (apart**2).sum(1) / (around**2).sum(1)
    return squared


def soft_nms(
    boxes: Array,
    scores: Array,
    labels: Array | None = None,
    iou: float | None = None,
    sigma: float = 0.5,
    threshold: float = 0.001,
    limit: int | None = None,
) -> tuple[Array, Array]:
    """Soft-NMS (Bodla et al. 2017, arXiv 1704.04503): boxes that overlap a better one lose score.

    Each round takes the best remaining box and multiplies the scores of the others (of its class, with ``labels``) by
    ``exp(-IoU² / sigma)`` (equation 3). With ``iou``, those whose IoU is greater by ``1 - IoU`` (equation 2). The
    defaults are those of the paper and its code.

    Args:
        boxes: (N, 4).
        scores: (N,), 0..1; of equal scores the first box comes first.
        labels: (N,) classes; ``None``: all boxes belong to the same class.
        threshold: boxes whose score falls below it are dropped.
        limit: maximum number of boxes kept; ``None``: keep all. Time grows with their number times that of all boxes.

    Returns:
        int64 indices of the kept boxes, best first, and their decayed scores.
    """
    if not isinstance(boxes, np.ndarray):
        import torch

        arrays = _array(_floats(boxes)), _array(_floats(scores)), _array(labels)
        kept, decayed = soft_nms(*arrays, iou, sigma, threshold, limit)
        return torch.from_numpy(kept).to(boxes.device), torch.from_numpy(decayed).to(boxes.device)
    boxes, scores = _floats(boxes), _floats(scores).copy()
    remaining = np.flatnonzero(scores >= threshold)
    chosen: list[int] = []
    while len(remaining) and (limit is None or len(chosen) < limit):
        best = remaining[scores[remaining].argmax()]
        chosen.append(best)
        remaining = remaining[remaining != best]
        rivals = remaining if labels is None else remaining[labels[remaining] == labels[best]]
        overlap = paired_iou(boxes[best][None], boxes[rivals])
        if iou is None:
            scores[rivals] *= np.exp(-(overlap**2) / sigma)
        else:
            scores[rivals] *= np.where(overlap > iou, 1 - overlap, 1)
        remaining = remaining[scores[remaining] >= threshold]
    indices = np.array(chosen, np.int64)
    return indices, scores[indices]


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__"]
