"""A detector whose graph ends in objects: decoding and suppression inside, and the check of a file of that kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from hubel import boxes as geometry
from hubel.errors import ModelError
from hubel.runtime.exporting.agreement import REMEDY, TOLERANCE
from hubel.tasks.found_objects import FoundObjects, Suppression, find_objects

OUTPUTS = ("boxes", "scores", "labels")
"""The names of such a file's outputs, in order."""

_MISSING = {"fp32": 0.02}
_OFTEN_MISSING = 0.1
"""Share of the objects that may come out otherwise: a rounding decides which of two boxes suppresses the other."""


class Objects(nn.Module):
    """What :func:`hubel.tasks.found_objects.find_objects` does, for a graph, on one image.

    Classes lie side by side for the suppression, so that boxes of different ones never overlap.

    Args:
        network: maps normalized images (1, C, H, W) to raw scores (1, A, 1 + classes) and offsets (1, A, 4), float32.
        anchors: (A, 4) in pixels.
        size: height and width of the images in pixels.
        rule: thresholds.
    """

    anchors: Tensor

    def __init__(self, network: nn.Module, anchors: np.ndarray, size: tuple[int, int], rule: Suppression) -> None:
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


def check_found(
    run: Callable[[np.ndarray], dict[str, np.ndarray]],
    pixels: np.ndarray,
    raw: dict[str, np.ndarray],
    anchors: np.ndarray,
    rule: Suppression,
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
        wanted = find_objects(raw["scores"][image], raw["offsets"][image], anchors, size, rule)
        answers = run(np.ascontiguousarray(pixels[image : image + 1]))
        got = FoundObjects(*(answers[name] for name in OUTPUTS))
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
