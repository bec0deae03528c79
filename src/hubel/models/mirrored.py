"""A network that sees each image at several scales, and mirrored: test-time augmentation of models that decide.

The mean probabilities of these views are those of Chen et al. 2018, arXiv 1802.02611, table 3, "MS" and "Flip". What
other models predict is averaged outside of the network (:mod:`hubel.inference.test_time_augmentation`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from hubel.errors import ModelError
from hubel.models.base import Model

SCALES = (0.75, 1.0, 1.25)
"""Sides of the views over those of the network's input."""
_STEP = 8  # pixels, of which the sides of a view are multiples


class Mirrored(Model):
    """Predicts with the mean probabilities of all views. It has no loss: it cannot be trained.

    Args:
        network: gives raw score maps (N, classes, height, width) of images (N, C, H, W) of any size.

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

    def forward(self, images: Tensor) -> dict[str, Any]:
        """By scale, the raw outputs (N, 2, …) for images (N, C, H, W) and for their mirror images, mirrored back."""
        outputs = {}
        for scale in SCALES:
            size = [max(_STEP, round(side * scale / _STEP) * _STEP) for side in images.shape[2:]]
            view = images if scale == 1 else functional.interpolate(images, size, mode="bilinear", align_corners=False)
            # In one batch, as layers that are called once can be fused.
            outputs[f"{scale:g}"] = tree_map(_in_pairs, self.network(torch.cat((view, view.flip(3)))))
        return outputs

    def predictions(self, outputs: dict[str, Any], size: tuple[int, int]) -> dict[str, Tensor]:
        """See :meth:`Model.mean_predictions` of the network."""
        views = [
            tree_map(lambda pairs, side=side: pairs[:, side], of_scale)
            for of_scale in outputs.values()
            for side in (0, 1)
        ]
        network = self.network
        assert isinstance(network, Model)
        return network.mean_predictions(views, size)


def _in_pairs(maps: Tensor) -> Tensor:
    """Maps (2 N, classes, height, width) as (N, 2, classes, height, width), the second of each mirrored back."""
    pairs = maps.unflatten(0, (2, -1))
    return torch.stack((pairs[0], pairs[1].flip(3)), 1)
