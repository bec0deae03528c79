"""Evaluators whose reports show the worst images beside their truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import Comparison
from hubel.tasks.base import Evaluator

_SHOWN = 12


@dataclass
class ScoredImage(ABC):
    """What an evaluator keeps of one image.

    Attributes:
        path: of a sample; ``None`` for what the validation after an epoch sees.
        comparison: how a report shows it; ``None`` where there are enough worse ones.
    """

    path: Path | None
    comparison: Comparison | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def quality(self) -> float:
        """How good the prediction is: the lowest are the worst."""


class ComparingEvaluator(Evaluator):
    """Keeps the pixels of the worst images only, so that a split of any size fits into memory.

    Each of several processes keeps as many as are shown: the worst of all are among them.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__(metadata)
        self._worst: list[ScoredImage] = []

    def add(self, image: ScoredImage, compare: Callable[[], Comparison]) -> None:
        """Take a sample; it is compared if it is one of the worst so far."""
        self.images.append(image)
        self._worst = sorted([*self._worst, image], key=_quality)
        for better in self._worst[_SHOWN:]:
            better.comparison = None
        del self._worst[_SHOWN:]
        if any(each is image for each in self._worst):
            image.comparison = compare()

    def worst_predictions(self) -> list[Comparison]:
        """The images of the lowest quality, worst first."""
        worst = sorted(self.images, key=_quality)[:_SHOWN]
        return [image.comparison for image in worst if image.comparison is not None]


def _quality(image: ScoredImage) -> float:
    return image.quality
