"""What an exported file computes: from uint8 pixels to what a program without hubel wants to know."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from hubel import boxes as geometry
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError
from hubel.exporters.parity import REMEDY, TOLERANCE
from hubel.inference.fusion import fold
from hubel.models.base import Classifier
from hubel.tasks.detection.decode import FoundObjects, NMSConfig, decode_detections

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
        outputs: Tensor | dict[str, Tensor] = self.network(images.to(self._dtype))
        if isinstance(outputs, Tensor):
            return torch.softmax(outputs.float(), dim=1)
        return tuple(output.float() for output in outputs.values())


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
    answers = (torch.softmax(outputs.float(), dim=1),) if isinstance(outputs, Tensor) else tuple(outputs.values())
    return {name: answer.float().numpy() for name, answer in zip(names, answers, strict=True)}


DETECTION_OUTPUTS = ("boxes", "scores", "labels")
"""The names of such a file's outputs, in order."""

_MISSING = {"fp32": 0.02}
_OFTEN_MISSING = 0.1
"""Share of the objects that may come out otherwise: a rounding decides which of two boxes suppresses the other."""


class DetectorWithNMS(nn.Module):
    """What :func:`hubel.tasks.detection.decode.decode_detections` does, for a graph, on one image.

    Classes lie side by side for the suppression, so that boxes of different ones never overlap.

    Args:
        network: maps normalized images (1, C, H, W) to raw scores (1, A, 1 + classes) and offsets (1, A, 4), float32.
        anchors: (A, 4) in pixels.
        size: height and width of the images in pixels.
        rule: thresholds.
    """

    anchors: Tensor

    def __init__(self, network: nn.Module, anchors: np.ndarray, size: tuple[int, int], rule: NMSConfig) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("anchors", torch.from_numpy(anchors))
        self._size, self._rule = size, rule

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4) in pixels of the image, scores (K,), labels (K,), best first."""
        scores, offsets = self.network(images)
        probabilities = torch.softmax(scores[0], -1)[:, 1:]
        anchor, label = torch.nonzero(probabilities >= self._rule.conf, as_tuple=True)
        score = probabilities[anchor, label]
        height, width = self._size
        boxes = geometry.clip(geometry.decode(offsets[0], self.anchors, geometry.SSD_VARIANCES), width, height)[anchor]
        apart = boxes + (label * (max(self._size) + 1)).unsqueeze(1)
        kept = torchvision.ops.nms(apart, score, self._rule.iou)[: self._rule.most]
        return boxes[kept], score[kept], label[kept]


def check_detections(
    run: Callable[[np.ndarray], dict[str, np.ndarray]],
    pixels: np.ndarray,
    raw: dict[str, np.ndarray],
    anchors: np.ndarray,
    rule: NMSConfig,
    precision: str,
    file: str,
) -> float:
    """Run a file on each image and compare what it finds with what is found in the model's raw outputs.

    Args:
        run: from pixels (1, H, W, C) to outputs by name.
        pixels: uint8 (N, H, W, C).
        raw: the model's ``scores`` and ``offsets`` of them.
        anchors: float32 (A, 4), in pixels.
        rule: thresholds.
        precision: the file's.
        file: its name, for the message.

    Returns:
        The greatest difference of a score, or of a box's place as a share of the picture's side, among the objects that
        both have.

    Raises:
        ModelError: it finds something else.
    """
    size, worst = (pixels.shape[1], pixels.shape[2]), 0.0
    for image in range(len(pixels)):
        wanted = decode_detections(raw["scores"][image], raw["offsets"][image], anchors, size, rule)
        answers = run(np.ascontiguousarray(pixels[image : image + 1]))
        got = FoundObjects(*(answers[name] for name in DETECTION_OUTPUTS))
        # What is about as probable as the threshold may be found or not.
        sure = rule.conf + TOLERANCE[precision]
        differences = [
            _nearest(one, place, other, size)
            for one, other in ((wanted, got), (got, wanted))
            for place in np.flatnonzero(one.scores > sure).tolist()
        ]
        met = [difference for difference in differences if difference <= TOLERANCE[precision]]
        if len(differences) - len(met) > _MISSING.get(precision, _OFTEN_MISSING) * len(differences):
            raise ModelError(
                f"{file} ({precision}) finds {len(got.scores)} objects where the model finds {len(wanted.scores)}, and "
                f"{1 - len(met) / len(differences):.0%} of them are others.",
                REMEDY,
            )
        worst = max([worst, *met])
    return worst


def _nearest(wanted: FoundObjects, place: int, got: FoundObjects, size: tuple[int, int]) -> float:
    """By how much the most similar object of the same class differs from an object; infinite if there is none."""
    same = got.labels == wanted.labels[place]
    sides = np.array([size[1], size[0]] * 2)
    boxes = np.abs((got.boxes[same] - wanted.boxes[place]) / sides).max(axis=1, initial=0)
    scores = np.abs(got.scores[same] - wanted.scores[place])
    return float(np.maximum(boxes, scores).min(initial=np.inf))
