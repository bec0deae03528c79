"""A model's score on labelled images."""

from __future__ import annotations

import importlib.metadata
import platform
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
from hubel.models import ModelMetadata, resolve_model
from hubel.reports import TrainingReport, write_report
from hubel.training.predict_split import Answers, SplitPredictor
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
    metadata: ModelMetadata

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
    network, metadata = resolve_model(model)
    task = task_named(metadata.task)
    data_set = task.read(Path(data)).remap_classes(metadata.classes)
    recorded = Path(model) / "splits.json"
    name, samples = evaluation_samples(data_set, read_splits(recorded) if recorded.is_file() else None, split)
    answering = SplitPredictor(
        network, metadata.preprocessing, *answer_of(task, metadata), batch, choose_device(device)
    )
    answers = answering.of(samples)
    if strict and answers.failures:
        raise answers.failures[0]
    scores = task.scores(answers, metadata)
    seconds = time.perf_counter() - started
    result = Evaluation(str(model), Path(data), name, scores, answers, seconds, task, metadata)
    if report is not None:
        write_evaluation_report(Path(report), result)
    return result


def answer_of(task: Task, metadata: ModelMetadata) -> tuple[Callable[[Any], np.ndarray], int]:
    """What is kept of a model's raw output, and how many numbers an image that is."""
    return partial(task.answer, metadata=metadata), task.answer_width(len(metadata.classes))


def write_evaluation_report(folder: Path, evaluation: Evaluation) -> Path:
    """Write ``report.html`` of an evaluation into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    report = TrainingReport(
        title=f"{evaluation.model} on {evaluation.data.name}",
        task=evaluation.task.name,
        model=evaluation.model,
        data=str(evaluation.data),
        scores={evaluation.split: evaluation.scores},
        split_sizes={evaluation.split: evaluation.scores.images},
        mistakes=evaluation.task.mistakes(evaluation.answers, evaluation.metadata),
        mistakes_split=evaluation.split,
        environment=environment("float32"),
        timing={"evaluation": evaluation.seconds},
        warnings=[failure.message for failure in evaluation.failures],
    )
    return write_report(folder, report)


def environment(precision: str) -> dict[str, str]:
    """Versions, processor and threads, as a report and a bug report need them."""
    packages = ("hubel", "torch", "torchvision", "accelerate", "numpy", "pillow")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        **found,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "precision": precision,
    }


def _processor() -> str:
    """The processor's name; on Linux from the kernel, since platform.processor() is empty there."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
