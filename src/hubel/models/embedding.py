"""Appearance vectors from any network: what tells one person, or one car, from another of its kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.errors import ModelError
from hubel.models.base import Model
from hubel.tracking.appearance import column_weights

SIZE = (128, 64)
"""Height and width of the crops that a classifier's vectors are made of: those of DeepSORT's network."""

_STRIDE = 16
_STRIPES = 2


def embeds(model: nn.Module) -> bool:
    """Whether a network was made to give appearance vectors."""
    return getattr(model, "embeds", False)


def embedding_of(model: nn.Module) -> nn.Module:
    """What maps crops (N, C, H, W), ready for the network, to vectors (N, D) of length 1.

    Args:
        model: a network made to embed, whose own vectors are taken; or a backbone with a head for another task.

    Raises:
        ModelError: it is neither, or its maps are never as small as a sixteenth of the crop.
    """
    if not isinstance(model, Model):
        raise ModelError("the model is no backbone to make appearance vectors of", "use a registered network")
    if embeds(model):
        return Vectors(model)
    channels = next(parameter for parameter in model.parameters() if parameter.ndim == 4).shape[1]
    parts, signal = nn.Sequential(), torch.zeros(1, channels, *SIZE)
    with torch.no_grad():
        for name, part in model.eval().backbone.named_children():
            parts.add_module(name, part)
            signal = part(signal)
            if signal.shape[2] <= SIZE[0] // _STRIDE:
                return StripeEmbedding(parts)
    raise ModelError(f"the model has no map of stride {_STRIDE}", "use another backbone for appearances")


class Vectors(nn.Module):
    """What a network that was made to embed gives: see :mod:`hubel.models.classification.deepsort_reid`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, D) of length 1, of crops (N, C, H, W)."""
        vectors: Tensor = self.model.embed(images)  # type: ignore[operator]
        return vectors


class StripeEmbedding(nn.Module):
    """Vectors from a middle feature map of a network that has learned to tell classes apart, not individuals.

    Deep maps know that something is a person, whoever it is; what it wears, earlier ones know. On people in PETS09-S2L1
    whose tracks are easy to follow, the first map of stride 16 of EfficientNet-Lite0 told two people from one better
    than its last maps and its pooled features. The upper and the lower half are kept apart, as jackets and trousers
    are; within each, columns count the less the nearer they are to the sides, where the ground is.

    Args:
        backbone: maps images to feature maps (N, C, H, W).
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, 2 · C) of length 1, of crops (N, C, H, W)."""
        maps = self.backbone(images)
        weights = torch.from_numpy(column_weights(maps.shape[3])).to(maps)
        columns = (maps * weights).sum(dim=3) / weights.sum()
        halves = functional.adaptive_avg_pool1d(columns, _STRIPES).flatten(1)
        return functional.normalize(halves, dim=1)
