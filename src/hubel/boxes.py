"""Boxes as numbers: formats, overlap, regression targets, suppression.

A box is ``x1, y1, x2, y2`` in pixels, x to the right, y down, with ``x2 - x1`` as its width; boxes are rows of
(N, 4). Other formats live in files and heads and are converted at their border.

Every function takes torch tensors or NumPy arrays, of integers or floats, and returns what it was given. What
torchvision has is torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubel.errors import UsageError

FORMATS = ("xyxy", "xywh", "cxcywh")
"""Corners; left upper corner and size (COCO); centre and size (YOLO, SSD)."""

SSD_VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""What SSD divides offsets by (Liu et al. 2016, arXiv 1512.02325; in its published code, not in the paper)."""

# Largest log of a size's ratio that is decoded: exp of more would overflow half precision (Faster R-CNN's 1000 / 16).
_LARGEST_LOG_RATIO = float(np.log(1000 / 16))


def _operators() -> Any:
    """torchvision's: a second to import, which who lists models or builds a classifier need not wait for."""
    import torchvision

    return torchvision.ops


def _tensor(value: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def _array(value: Tensor | tuple[Tensor, ...]) -> Any:
    return value.numpy() if isinstance(value, Tensor) else tuple(map(_array, value))


def _for_arrays_too(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of tensors take arrays; then it returns arrays."""

    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = function(*map(_tensor, arguments), **{name: _tensor(value) for name, value in named.items()})
        return _array(result) if isinstance(arguments[0], np.ndarray) else result

    return wrapped


@_for_arrays_too
def convert(boxes: Tensor, source: str, target: str) -> Tensor:
    """Boxes (N, 4) from one of :data:`FORMATS` into another.

    Raises:
        UsageError: there is no such format.
    """
    for name in (source, target):
        if name not in FORMATS:
            raise UsageError(f"there is no box format {name!r}", f"use {', '.join(FORMATS)}")
    converted: Tensor = _operators().box_convert(_floats(boxes), source, target)
    return converted


@_for_arrays_too
def area(boxes: Tensor) -> Tensor:
    """Width times height (N,); 0 where a box is turned inside out."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return _floats(sides[:, 0]) * _floats(sides[:, 1])


@_for_arrays_too
def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """The parts of boxes (N, 4) inside a ``width`` × ``height`` picture."""
    clipped: Tensor = _operators().clip_boxes_to_image(_floats(boxes), (height, width))
    return clipped


@_for_arrays_too
def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each box of ``a`` (N, 4) with each of ``b`` (M, 4): (N, M), 0..1.

    0, not NaN, for two boxes without area.
    """
    shared, union = _shared_and_union(_floats(a), _floats(b))
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


@_for_arrays_too
def ioa(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over the area of ``a``: (N, M), 0..1; what COCO uses for crowds and MOTChallenge for distractors."""
    a, b = _floats(a), _floats(b)
    shared, _ = _shared_and_union(a, b)
    return shared / area(a)[:, None].clamp(min=torch.finfo(shared.dtype).tiny)


@_for_arrays_too
def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU, pairwise (N, M), -1..1 (Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1)."""
    pairs: Tensor = _operators().generalized_box_iou(_floats(a), _floats(b))
    return pairs


@_for_arrays_too
def diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU, pairwise (N, M), -1..1 (Zheng et al. 2020, arXiv 1911.08287, equation 7)."""
    pairs: Tensor = _operators().distance_box_iou(_floats(a), _floats(b))
    return pairs


@_for_arrays_too
def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU, pairwise (N, M): distance IoU less a term for the aspect ratio (arXiv 1911.08287, equation 10)."""
    pairs: Tensor = _operators().complete_box_iou(_floats(a), _floats(b))
    return pairs


@_for_arrays_too
def encode(boxes: Tensor, anchors: Tensor, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Regression targets (N, 4): how boxes lie relative to anchors (Girshick et al. 2014, arXiv 1311.2524, appendix C).

    ``(x - x_a) / w_a, (y - y_a) / h_a, log(w / w_a), log(h / h_a)`` of centres and sizes, each over its variance.

    Args:
        boxes: (N, 4), of positive width and height.
        anchors: (N, 4), one for each box; default boxes or proposals.
        variances: 1 in R-CNN's papers, :data:`SSD_VARIANCES` in SSD.
    """
    x, y, w, h = convert(boxes, "xyxy", "cxcywh").unbind(1)
    x_a, y_a, w_a, h_a = convert(anchors, "xyxy", "cxcywh").unbind(1)
    offsets = torch.stack(((x - x_a) / w_a, (y - y_a) / h_a, (w / w_a).log(), (h / h_a).log()), 1)
    return offsets / offsets.new_tensor(variances)


@_for_arrays_too
def decode(offsets: Tensor, anchors: Tensor, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of :func:`encode`: boxes (..., N, 4) of offsets (..., N, 4) from anchors (N, 4).

    Logarithms of size ratios are cut off at log(1000 / 16), as in Faster R-CNN's code, so that a wild network
    gives large boxes and no infinite ones.
    """
    dx, dy, dw, dh = (offsets * offsets.new_tensor(variances)).unbind(-1)
    x_a, y_a, w_a, h_a = convert(anchors, "xyxy", "cxcywh").to(offsets.dtype).unbind(1)
    x, y = x_a + dx * w_a, y_a + dy * h_a
    half_w = 0.5 * w_a * dw.clamp(max=_LARGEST_LOG_RATIO).exp()
    half_h = 0.5 * h_a * dh.clamp(max=_LARGEST_LOG_RATIO).exp()
    return torch.stack((x - half_w, y - half_h, x + half_w, y + half_h), -1)


@_for_arrays_too
def nms(boxes: Tensor, scores: Tensor, labels: Tensor | None = None, iou: float = 0.6) -> Tensor:
    """Greedy non-maximum suppression: the best box stays, those that overlap it too much go, and so on.

    Args:
        boxes: (N, 4).
        scores: (N,); which of two equal scores comes first is torchvision's choice.
        labels: (N,) classes, so that boxes suppress only those of their own class; ``None``: all do.
        iou: boxes go whose IoU with a better one is greater.

    Returns:
        int64 indices of the boxes that stay, best first.
    """
    boxes, scores = _floats(boxes), _floats(scores).to(_floats(boxes).dtype)
    if labels is None:
        kept: Tensor = _operators().nms(boxes, scores, iou)
        return kept
    # torchvision's batched_nms shifts the classes apart by the largest coordinate or goes class by class, whichever
    # is quicker; either leaves the IoU within a class as it is.
    by_class: Tensor = _operators().batched_nms(boxes, scores, labels, iou)
    return by_class


@_for_arrays_too
def soft_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor | None = None, sigma: float = 0.5, threshold: float = 0.001
) -> tuple[Tensor, Tensor]:
    """Soft-NMS with Gaussian decay (Bodla et al. 2017, arXiv 1704.04503, equation 3): overlapping boxes lose score.

    Not in torchvision. Each round takes the best remaining box and multiplies the scores of the others (of its class)
    by ``exp(-iou² / sigma)``; linear time a round in the number of boxes that remain.

    Args:
        boxes: (N, 4).
        scores: (N,), 0..1.
        labels: (N,) classes; ``None``: all boxes are of one.
        sigma: how gently: 0.5 in the paper.
        threshold: boxes whose score falls below it are dropped; 0.001 in the paper's code.

    Returns:
        int64 indices of what stays, best first, and their decayed scores.
    """
    remaining = torch.arange(len(boxes), device=boxes.device)
    boxes, scores = _floats(boxes), _floats(scores).clone()
    chosen, final = [], []
    while len(remaining):
        best = int(scores[remaining].argmax())
        index = remaining[best]
        if scores[index] < threshold:
            break
        chosen.append(index)
        final.append(scores[index].clone())
        remaining = torch.cat((remaining[:best], remaining[best + 1 :]))
        overlap = iou(boxes[index][None], boxes[remaining])[0]
        if labels is not None:
            overlap = overlap * (labels[remaining] == labels[index])
        scores[remaining] *= torch.exp(-(overlap**2) / sigma)
        remaining = remaining[scores[remaining] >= threshold]
    if not chosen:
        return remaining[:0], scores[:0]
    return torch.stack(chosen), torch.stack(final)


def _floats(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.float()


def _shared_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union, each (N, M)."""
    corner = torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])
    shared = corner.clamp(min=0).prod(-1)
    return shared, area(a)[:, None] + area(b)[None] - shared
