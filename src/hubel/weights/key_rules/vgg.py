"""AlexNets as torchvision names them, VGGs as torchvision, timm and Keras do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hubel.weights.key_rules import (
    KeyRules,
    Rules,
    convolution_as_dense,
    flattened_channels_last,
    fold_convolution_biases,
    reversed_input,
)

_ALEXNET_CONVOLUTIONS = {0: "stage1.0", 3: "stage2.0", 6: "stage3.0", 8: "stage3.1", 10: "stage3.2"}
_ALEXNET: Rules = (
    *((rf"features\.{theirs}", f"backbone.{ours}.conv") for theirs, ours in _ALEXNET_CONVOLUTIONS.items()),
    (r"classifier\.1", "head.fc1"),
    (r"classifier\.4", "head.fc2"),
    (r"classifier\.6", "head.classifier"),
)


DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_HEADS: Rules = (  # torchvision's, then timm's, whose dense layers are convolutions
    (r"classifier\.0", "head.fc1"),
    (r"classifier\.3", "head.fc2"),
    (r"classifier\.6", "head.classifier"),
    (r"pre_logits\.fc(\d)", r"head.fc\1"),
    (r"head\.fc", "head.classifier"),
)
_KERAS: Rules = (
    *((rf"block(\d)_conv{index + 1}", rf"backbone.stage\1.{index}.conv") for index in range(4)),
    (r"fc(\d)", r"head.fc\1"),
    (r"predictions", "head.classifier"),
)
_WHOLE_IMAGE = {"grid": 7}  # the dense layers of all published files read 7 × 7 pixels


def numbered_layers(depths: Iterable[int], batch_norm: bool, features: str = "features") -> Iterator[tuple[str, str]]:
    """Both number convolutions, normalizations, ReLUs and poolings through, in a module called ``features``."""
    position = 0
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            unit = f"backbone.stage{stage}.{index}"
            yield rf"{features}\.{position}", f"{unit}.conv"
            if batch_norm:
                yield rf"{features}\.{position + 1}", f"{unit}.norm"
            position += 3 if batch_norm else 2
        position += 1


def _numbered(architecture: str, batch_norm: bool) -> KeyRules:
    """timm's and torchvision's: they differ in the head alone."""
    depths = DEPTHS[architecture]
    second_convolution = 2 if depths[0] > 1 else 3  # at this number a network with normalization has no weights
    return KeyRules(
        f"torchvision's and timm's {architecture}{'_bn' if batch_norm else ''}",
        architecture,
        "features.1.running_mean" if batch_norm else f"features.{second_convolution}.weight",
        (*numbered_layers(depths, batch_norm), *_HEADS),
        adaptations=(
            convolution_as_dense("head.fc1.weight"),
            convolution_as_dense("head.fc2.weight"),
            *((fold_convolution_biases,) if batch_norm else ()),
        ),
        settings={**_WHOLE_IMAGE, "batch_norm": batch_norm},
    )


KEY_RULES = (
    # A grid of 6 whatever the image size: the dense layers read as much in every such file.
    KeyRules("torchvision's AlexNet", "alexnet_owt", "features.10.weight", _ALEXNET, settings={"grid": 6}),
    *(_numbered(architecture, batch_norm) for architecture in DEPTHS for batch_norm in (False, True)),
    KeyRules(
        "Keras's VGGs",
        "vgg1[69]",
        "block1_conv1.weight",
        _KERAS,
        adaptations=(
            reversed_input("backbone.stage1.0.conv.weight"),
            flattened_channels_last("head.fc1.weight", 512),
        ),
        settings=_WHOLE_IMAGE,
    ),
)
