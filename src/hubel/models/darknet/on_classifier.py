"""YOLO's heads on any classifier: the layers that follow the backbone of a cfg read a classifier's maps instead."""

from __future__ import annotations

from torch import Tensor

from hubel.models.base import Classifier
from hubel.models.darknet.cfg_text import net, section
from hubel.models.darknet.detector import BoxDetector
from hubel.models.darknet.graph import Graph
from hubel.models.darknet.heads import YoloHead
from hubel.models.darknet.word_tree import WordTree
from hubel.weights.darknet_cfg import parse_cfg, with_classes
from hubel.weights.darknet_layers import Shape, layers_of

STRIDES = (8, 16, 32)
"""Those of the classifier's maps, which are layers 0, 1 and 2 of the cfg that reads them."""


class OnClassifier(BoxDetector):
    """A classifier's backbone up to stride 32, the layers of a cfg on its maps, and boxes.

    Args:
        neck: text of the layers from 3 on.
        source: the classifier.
        image_size: side of square images in pixels.
        tree: see :class:`~hubel.models.darknet.detector.BoxDetector`.

    Raises:
        ModelError: the classifier lacks one of the maps.
    """

    def __init__(
        self, neck: str, num_classes: int, source: Classifier, image_size: int, tree: WordTree | None = None
    ) -> None:
        source.require_detection_maps("it")
        # Convolutions that would give maps of these sizes stand for those of the classifier.
        maps = "".join(
            section("convolutional", filters=source.feature_info[stride][1], stride=8 if stride == 8 else 2)
            for stride in STRIDES
        )
        count = num_classes if tree is None else len(tree.tree.names)
        sections = with_classes(parse_cfg(net(image_size) + maps + neck), count)
        graph = Graph(layers_of(sections, Shape(1, image_size, image_size)), given=len(STRIDES))
        layers, head = graph.modules()
        info = {stride: pair for stride, pair in source.feature_info.items() if stride <= STRIDES[-1]}
        super().__init__(source.backbone_up_to(STRIDES[-1]), head, num_classes, info, graph, tree=tree)
        self.neck = layers
        # The loss of [yolo] is a sum over all boxes, of which few have an object.
        if any(isinstance(each, YoloHead) for each in self.heads):
            self.begin_without_objects()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of images (N, C, H, W)."""
        maps = self.features(images)
        return self.outputs([maps[stride] for stride in STRIDES], self.neck)
