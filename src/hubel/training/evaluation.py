"""A model's score on labelled images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hubel.data.class_folders import Sample, read_class_folders
from hubel.data.decoding import read_image
from hubel.data.loading import EpochSampler, LabelledImages, batches, default_workers
from hubel.data.preprocessing import Preprocessing
from hubel.data.splits import evaluation_samples, read_splits
from hubel.errors import DataError, ImageError
from hubel.metrics.classification import ClassificationScores, score_classification
from hubel.models import resolve_model
from hubel.runtime.allocator import tune_allocator
from hubel.runtime.devices import choose_device
from hubel.runtime.fusion import fuse


@dataclass(frozen=True)
class Predictions:
    """What a model says of labelled images.

    Attributes:
        samples: those that could be read, in order.
        probabilities: (N, classes), float32.
        failures: a fault for each image that could not be read.
    """

    samples: tuple[Sample, ...]
    probabilities: np.ndarray
    failures: tuple[ImageError, ...]

    @property
    def labels(self) -> np.ndarray:
        """(N,)."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one split.

    Attributes:
        model: as it was named.
        data: the data set's folder.
        split: ``"test"``, ``"val"``, ``"train"`` or ``"all"``.
        scores: the figures.
        predictions: what they were computed from.
        seconds: it took.
        failures: images that could not be read.
    """

    model: str
    data: Path
    split: str
    scores: ClassificationScores
    predictions: Predictions
    seconds: float

    @property
    def failures(self) -> tuple[ImageError, ...]:
        """Images that could not be read."""
        return self.predictions.failures

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        return {
            "task": "classify",
            "model": self.model,
            "data": str(self.data),
            "split": self.split,
            "images": self.scores.images,
            "seconds": round(self.seconds, 3),
            **self.scores.to_json(),
        }

    def table(self) -> str:
        """The figures as a person reads them."""
        return f"{self.data}, {self.split} split, {self.scores.images} images\n{scores_table(self.scores)}"


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
    """Score a model on a data set of class folders; the same as ``hubel evaluate``.

    Args:
        model: a run folder, or anything :func:`hubel.models.resolve_model` takes whose classes the data has.
        data: class folders.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; by default test, else val. A run's own split of an
            unsplit data set is used again.
        batch: images at a time.
        device: see ``--device``.
        threads: of the CPU.
        strict: raise :class:`ImageError` at the first image that cannot be read.
        report: folder for an HTML report.

    Raises:
        DataError: no such split, or classes that the model does not know.
    """
    tune_allocator()
    if threads:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    network, card = resolve_model(model)
    folders = read_class_folders(Path(data)).labelled_by(card.classes)
    recorded = Path(model) / "splits.json"
    name, samples = evaluation_samples(folders, read_splits(recorded) if recorded.is_file() else None, split)
    predictions = predict_samples(network, samples, card.preprocessing, batch, choose_device(device))
    if strict and predictions.failures:
        raise predictions.failures[0]
    scores = score_classification(predictions.probabilities, predictions.labels, card.classes)
    result = Evaluation(str(model), Path(data), name, scores, predictions, time.perf_counter() - started)
    if report is not None:
        from hubel.training.results import write_evaluation_report

        write_evaluation_report(Path(report), result)
    return result


def predict_samples(
    network: nn.Module,
    samples: tuple[Sample, ...],
    preprocessing: Preprocessing,
    batch: int,
    device: torch.device,
    workers: int | None = None,
) -> Predictions:
    """Class probabilities of labelled images, in their order, in float32.

    Raises:
        DataError: not one image could be read.
    """
    paths, labels = [s.path for s in samples], [s.label for s in samples]
    images = LabelledImages(paths, labels, preprocessing.pixels, 0, reduction=preprocessing.reduction)
    sampler = EpochSampler(len(samples), 0, shuffle=False)
    loader = batches(images, sampler, batch, default_workers() if workers is None else workers)
    fused = fuse(network.eval(), device, torch.float32)
    probabilities, read = [], []
    with torch.inference_mode():
        for loaded in loader:
            if len(loaded.labels):
                scores = fused(preprocessing.normalize(loaded.pixels.to(device)))
                probabilities.append(torch.softmax(scores.float(), 1).cpu().numpy())
                read.extend(loaded.indices.tolist())
    failures = tuple(fault_of(samples[index].path) for index in sorted(set(range(len(samples))) - set(read)))
    if not read:
        raise DataError(f"none of {len(samples)} images could be read: {failures[0].fault}", failures[0].remedy)
    return Predictions(tuple(samples[index] for index in read), np.concatenate(probabilities), failures)


def fault_of(path: Path) -> ImageError:
    """What is wrong with an image that could not be read."""
    try:
        read_image(path)
    except ImageError as error:
        return error
    return ImageError(f"{path} could not be read", "try again: it can be read now")


def scores_table(scores: ClassificationScores) -> str:
    """Totals, then a line a class; fractions."""
    width = max(len("class"), *(len(row.name) for row in scores.per_class))
    lines = [
        f"top-1 {scores.top1:.4f} (95 % confidence {scores.top1_low:.3f} to {scores.top1_high:.3f})   "
        f"top-{scores.top_n} {scores.top5:.4f}   loss {scores.loss:.4f}   macro F1 {scores.macro_f1:.4f}   "
        f"ECE {scores.ece:.4f}",
        "",
        f"{'class':<{width}}  images  precision  recall      F1",
    ]
    for row in scores.per_class:
        if row.images or row.predicted:
            lines.append(
                f"{row.name:<{width}}  {row.images:>6}  {row.precision:>9.3f}  {row.recall:>6.3f}  {row.f1:>6.3f}"
            )
    return "\n".join(lines)
