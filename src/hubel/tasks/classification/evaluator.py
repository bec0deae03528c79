"""Scores a classifier image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hubel.data.samples import Sample, Target
from hubel.metrics.classification import ClassificationScores, ImageScore, combine_images, score_images
from hubel.reports.report_data import Mistake
from hubel.results import ClassScore
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.classification.decode import top_k

_BEST = 5


class _Classified(NamedTuple):
    """One image: its label and prediction; of a sample its file and best classes, too."""

    score: ImageScore
    path: Path | None
    best: tuple[ClassScore, ...]


class ClassificationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`.

    Args:
        classes: names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self._classes = classes

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"probabilities"`` (N, classes)."""
        probabilities = predictions["probabilities"]
        scores = score_images(probabilities, [truth.label for truth in truths], len(self._classes))
        for truth, row, score in zip(truths, probabilities, scores, strict=True):
            if isinstance(truth, Sample):
                self.images.append(_Classified(score, truth.path, top_k(row, self._classes, _BEST)))
            else:
                self.images.append(_Classified(score, None, ()))

    def compute(self) -> ClassificationScores:
        """Accuracy, calibration, and metrics of every class."""
        return combine_images([image.score for image in self.images], self._classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the best five classes."""
        return [
            {
                "source": str(image.path),
                "truth": self._classes[image.score.label],
                "classes": [score.to_json() for score in image.best],
            }
            for image in self.images
        ]

    def worst_predictions(self, count: int = 24) -> list[Mistake]:
        """The wrongly classified images of which the model was surest; of equally sure ones the earlier."""
        wrong = [image for image in self.images if image.score.predicted != image.score.label]
        surest = sorted(wrong, key=lambda image: -image.score.confidence)[:count]
        return [
            Mistake(
                Path(image.path),
                self._classes[image.score.label],
                self._classes[image.score.predicted],
                image.score.confidence,
            )
            for image in surest
        ]
