"""Scores of objects with masks, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hubel.data.samples import Sample, Target
from hubel.errors import DataError
from hubel.masks import RunLengthMask, box_to_polygon, encode, rasterized, scale_shape, shape_mask
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.instances import InstanceScores, score_instances
from hubel.metrics.proposal_recall import ImageProposals, proposal_recall
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import InstanceMistake
from hubel.results import Instances, Prediction
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.detection.task import THRESHOLDS, labels_of, proposals_of
from hubel.tasks.instances.decode import OUTPUTS, as_torchvision, on_original, select_instances
from hubel.tasks.instances.paste import paste_masks
from hubel.tasks.instances.report import instance_mistakes


class _Segmented(NamedTuple):
    """One image: its objects, and those found; of a sample its file, too. All are in pixels of one image."""

    truth: GroundTruth
    found: PredictedObjects
    path: Path | None
    proposals: ImageProposals | None = None


class InstanceEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`; boundaries are scored for samples only, as that takes time."""

    thresholds = THRESHOLDS

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__(metadata)
        self._metadata = metadata

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"boxes"`` (N, K, 4), ``"scores"`` (N, K, classes) and ``"masks"`` (N, K, S, S).

        Of samples ``"proposals"`` (N, P, 4), too.
        """
        size = (self.preprocessing.height, self.preprocessing.width)
        columns = [predictions[name] for name in OUTPUTS]
        proposals = predictions.get("proposals", [None] * len(truths))
        for boxes, scores, masks, regions, truth in zip(*columns, proposals, truths, strict=True):
            found = select_instances(boxes, scores, masks, size, self.thresholds)
            if isinstance(truth, Sample):
                moved, pasted = on_original(found, self._metadata, truth.width, truth.height)
                predicted = PredictedObjects(moved, found.scores, found.labels, _coco(pasted))
                ranked = None if regions is None else proposals_of(truth, regions, self.preprocessing)
                self.images.append(_Segmented(_labelled(truth), predicted, truth.path, ranked))
            else:
                labelled = self._of_target(truth, *size)
                pasted = paste_masks(found.masks, found.boxes, *size, as_torchvision(self._metadata))
                predicted = PredictedObjects(found.boxes, found.scores, found.labels, _coco(pasted))
                self.images.append(_Segmented(labelled, predicted, None))

    def _of_target(self, target: Target, height: int, width: int) -> GroundTruth:
        """See :func:`~hubel.tasks.detection.task.labels_of`."""
        regions = [rasterized([box_to_polygon(*box)], (), height, width) for box in target.ignored.tolist()]
        masks = [encode(mask) for mask in (() if target.masks is None else target.masks)]
        masks += [region for region in regions for _ in self.classes]
        return replace(labels_of(target, len(self.classes)), masks=_coco(masks))

    def update_results(self, results: Sequence[Prediction], samples: Sequence[Sample]) -> None:
        """Take the best objects of each."""
        limit = self.thresholds.max_detections
        for found, sample in zip(results, samples, strict=True):
            assert isinstance(found, Instances) and found.masks is not None
            # Labels may have been drawn in a copy of another size.
            x, y = sample.width / found.width, sample.height / found.height
            boxes = found.boxes[:limit] * np.array([x, y, x, y], np.float32)
            masks = [
                mask
                if (x, y) == (1, 1)
                else shape_mask(scale_shape(mask, x, y, sample.height, sample.width), sample.height, sample.width)
                for mask in found.masks[:limit]
            ]
            best = PredictedObjects(boxes, found.scores[:limit], found.labels[:limit], _coco(masks))
            self.images.append(_Segmented(_labelled(sample), best, sample.path))

    def compute(self) -> InstanceScores:
        """COCO's metrics of boxes and masks, and confusion at the confidence that users see."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        of_samples = any(image.path is not None for image in self.images)
        scores = score_instances(truths, found, self.classes, with_boundaries=of_samples)
        recall = proposal_recall([image.proposals for image in self.images if image.proposals is not None])
        return replace(scores, objects=replace(scores.objects, proposals=recall))

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the objects found, with masks as COCO's run lengths."""
        rows = []
        for image in self.images:
            objects = self._objects(image.found)
            scores = image.found.scores
            objects = [{**each, "score": float(score)} for each, score in zip(objects, scores, strict=True)]
            rows.append({"source": str(image.path), "truth": self._objects(image.truth), "objects": objects})
        return rows

    def _objects(self, side: GroundTruth | PredictedObjects) -> list[dict[str, Any]]:
        columns = zip(side.labels.tolist(), side.boxes.tolist(), side.masks or (), strict=True)
        return [
            {"index": label, "name": self.classes[label], "box": [round(value, 2) for value in box], "mask": mask}
            for label, box, mask in columns
        ]

    def worst_predictions(self, count: int = 12) -> list[InstanceMistake]:
        """The images with the worst mistakes."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        return instance_mistakes([image.path for image in self.images], truths, found, self.classes, count)


def _labelled(sample: Sample) -> GroundTruth:
    try:
        masks = sample.masks()
    except ValueError as error:
        raise DataError(f"{sample.path}: {error}", "correct or remove the object") from error
    return GroundTruth(sample.boxes, sample.labels, sample.crowd, sample.areas, _coco(masks), sample.labelled)


def _coco(masks: Sequence[RunLengthMask]) -> list[dict[str, Any]]:
    return [mask.to_coco() for mask in masks]
