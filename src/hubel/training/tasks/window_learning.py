"""What a classifier of windows learns from: crops with an object in the middle, and without."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from hubel.config import TrainingConfig
from hubel.data.preprocessing import Preprocessing
from hubel.data.transforms.object_transform import ObjectTransform
from hubel.data.transforms.window_sampler import WindowSampler
from hubel.models.detection.sliding_window import SlidingWindowConfig
from hubel.tasks.windows import window_terms
from hubel.training.sample_images import SampleImages
from hubel.training.tasks.detection_learning import DetectionLearning, ObjectLabels

WINDOWS = "sliding_window"


def with_window_size(config: TrainingConfig) -> TrainingConfig:
    """The configuration with training images of the window's size."""
    window = config.options.get("window", SlidingWindowConfig().window)
    return replace(config, training_size=int(window))


class WindowLearning(DetectionLearning):
    """See :class:`hubel.training.task.Objective`: the windows of a training crop are one, of a whole picture all."""

    def terms(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> dict[str, Tensor]:
        """Of what the windows show, and of the offsets of those that show an object."""
        return self._judged(output, labels)[0]

    def sums(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> dict[str, float]:
        """How many crops are rightly told apart, of those that count."""
        return {"windows": float(self._judged(output, labels)[1]) * len(labels.targets)}

    def _judged(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> tuple[dict[str, Tensor], Tensor]:
        scores, offsets = output
        windows = self.anchors(*labels.size).to(scores.device)
        return window_terms(scores, offsets, windows, labels.targets)


def window_images(preprocessing: Preprocessing, window: int, config: TrainingConfig) -> SampleImages:
    """Crops of a window's size to train on, whole images to validate."""
    crops = WindowSampler(preprocessing, window, config.augmentation)
    return SampleImages(crops, ObjectTransform(preprocessing), config.seed)
