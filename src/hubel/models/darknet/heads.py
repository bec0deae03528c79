"""What Darknet's sections of boxes mean: which boxes a layer's numbers are, and with which scores.

A head gives raw rows ``x, y, w, h, objectness, classes`` (N, A, 5 + classes) of the map that it reads, row by row of
the map, box by box at a position.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hubel.models.darknet.word_tree import WordTree
from hubel.weights.darknet_cfg import MOST_CHANNELS, Section, boxes_of, cfg_error
from hubel.weights.darknet_layers import Layer

_LARGEST_LOG = 8.0  # of a size over its anchor: more would overflow
_IOU_LOSSES = ("mse", "iou", "giou", "diou", "ciou")

Size = tuple[int, int]


class Head(Protocol):
    """A section of boxes; sizes are the height and width of the images in pixels."""

    def count(self, size: Size) -> int:
        """Boxes in an image (A)."""

    def rows(self, maps: Tensor) -> Tensor:
        """Raw rows (N, A, 5 + classes) of maps (N, C, H, W)."""

    def decode(self, raw: Tensor, size: Size) -> Tensor:
        """Boxes (..., A, 4), x1, y1, x2, y2 in pixels, of raw ones (..., A, 4)."""

    def scores(self, objectness: Tensor, classes: Tensor) -> Tensor:
        """Scores (..., A, classes), 0..1, of raw objectness (..., A, 1) and classes (..., A, classes)."""


@dataclass(frozen=True)
class Grid:
    """Cells, and anchors in pixels of the input."""

    stride: int
    anchors: tuple[tuple[float, float], ...]

    def count(self, size: Size) -> int:
        """Boxes in an image (A)."""
        rows, columns = self.cells(size)
        return rows * columns * len(self.own)

    def cells(self, size: Size) -> Size:
        """Rows and columns of cells."""
        return -(-size[0] // self.stride), -(-size[1] // self.stride)

    @property
    def own(self) -> tuple[tuple[float, float], ...]:
        """Width and height of the anchors of a cell, in its order."""
        return self.anchors

    def rows(self, maps: Tensor) -> Tensor:
        """(N, B · (5 + classes), H, W) → (N, H · W · B, 5 + classes)."""
        rows: Tensor = maps.unflatten(1, (len(self.own), -1)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return rows

    def cell_of(self, centres: Tensor, size: Size) -> Tensor:
        """Index of the cell that has each centre (M, 2), x and y in pixels; the nearest for one beside the image."""
        rows, columns = self.cells(size)
        column, row = (centres / self.stride).long().unbind(1)
        return row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)

    def priors(self, size: Size, like: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row of each box's cell (A, 2), and its anchor's width and height (A, 2)."""
        cells, anchors = (torch.from_numpy(table).to(like.device) for table in _priors(self, size))
        return cells, anchors


@lru_cache(maxsize=32)
def _priors(grid: Grid, size: Size) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = grid.cells(size)
    cells = _cells(rows, columns, len(grid.own))
    return cells, np.tile(np.array(grid.own, np.float32), (rows * columns, 1))


@lru_cache(maxsize=8)
def _cells(rows: int, columns: int, boxes: int) -> np.ndarray:
    """Column and row of the cell of each box (rows · columns · boxes, 2)."""
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack((x, y), -1).reshape(-1, 2).astype(np.float32).repeat(boxes, 0)


def _scales(section: Section) -> list[float]:
    """Weights of the terms of a loss: ``object_scale`` and those that follow it in a head."""
    return [section.number(f"{name}_scale", 1, 0, 1000) for name in ("object", "noobject", "class", "coord")]


def _pairs(layer: Layer, scale: float = 1.0) -> tuple[tuple[float, float], ...]:
    numbers = [scale * number for number in layer.section.numbers("anchors")]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _boxes(centre: Tensor, extent: Tensor) -> Tensor:
    return torch.cat((centre - extent / 2, centre + extent / 2), -1)


@dataclass(frozen=True)
class YoloHead(Grid):
    """``[yolo]``: YOLOv3 (arXiv 1804.02767, section 2.1) and YOLOv4 (arXiv 2004.10934, section 3.4).

    Attributes:
        mask: indices of this scale's anchors among those of all scales.
        scale_xy: reach of a centre beyond its cell; 1 in YOLOv3.
        new_coords: the layer before it has a logistic activation; sizes are squares (Scaled-YOLOv4, arXiv 2011.08036).
        ignore: IoU with an object above which a box is not taught that there is nothing.
        iou_loss: ``"mse"``, YOLOv3's loss, or the kind of IoU of YOLOv4's.
        iou_threshold: IoU of shapes above which an object has further anchors than the best; 1 for none.
        objectness_smooth: boxes above ``ignore`` are taught their IoU, instead of nothing.
    """

    mask: tuple[int, ...]
    scale_xy: float = 1.0
    new_coords: bool = False
    ignore: float = 0.5
    iou_loss: str = "mse"
    iou_threshold: float = 1.0
    iou_normalizer: float = 1.0
    obj_normalizer: float = 1.0
    objectness_smooth: bool = False
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, layer: Layer, label_smoothing: float = 0.0) -> YoloHead:
        """The head of a section."""
        section, anchors = layer.section, _pairs(layer)
        mask = section.integers("mask", 0) if "mask" in section.options else range(boxes_of(section))
        iou_loss = section.word("iou_loss", "mse", _IOU_LOSSES)
        return cls(
            int(layer.stride),
            anchors,
            tuple(mask),
            section.number("scale_x_y", 1, 1, 10),
            section.flag("new_coords"),
            section.number("ignore_thresh", 0.5, 0, 1),
            iou_loss,
            section.number("iou_thresh", 1, 0, 1),
            section.number("iou_normalizer", 1 if iou_loss == "mse" else 0.75, 0, 1000),
            section.number("obj_normalizer", 1, 0, 1000),
            section.flag("objectness_smooth"),
            section.number("label_smooth_eps", label_smoothing, 0, 1),
        )

    @property
    def own(self) -> tuple[tuple[float, float], ...]:
        """The anchors of the mask."""
        return tuple(self.anchors[index] for index in self.mask)

    def decode(self, raw: Tensor, size: Size) -> Tensor:
        """Centres reach beyond their cells by ``scale_xy``; sizes are multiples of the anchors."""
        cells, anchors = self.priors(size, raw)
        inside, reach = raw[..., :2] if self.new_coords else raw[..., :2].sigmoid(), self.scale_xy
        centre = (inside * reach - (reach - 1) / 2 + cells) * self.stride
        sizes = raw[..., 2:]
        factor = (2 * sizes).square() if self.new_coords else sizes.clamp(max=_LARGEST_LOG).exp()
        return _boxes(centre, factor * anchors)

    def scores(self, objectness: Tensor, classes: Tensor) -> Tensor:
        """Independent logistics."""
        return objectness * classes if self.new_coords else objectness.sigmoid() * classes.sigmoid()


@dataclass(frozen=True)
class RegionHead(Grid):
    """``[region]``: YOLOv2 and YOLO9000 (arXiv 1612.08242, sections 2 and 4).

    Attributes:
        softmax: classes exclude each other.
        ignore: as for ``[yolo]``.
        rescore: objectness is taught the IoU of the predicted box, not 1.
        tree: which classes exclude each other, instead of ``softmax``.
    """

    softmax: bool = True
    ignore: float = 0.6
    rescore: bool = True
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0
    tree: WordTree | None = field(default=None, compare=False, kw_only=True)

    @classmethod
    def of(cls, layer: Layer, tree: WordTree | None = None) -> RegionHead:
        """The head of a section; its anchors are in cells."""
        section = layer.section
        require_tree(section, tree)
        anchors = _pairs(layer, layer.stride)[: boxes_of(section)]
        ignore = section.number("thresh", 0.5, 0, 1)
        softmax, rescore = section.flag("softmax"), section.flag("rescore")
        return cls(int(layer.stride), anchors, softmax, ignore, rescore, *_scales(section), tree=tree)

    def decode(self, raw: Tensor, size: Size) -> Tensor:
        """Centres within their cells; sizes are multiples of the anchors."""
        cells, anchors = self.priors(size, raw)
        extent = raw[..., 2:].clamp(max=_LARGEST_LOG).exp() * anchors
        return _boxes((raw[..., :2].sigmoid() + cells) * self.stride, extent)

    def scores(self, objectness: Tensor, classes: Tensor) -> Tensor:
        """Logistic objectness times a softmax, or a logistic, over classes; with a tree as :meth:`WordTree.scores`.

        Then the score of a class is equation 1 of section 4, objectness being the probability of the root.
        """
        if self.tree is not None:
            return objectness.sigmoid() * self.tree.scores(classes)
        return objectness.sigmoid() * (torch.softmax(classes, -1) if self.softmax else classes.sigmoid())


@dataclass(frozen=True)
class DetectionHead:
    """``[detection]``: YOLOv1 (arXiv 1506.02640, section 2); classes belong to a cell, and stand beside all its boxes.

    Attributes:
        side: cells of a side.
        boxes: of a cell, each with its own objectness.
        root: sizes are predicted as their square roots.
    """

    side: int
    boxes: int
    classes: int
    root: bool = True
    softmax: bool = False
    rescore: bool = True
    object_scale: float = 1.0
    noobject_scale: float = 0.5
    class_scale: float = 1.0
    coord_scale: float = 5.0

    @classmethod
    def of(cls, layer: Layer) -> DetectionHead:
        """The head of a section."""
        section = layer.section
        classes = section.integer("classes", 20, 1, MOST_CHANNELS)
        flags = [section.flag(name) for name in ("sqrt", "softmax", "rescore")]
        return cls(section.integer("side", 7, 1, 1000), boxes_of(section), classes, *flags, *_scales(section))

    def count(self, size: Size) -> int:
        """Boxes in an image, whatever its size."""
        return self.side**2 * self.boxes

    def rows(self, maps: Tensor) -> Tensor:
        """A vector of all cells' classes, then all boxes' objectness, then their x, y, w, h → (N, A, 5 + classes)."""
        cells, boxes = self.side**2, self.boxes
        flat = maps.flatten(1)
        classes, objectness, raw = flat.split((cells * self.classes, cells * boxes, cells * boxes * 4), 1)
        of_boxes = classes.unflatten(1, (cells, 1, -1)).expand(-1, -1, boxes, -1).flatten(1, 2)
        return torch.cat((raw.unflatten(1, (-1, 4)), objectness.unsqueeze(2), of_boxes), 2)

    def decode(self, raw: Tensor, size: Size) -> Tensor:
        """Centres from the corner of their cell; sizes relative to the image."""
        height, width = size
        cells = torch.from_numpy(_cells(self.side, self.side, self.boxes)).to(raw.device)
        whole = raw.new_tensor([width, height])
        extent = raw[..., 2:].square() if self.root else raw[..., 2:]
        return _boxes((raw[..., :2] + cells) / self.side * whole, extent * whole)

    def scores(self, objectness: Tensor, classes: Tensor) -> Tensor:
        """Their product; both are linear, so it is cut off at 0 and 1, which Darknet does not do."""
        return (objectness * (torch.softmax(classes, -1) if self.softmax else classes)).clamp(0, 1)


def require_tree(section: Section, tree: WordTree | None) -> None:
    """Raise :class:`ModelError` if a section names the file of a tree, and there is none."""
    if "tree" in section.options and tree is None:
        message = f"{section.where}: it has a tree of classes, {section.options['tree']:.80}"
        raise cfg_error(message, "pass the text of that file as the option tree")


def head_of(layer: Layer, label_smoothing: float = 0.0, tree: WordTree | None = None) -> Head:
    """The head of a section of boxes.

    Raises:
        ModelError: a tree is given for another kind than ``[region]``, or is missing.
    """
    if layer.kind == "region":
        return RegionHead.of(layer, tree)
    if tree is not None:
        raise layer.section.error("a tree of classes is for [region]")
    return YoloHead.of(layer, label_smoothing) if layer.kind == "yolo" else DetectionHead.of(layer)
