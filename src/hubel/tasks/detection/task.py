"""Object detection, from labels of any annotation format: data and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hubel.config import TrainingConfig
from hubel.data.annotated_images import read_annotated_images
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Batch, ImageDataset, Sample, Target
from hubel.data.transforms.object_transform import WindowSampler
from hubel.errors import ModelError, UsageError
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import DetectionScores, score_detection, scores_table
from hubel.metrics.proposal_recall import ImageProposals, proposal_recall, rank_proposals
from hubel.models import architecture
from hubel.models.base import DetectionTargets, Detector, Model, ObjectTargets
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import DetectionMistake
from hubel.results import Detections, Prediction
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.decoding import Thresholds, scale_to_original
from hubel.tasks.detection.decode import select_objects
from hubel.tasks.detection.report import REPORT, detection_mistakes
from hubel.tasks.objects import ObjectData, ObjectTask

THRESHOLDS = Thresholds(conf=0.001, iou=0.6, max_detections=100)
"""Thresholds of scored objects: COCO's precision looks at the best hundred of an image."""

_BATCHES_OF_A_SIZE = 10
_SCALES = (0.75, 1.5)
_STEP = 32  # the largest stride of most detectors


class _Detected(NamedTuple):
    """One image: its objects, and those found; of a sample its file, too. Boxes are in pixels of one image."""

    truth: GroundTruth
    found: PredictedObjects
    path: Path | None
    proposals: ImageProposals | None = None


class DetectionEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`."""

    thresholds = THRESHOLDS

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"boxes"`` (N, A, 4) and ``"scores"`` (N, A, classes); of samples ``"proposals"`` (N, P, 4), too."""
        size = (self.preprocessing.height, self.preprocessing.width)
        proposals = predictions.get("proposals", [None] * len(truths))
        of_images = zip(predictions["boxes"], predictions["scores"], proposals, truths, strict=True)
        for boxes, scores, regions, truth in of_images:
            found = select_objects(boxes, scores, size, self.thresholds)
            if not isinstance(truth, Sample):
                self.images.append(_Detected(labels_of(truth, len(self.classes)), found, None))
                continue
            labelled = GroundTruth(truth.boxes, truth.labels, truth.crowd, truth.areas, labelled=truth.labelled)
            moved = scale_to_original(found.boxes, self.preprocessing, truth.width, truth.height)
            ranked = None if regions is None else proposals_of(truth, regions, self.preprocessing)
            found = PredictedObjects(moved, found.scores, found.labels)
            self.images.append(_Detected(labelled, found, truth.path, ranked))

    def update_results(self, results: Sequence[Prediction], samples: Sequence[Sample]) -> None:
        """Take the best objects of each."""
        limit = self.thresholds.max_detections
        for found, sample in zip(results, samples, strict=True):
            assert isinstance(found, Detections)
            # Labels may have been drawn in a copy of another size.
            scale = np.array([sample.width / found.width, sample.height / found.height] * 2, np.float32)
            best = PredictedObjects(found.boxes[:limit] * scale, found.scores[:limit], found.labels[:limit])
            labelled = GroundTruth(sample.boxes, sample.labels, sample.crowd, sample.areas, labelled=sample.labelled)
            self.images.append(_Detected(labelled, best, sample.path))

    def compute(self) -> DetectionScores:
        """COCO's metrics, and confusion at the confidence that users see."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        recall = proposal_recall([image.proposals for image in self.images if image.proposals is not None])
        return replace(score_detection(truths, found, self.classes), proposals=recall)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the objects found."""
        rows = []
        for image in self.images:
            objects = self._objects(image.found.labels, image.found.boxes)
            objects = [{**each, "score": float(score)} for each, score in zip(objects, image.found.scores, strict=True)]
            truth = self._objects(image.truth.labels, image.truth.boxes)
            rows.append({"source": str(image.path), "truth": truth, "objects": objects})
        return rows

    def _objects(self, labels: np.ndarray, boxes: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"index": int(label), "name": self.classes[label], "box": [round(float(value), 2) for value in box]}
            for label, box in zip(labels, boxes, strict=True)
        ]

    def worst_predictions(self, count: int = 12) -> list[DetectionMistake]:
        """The images with the worst mistakes."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        return detection_mistakes([image.path for image in self.images], truths, found, self.classes, count)


def labels_of(target: Target, classes: int) -> GroundTruth:
    """The objects of a target, then regions to be ignored, as crowds of every class in turn.

    Which class these are of, a target does not say.
    """
    if not len(target.ignored):
        return GroundTruth(target.boxes, target.labels, labelled=target.labelled)
    boxes = np.concatenate((target.boxes, target.ignored.repeat(classes, 0)))
    labels = np.concatenate((target.labels, np.tile(np.arange(classes), len(target.ignored))))
    return GroundTruth(boxes, labels, np.arange(len(labels)) >= len(target.labels), labelled=target.labelled)


def proposals_of(sample: Sample, regions: np.ndarray, preprocessing: Preprocessing) -> ImageProposals:
    """What the proposals (P, 4), in pixels of the network's input, find of the objects of a sample."""
    within = scale_to_original(regions, preprocessing, sample.width, sample.height)
    return rank_proposals(within, sample.boxes[~sample.crowd])


class DetectionData(ObjectData):
    """See :class:`~hubel.tasks.base.TaskData`; models that are trained on crops get those."""

    def __init__(self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]) -> None:
        super().__init__(config, metadata, side, samples)
        self._size = (side, side)
        if architecture(config.model).training_crop is not None:
            self.augmented = WindowSampler(metadata.preprocessing, side, config.augmentation)

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> DetectionTargets:
        """All objects; crowds, and objects to be ignored, are regions without a loss."""
        objects = [objects_of(each, len(self.classes), device) for each in batch.targets]
        return DetectionTargets(objects, (batch.pixels.shape[2], batch.pixels.shape[3]))

    def blend(self, images: Tensor, targets: DetectionTargets, step: int) -> tuple[Tensor, DetectionTargets]:
        """Multi-scale training, if asked for."""
        if "multiscale" not in self.config.augmentation:
            return images, targets
        if step % _BATCHES_OF_A_SIZE == 0:  # an epoch's first batch, too: one that is resumed is like any other
            self._size = draw_size(targets.size)
        return resized(images, targets, self._size)


def objects_of(target: Target, classes: int, device: torch.device) -> ObjectTargets:
    """A target of one of so many ``classes`` as losses take it."""
    parts = (target.boxes, target.labels, target.ignored)
    objects = ObjectTargets(*(torch.from_numpy(part).to(device) for part in parts))
    if target.labelled is None or len(target.labelled) == classes:
        return objects
    labelled = np.isin(np.arange(classes), target.labelled)
    return objects._replace(labelled=torch.from_numpy(labelled).to(device))


def draw_size(size: tuple[int, int]) -> tuple[int, int]:
    """A height and width in multiples of 32 pixels: all from 0.75 to 1.5 times the height are equally likely.

    NumPy's global generator draws, which training seeds for each epoch.
    """
    least, most = (round(factor * size[0] / _STEP) for factor in _SCALES)
    height = _STEP * int(np.random.randint(max(1, least), max(1, most) + 1))
    return height, max(_STEP, round(height * size[1] / size[0] / _STEP) * _STEP)


def resized(images: Tensor, targets: DetectionTargets, size: tuple[int, int]) -> tuple[Tensor, DetectionTargets]:
    """Images (N, C, H, W) scaled to a height and width, and their boxes with them."""
    factors = images.new_tensor([size[1] / targets.size[1], size[0] / targets.size[0]]).repeat(2)
    objects = [
        each._replace(boxes=each.boxes * factors, ignored=None if each.ignored is None else each.ignored * factors)
        for each in targets.objects
    ]
    return functional.interpolate(images, size, mode="bilinear"), DetectionTargets(objects, size)


class Detection(ObjectTask):
    """All objects of an image."""

    name = "detect"
    result = Detections
    refused_augmentations = ()
    network = "one_stage"
    model_type = (Detector, "a detector")
    # COCO's own criterion: of a few images many epochs have nearly all objects at an IoU of 0.5, with unlike boxes.
    monitor = ("AP", "AP50", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"AP50": "AP50", "AP": "AP"}
    data = DetectionData
    evaluator = DetectionEvaluator
    report = REPORT

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """See :class:`ObjectTask`; models that train on crops set the training size."""
        config = super().resolve_config(config)
        arch = architecture(config.model)
        if arch.training_crop is None:
            return config
        side = config.options.get(arch.training_crop, getattr(arch.config, arch.training_crop))
        return replace(config, training_size=int(side))

    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """See :class:`ObjectTask`; refused are masks without a use, and one size where images would have several."""
        metadata = super().prepare_model(config, model, metadata, samples)
        assert isinstance(model, Detector)
        if "masks" in model.prediction_names and not self.has_masks:
            message = f"{config.model} finds the masks of objects, which --task {self.name} has not"
            raise ModelError(message, "use --task instances, or another --model, as faster_rcnn")
        if "multiscale" in config.augmentation and not model.takes_any_size:
            message = f"--augment multiscale: {config.model} is made for images of one size"
            raise UsageError(message, "omit multiscale, or choose another --model")
        return metadata

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """All images, those without objects too."""
        return read_annotated_images(data, strict=strict)

    def scores_table(self, scores: DetectionScores) -> str:
        """Totals, then a line per class; fractions."""
        return scores_table(scores)
