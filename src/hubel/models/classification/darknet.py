"""Classifiers of any Darknet cfg.

``darknet_classifier`` is what the option ``cfg``, the text of a file, says; commands take the file itself::

    hubel predict dog.jpg --model darknet53.cfg --weights darknet53.weights

By default it is ``darknet.cfg``, the reference network of Redmon's Darknet (pjreddie.com/darknet/imagenet): a 3×3
convolution of 16 channels, six times a pooling and a 3×3 convolution of twice as many (32 to 1024), a 1×1 convolution
for the classes, and their mean.

Deviations: the whole image is stretched, where Darknet crops its middle square. A softmax at the end is part of the
predictions, not of the network.

With the option ``tree``, the text of a word tree (:mod:`hubel.weights.darknet_tree`; ``9k.tree`` of
``darknet9000.cfg``), each group of siblings has a softmax ("Hierarchical classification" in section 4 of Redmon and
Farhadi 2017, arXiv 1612.08242). Probabilities are those of the classes without children, as in Darknet; 0 for others.
The loss is the cross-entropy of every group on the way from the label, any class of the tree, to the root.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hubel.models.base import Architecture, Classifier, ClassLayers, ClassTargets
from hubel.models.darknet.cfg_text import conv, net, section
from hubel.models.darknet.families import DarknetConfig, WithTree
from hubel.models.darknet.graph import Graph
from hubel.models.darknet.heads import require_tree
from hubel.models.darknet.word_tree import WordTree
from hubel.weights.darknet_cfg import Section, parse_cfg, with_classes
from hubel.weights.darknet_layers import Shape, layers_of, net_size

_AFTER = ("softmax", "cost", "dropout")  # what may follow the scores


@dataclass(frozen=True)
class ClassifierConfig(WithTree, DarknetConfig):
    """The text of a cfg, and that of its tree of classes; empty: they exclude each other."""

    tree: str = ""


class _Head(nn.Sequential):
    """The layers from the one that tells classes apart; the mean over positions, over the softmax's temperature."""

    def __init__(self, layers: nn.ModuleDict, temperature: float) -> None:
        super().__init__(OrderedDict(layers.items()))
        self._temperature = temperature

    def forward(self, maps: Tensor) -> Tensor:
        """Raw class scores (N, classes) of maps (N, C, H, W)."""
        for layer in self:
            maps = layer(maps)
        return maps.mean((2, 3)) / self._temperature


class DarknetClassifier(Classifier):
    """A network made from a cfg; its last layer with weights tells ``num_classes`` apart, whatever the cfg says."""

    is_sequential = False

    def __init__(
        self, sections: Sequence[Section], num_classes: int, image: Shape, tree: WordTree | None = None
    ) -> None:
        self.sections = with_classes(sections, num_classes)
        count, temperature = len(sections), 1.0
        while sections[count - 1].kind in _AFTER:
            last = sections[count - 1]
            require_tree(last, tree)
            if last.kind == "softmax":
                temperature = last.number("temperature", 1, 1e-6)
            count -= 1
        self.graph = Graph(layers_of(self.sections[:count], image))
        backbone, head = self.graph.modules()
        self._last = len(backbone) - 1
        if any(layer.kind in ("route", "shortcut") for layer in self.graph.layers[self._last + 1 :]):
            raise sections[-1].error("layers after the one that gives the classes read others than those before them")
        super().__init__(backbone, _Head(head, temperature), self.graph.feature_info())
        self.tree = tree

    def forward(self, images: Tensor) -> Tensor:
        """Raw class scores (N, classes) of images (N, C, H, W)."""
        maps = self.graph.run([images], self.backbone, self.head, [self._last])[self._last]
        scores: Tensor = self.head(maps)
        return scores

    def training_outputs(self, images: Tensor, targets: object = None) -> Tensor:
        """Those of :meth:`forward`."""
        scores: Tensor = self(images)
        return scores

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Softmax of raw scores (N, classes); with a tree the probabilities of classes without children."""
        if self.tree is None:
            return super().predictions(outputs, size)
        return {"probabilities": self.tree.leaf_probabilities(outputs.float())}

    def losses(self, outputs: Tensor | dict[str, Tensor], targets: ClassTargets) -> dict[str, Tensor]:
        """Cross-entropy; with a tree, that of all groups on the way from the label to the root."""
        if self.tree is None:
            return super().losses(outputs, targets)
        assert isinstance(outputs, Tensor)
        return {"class": targets.negative_log_likelihood(self.tree.log_probabilities(outputs.float()))}

    def training_metrics(self, outputs: Tensor | dict[str, Tensor], targets: ClassTargets) -> dict[str, float]:
        """Correctly classified images."""
        if self.tree is not None:
            assert isinstance(outputs, Tensor)
            outputs = self.tree.leaf_probabilities(outputs.detach().float())
        return super().training_metrics(outputs, targets)

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """The last map of each stride."""
        index_of = {stride: int(name.partition("_")[0]) for stride, (name, _) in self.feature_info.items()}
        maps = self.graph.run([images], self.backbone, self.head, list(index_of.values()))
        return {stride: maps[index] for stride, index in index_of.items()}


def build(config: ClassifierConfig, num_classes: int, in_channels: int, image_size: int) -> DarknetClassifier:
    """The network of a cfg for images of a height."""
    sections = parse_cfg(config.cfg)
    size = net_size(sections[0])
    image = Shape(in_channels, image_size, round(image_size * size.width / size.height))
    return DarknetClassifier(sections, num_classes, image, config.word_tree(num_classes))


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    biases = next((tensor for key, tensor in state.items() if key.startswith("head.") and key.endswith("bias")), None)
    return None if biases is None else len(biases)


def _cfg() -> str:
    pool = section("maxpool", size=2, stride=2)
    text = conv(16, 3) + "".join(pool + conv(32 << number, 3) for number in range(6))
    last = section("convolutional", filters=1000, size=1, stride=1, pad=1, activation="linear")
    return net(256) + text + last + section("avgpool") + section("softmax", groups=1)


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "darknet_classifier",
        build,
        ClassifierConfig(_cfg()),
        depth=8,
        reference="Darknet's cfgs; darknet.cfg by default",
        input=(3, 256, 256),
        class_layers=ClassLayers(r"head\.", _classes_of),
        pixels="unit",
    ),
)
