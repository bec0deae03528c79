"""What an exported file computes: from uint8 pixels to what a program without hubel wants to know."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hubel.data.preprocessing import Preprocessing
from hubel.models.registry import Classifier
from hubel.runtime.fusion import fold

OUTPUTS = {"classify": ("probabilities",), "detect": ("scores", "offsets")}
"""The names of a file's outputs, in order, by task."""


class Answers(nn.Module):
    """A classifier that ends in probabilities, or a detector as it is.

    Engines of hubel want raw scores, and its tasks decode them; a program without hubel wants what they mean. Of a
    detector that takes its anchors too, which go into the metadata, and what finds the objects is in the example.

    Args:
        network: maps images (N, C, H, W) to raw scores (N, classes); it is left as it is, a copy is prepared: batch
            normalization in the weights before it, nothing that only training needs.
        dtype: of weights and feature maps. Images come and probabilities leave in float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = fold(network).cpu()
        if isinstance(self.network, Classifier):
            self.network.auxiliary = nn.ModuleDict()
        self.network.requires_grad_(False).to(dtype)
        if dtype != torch.float32:
            _protect_squares(self.network)
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Probabilities (N, classes), each row of sum 1, of normalized images (N, C, H, W); or raw outputs."""
        outputs: Tensor | tuple[Tensor, ...] = self.network(images.to(self._dtype))
        if isinstance(outputs, Tensor):
            return torch.softmax(outputs.float(), dim=1)
        return tuple(output.float() for output in outputs)


class _InFloat32(nn.Module):
    """A layer that computes in float32 whatever it is given, and gives back the same kind."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        """What the layer makes of the maps."""
        result: Tensor = self.layer(maps.float()).to(maps.dtype)
        return result


def _protect_squares(network: nn.Module) -> None:
    """Compute local response normalization in float32, as torch has no other on CPUs.

    It squares the maps, too, and half floats end at 65504, which is less than 256².
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LocalResponseNorm):
                setattr(parent, name, _InFloat32(child))


@torch.inference_mode()
def answers_of(
    network: nn.Module, preprocessing: Preprocessing, pixels: np.ndarray, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """What a model itself says, in float32, as plain torch computes it: what exported files have to agree with.

    Args:
        network: maps images (N, C, H, W) to raw outputs (N, …), on the CPU, in evaluation mode.
        preprocessing: the model's.
        pixels: uint8 (N, height, width, channels).
        names: of the outputs.

    Returns:
        Name of each output → float32 (N, …).
    """
    images = preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    outputs = network(images)
    answers = (torch.softmax(outputs.float(), dim=1),) if isinstance(outputs, Tensor) else outputs
    return {name: answer.float().numpy() for name, answer in zip(names, answers, strict=True)}
