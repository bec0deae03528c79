"""The worst images of a split, whose pixels alone are kept, in one process and in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.reports.report_data import Comparison
from hubel.tasks.worst_images import ComparingEvaluator, ScoredImage

COUNT, SHOWN = 40, 12


@dataclass
class Image(ScoredImage):
    """An image with a known quality."""

    known: float

    @property
    def quality(self) -> float:
        return self.known


class OfKnownQuality(ComparingEvaluator):
    """Takes qualities as predictions; remembers which images it was asked to compare."""

    def __init__(self) -> None:
        super().__init__(SimpleNamespace(classes=["a"], preprocessing=Preprocessing(8, 8)))  # type: ignore[arg-type]
        self.compared: list[str] = []

    def take(self, number: int, quality: float) -> None:
        name = f"{number}.png"

        def compare() -> Comparison:
            self.compared.append(name)
            return Comparison(Path(name), [("image", np.zeros((2, 2, 3), np.uint8))], name)

        self.add(Image(Path(name), quality), compare)

    def update(self, predictions: Mapping[str, np.ndarray], truths: Sequence[Any]) -> None: ...

    def compute(self) -> Any: ...

    def prediction_records(self) -> list[dict[str, Any]]:
        return []


def qualities() -> np.ndarray:
    """Of 40 images; three of the worst are equally bad."""
    values = np.random.default_rng(0).permutation(np.arange(COUNT) / COUNT)
    values[np.argsort(values)[9:12]] = 9 / COUNT
    return values


def expected(values: np.ndarray) -> list[str]:
    return [f"{number}.png" for number in np.argsort(values, kind="stable")[:SHOWN]]


def shown(evaluator: ComparingEvaluator) -> list[str]:
    return [str(each.path) for each in evaluator.worst_predictions()]


def test_the_worst_are_shown_and_no_others_keep_pixels() -> None:
    evaluator, values = OfKnownQuality(), qualities()
    for number, quality in enumerate(values.tolist()):
        evaluator.take(number, quality)
    assert shown(evaluator) == expected(values)
    assert sum(image.comparison is not None for image in evaluator.images) == SHOWN
    assert len(evaluator.compared) < COUNT  # the best ones, which come late, are not drawn for nothing


def test_parts_of_several_processes_show_what_one_would() -> None:
    parts, values = [OfKnownQuality() for _ in range(3)], qualities()
    for number, quality in enumerate(values.tolist()):
        parts[number % 3].take(number, quality)
    numbered = [
        (number, image)
        for rank, part in enumerate(parts)
        for number, image in zip(range(rank, COUNT, 3), part.images, strict=True)
    ]
    whole = OfKnownQuality()
    whole.images = [image for _, image in sorted(numbered, key=lambda each: each[0])]
    assert shown(whole) == expected(values)
