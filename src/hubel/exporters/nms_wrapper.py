"""Detectors whose exported graph ends in objects: score threshold and NMS within the file."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from hubel.boxes import clip
from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.tasks.decoding import Thresholds

OUTPUTS = ("boxes", "scores", "labels")
"""The names of such a file's outputs, in order."""


class DetectorWithNMS(NormalizedModel):
    """As :func:`hubel.tasks.detection.decode.select_objects` in a graph, of one image.

    Args:
        model: a detector; see :class:`NormalizedModel`.
        preprocessing: of the model.
        dtype: of weights and feature maps.
        thresholds: what is selected; classes have no limit of candidates.
    """

    static_batch = True

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype, thresholds: Thresholds
    ) -> None:
        super().__init__(model, preprocessing, dtype)
        self.output_names = OUTPUTS
        self._thresholds = thresholds

    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """Boxes (K, 4) in pixels of the input, scores (K,), labels (K,), best first, of pixels (1, H, W, C)."""
        dense = super().predict(pixels)
        all_boxes, all_scores = dense["boxes"][0], dense["scores"][0]
        box, labels = torch.nonzero(all_scores >= self._thresholds.conf, as_tuple=True)
        scores = all_scores[box, labels]
        height, width, _ = self.input_size
        boxes = clip(all_boxes, width, height)[box]
        # Classes lie side by side, so that boxes of different ones never overlap.
        apart = boxes + (labels * (max(height, width) + 1)).unsqueeze(1)
        kept = torchvision.ops.nms(apart, scores, self._thresholds.iou)[: self._thresholds.max_detections]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
