"""Appearance vectors from any network: what tells one person, or one car, from another of its kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.errors import ModelError
from hubel.models.registry import Network

SIZE = (128, 64)
"""Height and width of the crops that a classifier's vectors are made of: those of DeepSORT's network."""

_STRIDE = 8
_STRIPES = 8
# Of a vector's length: see StripeEmbedding.
_VARIABLE = 0.45


def embedding_of(model: nn.Module) -> nn.Module:
    """What maps crops (N, C, H, W), ready for the network, to vectors (N, D) of length 1.

    Args:
        model: a network made to embed, which is returned as it is; or one of another task that has a feature pyramid.

    Raises:
        ModelError: it has no map of stride 8, nor of a smaller stride.
    """
    if not isinstance(model, Network):
        raise ModelError("the model has no feature pyramid to make appearance vectors of", "use a registered backbone")
    if getattr(model, "embeds", False):
        return model
    strides = [stride for stride in model.feature_channels if stride <= _STRIDE]
    if not strides:
        raise ModelError(f"the model has no map of stride {_STRIDE} or less", "use another backbone for appearances")
    last = model.part_of_stride(max(strides))
    parts = nn.Sequential()
    for name, part in model.backbone.named_children():
        parts.add_module(name, part)
        if name == last:
            break
    return StripeEmbedding(parts)


class StripeEmbedding(nn.Module):
    """Vectors from an early feature map of a network that has learned to tell classes apart, not individuals.

    Deep maps know that something is a person, whoever it is; that one wears a red jacket, an early map knows. On people
    in PETS09-S2L1, whose tracks are easy to follow, the map of stride 8 of EfficientNet-Lite0 told two people from one
    better than its deeper ones and its pooled features. Eight horizontal stripes are kept apart, as clothes are worn
    one above the other; within a stripe, columns count the less the nearer they are to the sides, where the ground is.

    Such vectors differ from frame to frame as people walk, more than those of a network trained to recognize people. A
    fixed component makes all cosine distances 0.45 times as large, so that DeepSORT's 0.2 is the right limit for them,
    too.

    Args:
        backbone: maps images to feature maps (N, C, H, W).
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, 8 · C + 1) of length 1, of crops (N, C, H, W)."""
        maps = self.backbone(images)
        width = maps.shape[3]
        places = (torch.arange(width, dtype=maps.dtype, device=maps.device) + 0.5) / width
        # 1 in the middle half, falling towards the sides.
        weights = (2 * torch.minimum(places, 1 - places) * 1.6).clamp(max=1)
        columns = (maps * weights).sum(dim=3) / weights.sum()
        stripes = functional.normalize(functional.adaptive_avg_pool1d(columns, _STRIPES).flatten(1), dim=1)
        fixed = torch.full_like(stripes[:, :1], (1 - _VARIABLE) ** 0.5)
        return torch.cat((stripes * _VARIABLE**0.5, fixed), dim=1)
