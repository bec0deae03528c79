"""A detector of any Darknet cfg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.drop_block import DropBlock
from hubel.models.base import DetectionTargets, Detector, ObjectTargets
from hubel.models.darknet.cell_loss import cell_losses
from hubel.models.darknet.graph import Graph
from hubel.models.darknet.heads import DetectionHead, Grid, Head, RegionHead, Size, YoloHead, head_of
from hubel.models.darknet.region_loss import PRIOR_IMAGES, region_losses
from hubel.models.darknet.word_tree import WordTree
from hubel.models.darknet.yolo_loss import yolo_losses
from hubel.weights.darknet_cfg import HEADS, Section, with_classes
from hubel.weights.darknet_layers import Shape, layers_of

_NO_OBJECT = -4.6
"""Raw objectness to start from: a probability of 0.01 (Lin et al. 2017, arXiv 1708.02002, section 4.1)."""

_OF_ONE_SIZE = ("connected", "local", "detection")


class BoxDetector(Detector):
    """A network that ends in sections of boxes.

    ``forward`` gives raw ``"boxes"`` (N, A, 4): x, y, width, height; ``"objectness"`` (N, A, 1) and ``"scores"``
    (N, A, classes), A boxes head by head, row by row, and in a cell in the order of its anchors.

    Args:
        backbone, head, num_classes, feature_info: see :class:`~hubel.models.base.Detector`.
        graph: all layers but those of a classifier.
        label_smoothing: of classes, where a section does not say.
        tree: of the classes; raw ``"scores"`` are then of those of the tree, and ``num_classes`` those of results.
    """

    loss_weights: Mapping[str, float] = {"box": 1.0, "objectness": 1.0, "class": 1.0}

    def __init__(
        self,
        backbone: nn.Sequential,
        head: nn.Module,
        num_classes: int,
        feature_info: Mapping[int, tuple[str, int]],
        graph: Graph,
        label_smoothing: float = 0.0,
        tree: WordTree | None = None,
    ) -> None:
        super().__init__(backbone, head, num_classes, feature_info)
        self.graph = graph
        found = [layer for layer in graph.layers if layer.kind in HEADS]
        self.heads: list[Head] = [head_of(layer, label_smoothing, tree) for layer in found]
        self.tree = tree
        self.learns_image_labels = all(isinstance(head, RegionHead) for head in self.heads)
        self.takes_any_size = not any(layer.kind in _OF_ONE_SIZE for layer in graph.layers)
        self._read = [layer.index for layer in found]
        self.drop_blocks = nn.ModuleDict()  # by the index of the layer whose maps they change

    def drop_blocks_of_scales(self, drop_prob: float) -> None:
        """Drop blocks of the maps of each scale: those that the convolution before its last one reads."""
        for index in self._read if drop_prob else ():
            for _ in range(3):  # to the last convolution, the one before, and what that reads
                index = self.graph.layers[index].sources[0] if index >= 0 else index
            self.drop_blocks[str(index)] = DropBlock(drop_prob)

    def begin_without_objects(self) -> None:
        """Set objectness of all boxes on anchors to a probability of 0.01."""
        for index, each in zip(self._read, self.heads, strict=True):
            convolution = dict(self.head.named_modules()).get(f"{self.graph.layers[index - 1].name}.conv")
            if isinstance(each, Grid) and isinstance(convolution, nn.Conv2d) and convolution.bias is not None:
                nn.init.constant_(convolution.bias.view(len(each.own), -1)[:, 4], _NO_OBJECT)

    def outputs(self, first: Sequence[Tensor], layers: nn.Module) -> dict[str, Tensor]:
        """Raw outputs of what the graph begins with; ``layers`` has its modules but for those of ``head``."""
        changes = {int(index): block for index, block in self.drop_blocks.items()}
        maps = self.graph.run(first, layers, self.head, self._read, changes)
        rows = torch.cat([head.rows(maps[index]) for head, index in zip(self.heads, self._read, strict=True)], 1)
        boxes, objectness, scores = rows.split((4, 1, rows.shape[2] - 5), 2)
        return {"boxes": boxes, "objectness": objectness, "scores": scores}

    def predictions(self, outputs: dict[str, Tensor], size: Size) -> dict[str, Tensor]:
        """Boxes and scores as each head means them."""
        counts = [head.count(size) for head in self.heads]
        parts = [outputs[name].float().split(counts, 1) for name in ("boxes", "objectness", "scores")]
        heads = list(zip(self.heads, *parts, strict=True))
        return {
            "boxes": torch.cat([head.decode(boxes, size) for head, boxes, _, _ in heads], 1),
            "scores": torch.cat([head.scores(objectness, scores) for head, _, objectness, scores in heads], 1),
        }

    def cell_classes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Probabilities (N, side, side, classes) of the classes of each cell of YOLOv1, if an object's centre is in it.

        Raises:
            ModelError: classes are not those of cells, but of single boxes.
        """
        (head,) = self.heads if len(self.heads) == 1 else (None,)
        if not isinstance(head, DetectionHead):
            raise ModelError("the boxes of this network have classes of their own", "use yolo_v1, or yolo_v1_tiny")
        classes = outputs["scores"][:, :: head.boxes].float()
        found: Tensor = classes.softmax(2) if head.softmax else classes.clamp(0, 1)
        return found.reshape(len(found), head.side, head.side, -1)

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """Sums over boxes, means over images, of ``"box"``, ``"objectness"`` and ``"class"``: see the heads' losses."""
        raw = torch.cat([outputs[name].float() for name in ("boxes", "objectness", "scores")], 2)
        learns_priors = self.training and self.images_seen < PRIOR_IMAGES
        self.images_seen += len(targets.objects) if self.training else 0
        counts = [head.count(targets.size) for head in self.heads]
        terms = [
            head_losses(head, part, truth, targets.size, learns_priors)
            for rows, truth in zip(raw, targets.objects, strict=True)
            for head, part in zip(self.heads, rows.split(counts), strict=True)
        ]
        total = {name: torch.stack([each[name] for each in terms]).sum() for name in self.loss_weights}
        return self.weighted({name: value / len(targets.objects) for name, value in total.items()})


class DarknetDetector(BoxDetector):
    """A network made from a cfg; its heads tell ``num_classes``, or a tree, apart, whatever the cfg says."""

    def __init__(
        self, sections: Sequence[Section], num_classes: int, image: Shape, tree: WordTree | None = None
    ) -> None:
        resized = with_classes(sections, num_classes if tree is None else len(tree.tree.names))
        graph = Graph(layers_of(resized, image))
        smoothing = sections[0].number("label_smooth_eps", 0, 0, 1)
        super().__init__(*graph.modules(), num_classes, graph.feature_info(), graph, smoothing, tree)
        self.sections = resized

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """The last map of each stride."""
        index_of = {stride: int(name.partition("_")[0]) for stride, (name, _) in self.feature_info.items()}
        maps = self.graph.run([images], self.backbone, self.head, list(index_of.values()))
        return {stride: maps[index] for stride, index in index_of.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of images (N, C, H, W)."""
        return self.outputs([images], self.backbone)


def head_losses(head: Head, raw: Tensor, truth: ObjectTargets, size: Size, learns_priors: bool) -> dict[str, Tensor]:
    """Terms of the loss of one head for one image; ``learns_priors`` as in :func:`region_losses`."""
    if isinstance(head, RegionHead):
        return region_losses(head, raw, truth, size, learns_priors)
    if isinstance(head, DetectionHead):
        return cell_losses(head, raw, truth, size)
    assert isinstance(head, YoloHead)
    return yolo_losses(head, raw, truth, size)
