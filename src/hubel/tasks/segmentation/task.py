"""Semantic segmentation, from images with masks or outlines: data, metrics, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure

from hubel.config import LARGEST_IMAGE_SIZE, TrainingConfig
from hubel.data.checks.training_checks import Findings, check_masks
from hubel.data.class_maps import read_class_maps
from hubel.data.samples import IGNORE_INDEX, Batch, ImageDataset, Sample
from hubel.data.transforms.class_map_transform import (
    CLASS_MAP_AUGMENTATIONS,
    ClassMapTransform,
    check_class_map_augmentations,
)
from hubel.errors import UsageError
from hubel.metrics.segmentation import SegmentationScores
from hubel.models import architecture
from hubel.models.base import Model
from hubel.models.metadata import ModelMetadata
from hubel.models.segmentation.segmenter import SegmentationTargets, Segmenter
from hubel.reports import figures
from hubel.reports.augmentation_preview import augmentation_preview
from hubel.reports.format import percent
from hubel.reports.report_data import AugmentationSample, TaskReport
from hubel.results import SegmentationMap
from hubel.tasks.base import ProgressCallback
from hubel.tasks.objects import ObjectData, ObjectTask
from hubel.tasks.segmentation.evaluator import SegmentationEvaluator

_CROPS = 2  # of an image in an epoch: a validation costs as much as a third of an epoch
_CROPPED = 2 / 3  # a crop's side over that of the input
_ENLARGED = 4 / 3
_SAME_SHAPE = 0.02  # relative difference of width over height
_STEP = 32  # the largest stride of most backbones


def _charts(scores: SegmentationScores) -> Iterator[tuple[str, Figure]]:
    yield "confusion", figures.confusion_matrix(scores.confusion, list(scores.classes))


def _sentences(scores: SegmentationScores, split: str) -> Iterator[str]:
    yield (
        f"In the {scores.images:,} images of the {split}, {percent(scores.pixel_accuracy)} of the labelled pixels have "
        "the right class."
    )
    yield (
        "The IoU of a class is the number of pixels that are correctly predicted as this class, divided by the number "
        "that are labelled or predicted as it; mean IoU is the mean over the classes, which all count the same, "
        "however many pixels they have."
    )


def _of_split(scores: SegmentationScores) -> dict[str, Any]:
    outlines = np.full(len(scores.classes), np.nan) if scores.boundary_iou is None else scores.boundary_iou
    pixels = scores.confusion.sum(1).tolist()
    rows = zip(scores.classes, pixels, scores.iou, scores.accuracy, outlines, strict=True)
    return {"classes": sorted((row for row in rows if row[1]), key=lambda row: float(np.nan_to_num(row[2])))}


class SegmentationData(ObjectData):
    """See :class:`~hubel.tasks.base.TaskData`: square crops in training, whole images in validation."""

    def __init__(self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]) -> None:
        self.config, self.classes = config, metadata.classes
        self.plain = self.transform(metadata.preprocessing)
        balanced = len(self.classes) if config.balance in ("auto", "sampling") else None
        self.augmented = ClassMapTransform(metadata.preprocessing, side, config.augmentation, _CROPS, balanced)
        self._class_weights = None
        if config.balance == "loss":
            self._class_weights = torch.from_numpy(median_frequency(samples, len(self.classes)))
            self.balance_note = "class weights: median frequency over the frequency of the class's pixels"

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> SegmentationTargets:
        """Class maps; values that are not a class do not count. Class weights in training only."""
        maps = np.stack([target.class_map for target in batch.targets if target.class_map is not None])
        class_maps = torch.from_numpy(np.where(maps < len(self.classes), maps, IGNORE_INDEX).astype(np.int64))
        weights = self._class_weights if train else None
        return SegmentationTargets(class_maps.to(device), None if weights is None else weights.to(device))

    def augmentation_preview(self, samples: Sequence[Sample]) -> list[AugmentationSample]:
        """A few training images and random crops of each."""
        size = self.plain.preprocessing
        augmented = ClassMapTransform(size, min(size.height, size.width), self.config.augmentation)
        return augmentation_preview(samples, self.plain, augmented, self.config.seed)

    def describe_augmentations(self) -> list[str]:
        """The crops, and what else is random."""
        names = check_class_map_augmentations(self.config.augmentation)
        side = self.augmented.shape[0]
        crops = f"{_CROPS} crops of {side} × {side} pixels of each image in an epoch, at random positions"
        return [crops, *(CLASS_MAP_AUGMENTATIONS[name] for name in names)]


def median_frequency(samples: Sequence[Sample], classes: int) -> np.ndarray:
    """Weight of each class's pixels, float32 (classes,): the median of all frequencies over its own.

    Eigen and Fergus 2015, arXiv 1411.4734, section 6.3.2; Badrinarayanan et al. 2017, arXiv 1511.00561, section 4: the
    frequency is the number of the class's pixels over that of all pixels of the images in which it occurs. Classes that
    do not occur have weight 0.
    """
    pixels, of_images = np.zeros(classes), np.zeros(classes)
    for sample in samples:
        assert sample.class_map is not None
        class_map = sample.class_map.read().ravel()
        counts = np.bincount(class_map, minlength=classes)[:classes]
        pixels += counts
        of_images += np.where(counts > 0, counts.sum(), 0)
    frequency = pixels / np.maximum(of_images, 1)
    present = frequency > 0
    median = np.median(frequency[present]) if present.any() else 1.0
    return np.where(present, median / np.where(present, frequency, 1), 0).astype(np.float32)


def input_shape(samples: Sequence[Sample], side: int | None, most: int) -> tuple[int, int, bool]:
    """Height and width of the network's input for images like these, and whether all have its shape.

    The median shape, in multiples of 32 pixels. Its shorter side is ``side``; by default a third more than the images
    have, in which thin objects are told apart better, but ``most`` at most.
    """
    sizes = np.array([(sample.height, sample.width) for sample in samples if sample.width])
    if not len(sizes):
        return side or most, side or most, True
    ratios = sizes[:, 1] / sizes[:, 0]
    ratio = float(np.median(ratios))
    if side is None:
        side = min(most, round(float(np.median(sizes.min(1))) * _ENLARGED))
    height, width = (side, side * ratio) if ratio >= 1 else (side / ratio, side)
    same = bool((np.abs(ratios / ratio - 1) < _SAME_SHAPE).all())
    height, width = (min(LARGEST_IMAGE_SIZE, max(_STEP, round(length / _STEP) * _STEP)) for length in (height, width))
    return height, width, same


class Segmentation(ObjectTask):
    """The class of every pixel."""

    name = "segment"
    result = SegmentationMap
    network = "deeplabv3plus"
    model_type = (Segmenter, "a network for segmentation")
    monitor = ("mean_iou", "pixel_accuracy", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    data = SegmentationData
    evaluator = SegmentationEvaluator
    report = TaskReport(
        package="hubel.tasks.segmentation",
        curves={
            "loss": ("Loss per epoch", "Loss: lower is better."),
            "mean_iou": ("Mean IoU per epoch", "Mean IoU of the classes: higher is better."),
        },
        charts=_charts,
        sentences=_sentences,
        of_split=_of_split,
        mistakes="Images with the most wrong pixels",
    )

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """See :class:`ObjectTask`; crops of two thirds of the input's shorter side, where no other is asked for."""
        if config.balance == "smote":
            raise UsageError("--balance smote is for --task classify, not for segment", "use sampling or loss")
        given = config
        plain = replace(config, balance="none", training_size=None, augmentation=())
        config = super().resolve_config(plain)
        size = given.training_size
        if size is None:
            whole = config.image_size or architecture(config.model).input[1]
            size = max(_STEP, round(whole * _CROPPED / _STEP) * _STEP)
        names = check_class_map_augmentations(given.augmentation)
        return replace(config, balance=given.balance, training_size=size, augmentation=names)

    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """See :class:`ObjectTask`; the input gets the shape of the images, so that nothing of them is cut off."""
        metadata = super().prepare_model(config, model, metadata, samples)
        height, width, same = input_shape(samples, config.image_size, architecture(config.model).input[1])
        shape = replace(metadata.preprocessing, height=height, width=width, resize="stretch" if same else "fit")
        return replace(metadata, preprocessing=replace(shape, crop_fraction=1.0))

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """Images with masks, or with the outlines of objects."""
        return read_class_maps(data, strict)

    def check(
        self, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: ProgressCallback
    ) -> Findings:
        """Unreadable images and masks of another size are left out."""
        return check_masks(splits, classes, progress)

    def scores_table(self, scores: SegmentationScores) -> str:
        """Totals, then a line per class; fractions."""
        width = max(len("class"), *(len(name) for name in scores.classes))
        totals = (
            f"mean IoU {scores.mean_iou:.4f}   pixel accuracy {scores.pixel_accuracy:.4f}   "
            f"mean accuracy {scores.mean_accuracy:.4f}   frequency-weighted IoU {scores.frequency_weighted_iou:.4f}"
        )
        rows = zip(scores.classes, scores.iou, scores.accuracy, scores.confusion.sum(1), strict=True)
        lines = [f"{name:<{width}}  {iou:>6.3f}  {accuracy:>8.3f}" for name, iou, accuracy, pixels in rows if pixels]
        return "\n".join([totals, "", f"{'class':<{width}}  {'IoU':>6}  {'accuracy':>8}", *lines])
