"""What the rows of all families of Darknet's detectors have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hubel.errors import ModelError
from hubel.models.base import Architecture, Classifier, ClassLayers
from hubel.models.darknet.cfg_text import net
from hubel.models.darknet.detector import DarknetDetector
from hubel.models.darknet.heads import Grid
from hubel.models.darknet.on_classifier import STRIDES, OnClassifier
from hubel.models.darknet.word_tree import WordTree
from hubel.weights.darknet_cfg import classes_of, parse_cfg
from hubel.weights.darknet_layers import Shape, layers_of, net_size
from hubel.weights.darknet_tree import parse_map, parse_tree
from hubel.weights.darknet_weights import named, read_darknet


@dataclass(frozen=True)
class DarknetConfig:
    """The text of a Darknet cfg."""

    cfg: str

    def native(self) -> tuple[tuple[int, int, int], int]:
        """Channels, height and width of the images that it asks for, and its number of classes."""
        sections = parse_cfg(self.cfg)
        return (*net_size(sections[0]),), classes_of(sections)

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a ``.weights`` file of this cfg, by the names of the module's state dictionary."""
        sections = parse_cfg(self.cfg)
        return named(read_darknet(path), layers_of(sections, net_size(sections[0])), str(path))

    def classes_of_weights(self) -> int | None:
        """The number of classes that such a file is for; ``None`` if it is not for those of the configuration."""
        return classes_of(parse_cfg(self.cfg))

    def word_tree(self, num_classes: int) -> WordTree | None:
        """The tree of the classes, if there is one."""
        return None


@dataclass(frozen=True)
class YOLOConfig(DarknetConfig):
    """The text of a detector's cfg.

    Attributes:
        neck: the layers that follow its backbone, for a classifier in its place: from layer 3 on, as the classifier's
            maps of stride 8, 16 and 32 are layers 0, 1 and 2.
    """

    neck: str = ""


class WithTree(DarknetConfig):
    """A configuration whose fields ``tree`` and ``map`` are the texts of a tree's and a map's file, or empty."""

    tree: str
    map: str = ""

    def native(self) -> tuple[tuple[int, int, int], int]:
        """See :class:`DarknetConfig`; the classes are those of the map, or of the tree."""
        size, classes = super().native()
        names = self.class_names()
        return size, classes if names is None else len(names)

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that the tree, or the map, has; ``None`` without them, where any can be told apart."""
        if not self.tree:
            return None
        tree = parse_tree(self.tree)
        return tuple(tree.names[index] for index in parse_map(self.map, tree)) if self.map else tree.names

    def classes_of_weights(self) -> int | None:
        """See :class:`DarknetConfig`."""
        count = super().classes_of_weights()
        if not self.tree:
            return count
        return self.native()[1] if len(parse_tree(self.tree).names) == count else None

    def word_tree(self, num_classes: int) -> WordTree | None:
        """The tree, if there is one.

        Raises:
            ModelError: it has another number of classes, or there is a map without it.
        """
        names = self.class_names()
        if names is None:
            if self.map:
                raise ModelError("a map of classes is given, and no tree", "pass the text of the tree's file as tree")
            return None
        if len(names) != num_classes:
            message = f"num_classes={num_classes:,}, and the {'map' if self.map else 'tree'} has {len(names):,} classes"
            raise ModelError(message, "omit num_classes, or pass another tree")
        tree = parse_tree(self.tree)
        return WordTree(tree, parse_map(self.map, tree) if self.map else None)


def build_detector(config: YOLOConfig, num_classes: int, in_channels: int, image_size: int) -> DarknetDetector:
    """The network of a cfg, for images whose height is ``image_size``, a multiple of its largest stride."""
    sections = parse_cfg(config.cfg)
    size = net_size(sections[0])
    parse_cfg(net(size.height) + config.neck)  # it is refused here as well, where no classifier reads it
    image = Shape(in_channels, image_size, round(image_size * size.width / size.height))
    model = DarknetDetector(sections, num_classes, image, config.word_tree(num_classes))
    stride = max((head.stride for head in model.heads if isinstance(head, Grid)), default=1)
    if image_size % stride:
        raise ValueError(f"image_size={image_size} is not a multiple of the stride {stride}")
    return model


def build_on(config: YOLOConfig, num_classes: int, source: Classifier, image_size: int) -> OnClassifier:
    """The neck and the boxes on a classifier, for images whose sides are ``image_size``, a multiple of 32."""
    if image_size % STRIDES[-1]:
        raise ValueError(f"image_size={image_size} is not a multiple of the stride {STRIDES[-1]}")
    return OnClassifier(config.neck, num_classes, source, image_size, config.word_tree(num_classes))


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """Of the weights of a network with three boxes a cell."""
    biases = next((tensor for key, tensor in state.items() if key.startswith("head.") and key.endswith("bias")), None)
    return None if biases is None else len(biases) // 3 - 5


def architecture_row(name: str, config: YOLOConfig, depth: int, reference: str) -> Architecture:
    """The row of a published cfg."""
    size, classes = config.native()
    return Architecture(
        name,
        build_detector,
        config,
        depth=depth,
        reference=reference,
        task="detect",
        input=size,
        num_classes=classes,
        build_on=build_on if config.neck else None,
        class_layers=ClassLayers(r"head\.", _classes_of),
        pixels="unit",
    )
