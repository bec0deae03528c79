"""The dense layers that AlexNet, ZFNet and VGG end in."""

from __future__ import annotations

from torch import nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ReLU

_HIDDEN = 4096


class DenseHead(nn.Sequential):
    """Two hidden dense layers of 4096 units with ReLU and dropout, and the dense layer of the classes.

    What the first one reads has a fixed size: the maps are averaged over a grid. Maps (N, channels, grid, grid), as
    the image size that the network was built for gives them, pass as they are. Maps (N, channels, H, W) become
    scores (N, num_classes).

    Args:
        channels: of the maps.
        grid: side of the grid in pixels of the maps.
        num_classes: units of the last layer.
        dropout: share of values dropped in training, 0..1.
        dropout_before: drop what the two hidden layers read (torchvision's AlexNet), instead of what they give
            (Krizhevsky et al. 2012, section 4.2).
    """

    classifier: nn.Linear

    def __init__(
        self, channels: int, grid: int, num_classes: int, dropout: float = 0.5, dropout_before: bool = False
    ) -> None:
        super().__init__()
        self.add_module("pool", nn.AdaptiveAvgPool2d(grid))
        self.add_module("flatten", nn.Flatten())
        for number, features in ((1, channels * grid**2), (2, _HIDDEN)):
            if dropout_before:
                self.add_module(f"dropout{number}", nn.Dropout(dropout))
            self.add_module(f"fc{number}", nn.Linear(features, _HIDDEN))
            self.add_module(f"activation{number}", ReLU())
            if not dropout_before:
                self.add_module(f"dropout{number}", nn.Dropout(dropout))
        self.add_module("classifier", nn.Linear(_HIDDEN, num_classes))


def grid_side(family: str, image_size: int, lost: int, grid: int | None) -> int:
    """Side of the grid that the dense layers read, after five halvings.

    Args:
        family: for messages.
        image_size: side of the images in pixels.
        lost: pixels of the images' side that convolutions and pooling without padding cost.
        grid: what the user asks for, if anything; by default all that is left of an image, pixel by pixel.

    Raises:
        ModelError: nothing is left of such images.
    """
    left = (image_size - lost) // 32
    if left < 1:
        raise ModelError(
            f"{family} has nothing left of an image of {image_size} pixels.", f"Give at least {lost + 32}."
        )
    return left if grid is None else grid
