"""A model's score on labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hubel.data.splits import evaluation_samples, read_splits
from hubel.errors import ImageError
from hubel.inference.precision import choose_device
from hubel.inference.system import tune_allocator
from hubel.models import ModelCard, resolve_model
from hubel.training.answers import Answering, Answers
from hubel.training.task import Task
from hubel.training.tasks import task_named


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one split.

    Attributes:
        model: as it was named.
        data: the data set's folder.
        split: ``"test"``, ``"val"``, ``"train"`` or ``"all"``.
        scores: the figures.
        answers: what they were computed from.
        seconds: it took.
        task: the model's.
        card: the model's.
    """

    model: str
    data: Path
    split: str
    scores: Any
    answers: Answers
    seconds: float
    task: Task
    card: ModelCard

    @property
    def failures(self) -> tuple[ImageError, ...]:
        """Images that could not be read."""
        return self.answers.failures

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        return {
            "task": self.task.name,
            "model": self.model,
            "data": str(self.data),
            "split": self.split,
            "images": self.scores.images,
            "seconds": round(self.seconds, 3),
            **self.scores.to_json(),
        }

    def table(self) -> str:
        """The figures as a person reads them."""
        return f"{self.data}, {self.split} split, {self.scores.images} images\n{self.task.table(self.scores)}"


def evaluate(
    model: str | Path,
    data: Path | str,
    split: str | None = None,
    batch: int = 32,
    device: str = "auto",
    threads: int | None = None,
    strict: bool = False,
    report: Path | str | None = None,
) -> Evaluation:
    """Score a model on a labelled data set; the same as ``hubel evaluate``.

    Args:
        model: a run folder, or anything :func:`hubel.models.resolve_model` takes whose classes the data has.
        data: labelled as the model's task wants it.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; by default test, else val. A run's own split of an
            unsplit data set is used again.
        batch: images at a time.
        device: see ``--device``.
        threads: of the CPU.
        strict: raise :class:`ImageError` at the first image that cannot be read.
        report: folder for an HTML report.

    Raises:
        DataError: no such split, or classes that the model does not know.
        ModelError: the model's task is not scored here.
    """
    tune_allocator()
    if threads:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    network, card = resolve_model(model)
    task = task_named(card.task)
    data_set = task.read(Path(data)).labelled_by(card.classes)
    recorded = Path(model) / "splits.json"
    name, samples = evaluation_samples(data_set, read_splits(recorded) if recorded.is_file() else None, split)
    answering = Answering(network, card.preprocessing, *answer_of(task, card), batch, choose_device(device))
    answers = answering.of(samples)
    if strict and answers.failures:
        raise answers.failures[0]
    scores = task.scores(answers, card)
    seconds = time.perf_counter() - started
    result = Evaluation(str(model), Path(data), name, scores, answers, seconds, task, card)
    if report is not None:
        from hubel.training.results import write_evaluation_report

        write_evaluation_report(Path(report), result)
    return result


def answer_of(task: Task, card: ModelCard) -> tuple[Callable[[Any], np.ndarray], int]:
    """What is kept of a model's raw output, and how many numbers an image that is."""
    return partial(task.answer, card=card), task.answer_width(len(card.classes))
