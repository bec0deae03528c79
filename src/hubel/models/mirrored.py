"""A network that sees each image and its mirror image: test-time augmentation of models that predict decisions.

What other models predict is averaged outside of the network (:mod:`hubel.inference.test_time_augmentation`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hubel.errors import ModelError
from hubel.models.base import Model


class Mirrored(Model):
    """Predicts with the mean probabilities of both. It has no loss: it cannot be trained.

    Args:
        network: gives raw score maps (N, classes, height, width) of images (N, C, H, W).

    Raises:
        ModelError: its predictions cannot be averaged.
    """

    is_sequential = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__(nn.Sequential(), nn.Identity(), {})
        if not isinstance(network, Model):
            raise ModelError(
                f"test-time augmentation cannot average what {type(network).__name__} predicts",
                "omit --tta, or make it a hubel.models.base.Model that defines mean_predictions()",
            )
        self.network = network
        self.prediction_names = network.prediction_names

    def forward(self, images: Tensor) -> Any:
        """The raw outputs (N, 2, …) for images (N, C, H, W) and for their mirror images, which are mirrored back."""
        # In one batch, as layers that are called once can be fused.
        return tree_map(_in_pairs, self.network(torch.cat((images, images.flip(3)))))

    def predictions(self, outputs: Any, size: tuple[int, int]) -> dict[str, Tensor]:
        """See :meth:`Model.mean_predictions` of the network."""
        views = [tree_map(lambda pairs, view=view: pairs[:, view], outputs) for view in (0, 1)]
        network = self.network
        assert isinstance(network, Model)
        return network.mean_predictions(views, size)


def _in_pairs(maps: Tensor) -> Tensor:
    """Maps (2 N, classes, height, width) as (N, 2, classes, height, width), the second of each mirrored back."""
    pairs = maps.unflatten(0, (2, -1))
    return torch.stack((pairs[0], pairs[1].flip(3)), 1)
