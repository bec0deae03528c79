"""Instance segmentation, from outlines and masks of any annotation format: data and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from hubel.config import TrainingConfig
from hubel.data.instances import read_instances
from hubel.data.samples import Batch, ImageDataset, Sample
from hubel.errors import ModelError
from hubel.metrics.instances import InstanceScores, scores_table
from hubel.models.base import DetectionTargets, Detector, Model
from hubel.models.metadata import ModelMetadata
from hubel.results import Instances as InstanceResult
from hubel.tasks.detection.task import Detection, DetectionData
from hubel.tasks.instances.evaluator import InstanceEvaluator
from hubel.tasks.instances.report import REPORT


class InstanceData(DetectionData):
    """See :class:`~hubel.tasks.base.TaskData`."""

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> DetectionTargets:
        """All objects but crowds, with their masks."""
        plain = super().targets(batch, device, train)
        size = plain.size
        objects = [
            each._replace(masks=_masks(target.masks, size).to(device))
            for each, target in zip(plain.objects, batch.targets, strict=True)
        ]
        return DetectionTargets(objects, size)

    def blend(self, images: Tensor, targets: DetectionTargets, step: int) -> tuple[Tensor, DetectionTargets]:
        """Multi-scale training, if asked for; masks take the value of the nearest pixel."""
        images, scaled = super().blend(images, targets, step)
        if scaled.size == targets.size:
            return images, scaled
        objects = []
        for each in scaled.objects:
            assert each.masks is not None
            masks = functional.interpolate(each.masks[:, None], scaled.size, mode="nearest-exact")[:, 0]
            objects.append(each._replace(masks=masks))
        return images, DetectionTargets(objects, scaled.size)


def _masks(masks: object, size: tuple[int, int]) -> Tensor:
    """Masks as a tensor (M, H, W); an image that stands in for one that cannot be read has none."""
    return torch.zeros((0, *size), dtype=torch.uint8) if masks is None else torch.as_tensor(masks)


class Instances(Detection):
    """All objects of an image, with their pixels."""

    name = "instances"
    result = InstanceResult
    network = "mask_rcnn"
    has_masks = True
    model_type = (Detector, "a network for instance segmentation")
    monitor = ("mask_AP", "mask_AP50", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"mask_AP50": "mask AP50", "mask_AP": "mask AP", "AP": "box AP"}
    data = InstanceData
    evaluator = InstanceEvaluator  # type: ignore[assignment]
    report = REPORT  # type: ignore[assignment]

    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """See :class:`Detection`; networks that find boxes only are refused."""
        if "masks" not in model.prediction_names:
            message = f"{config.model} does not find the masks of objects"
            raise ModelError(message, f"use --model {self.network}, and choose its --backbone")
        return super().prepare_model(config, model, metadata, samples)

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """All images, those without objects too."""
        return read_instances(data, strict=strict)

    def scores_table(self, scores: InstanceScores) -> str:  # type: ignore[override]
        """Totals of masks and boxes, then a line per class; fractions."""
        return scores_table(scores)
