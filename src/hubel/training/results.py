"""What a finished run leaves: scores of the kept weights, predictions, the report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hubel.data.augmentation import TrainingPixels, describe_augmentations
from hubel.data.class_folders import Sample
from hubel.data.decoding import read_image
from hubel.data.loading import seed_for
from hubel.data.preprocessing import Preprocessing
from hubel.data.splits import Splits
from hubel.errors import ImageError
from hubel.metrics.classification import ClassificationScores, score_classification
from hubel.models import load_model
from hubel.reports import AugmentationSample, TrainingReport, most_confident_mistakes, write_report
from hubel.tasks.class_scores import best_classes
from hubel.training.checkpoint import Progress
from hubel.training.evaluation import Evaluation, Predictions, scores_table
from hubel.training.loop import Training
from hubel.training.settings import TrainingSettings
from hubel.training.shared_evaluation import predict_together
from hubel.writing import write_json, write_text

_SHEET_IMAGES, _SHEET_VARIANTS = 6, 7


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        folder: the run's.
        model: name of the architecture.
        data: the data set's folder.
        scores: of the kept weights, by split: ``"val"`` and, where there is one, ``"test"``.
        best_epoch: the epoch whose weights were kept.
        seconds: of all epochs together.
    """

    folder: Path
    model: str
    data: Path
    scores: dict[str, ClassificationScores]
    best_epoch: int
    seconds: float

    @property
    def split(self) -> str:
        """The split whose metrics stand for the run: test where there is one, else val."""
        return "test" if "test" in self.scores else "val"

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        scores = self.scores[self.split]
        return {
            "task": "classify",
            "model": self.model,
            "data": str(self.data),
            "split": self.split,
            "images": scores.images,
            "seconds": round(self.seconds, 3),
            **scores.to_json(),
            "run": str(self.folder),
            "best_epoch": self.best_epoch,
            "validation": self.scores["val"].to_json()["metrics"],
        }

    def headline(self) -> str:
        """The figures as a person reads them."""
        names = {"val": "validation", "test": "test"}
        parts = [
            f"{names[split]}, {scores.images} images\n{scores_table(scores)}" for split, scores in self.scores.items()
        ]
        chosen = f"weights of epoch {self.best_epoch}, chosen on validation: expect a little less on new images"
        return "\n\n".join(parts) + f"\n\n{chosen}"


def finish(training: Training, progress: Progress, splits: Splits, notes: Sequence[str]) -> TrainingResult:
    """Score the kept weights, and write ``predictions.jsonl``, ``results.json`` and ``report.html``."""
    settings, folder, processes, card = training.settings, training.folder, training.processes, training.card
    model = load_model(folder / "best")[0] if processes.is_main else card.build()
    device, classes = training.accelerator.device, len(card.classes)
    processes.copy_from_main(model.to(device))
    scores: dict[str, ClassificationScores] = {}
    predictions: dict[str, Predictions] = {}
    for name, samples in (("val", splits.val), ("test", splits.test)):
        if samples:
            predicted = predict_together(processes, model, samples, card.preprocessing, settings.batch, device, classes)
            predictions[name] = predicted
            scores[name] = score_classification(predicted.probabilities, predicted.labels, card.classes)
    seconds = sum(row["seconds"] for row in progress.history)
    result = TrainingResult(folder, settings.model, settings.data, scores, progress.best_epoch, seconds)
    if not processes.is_main:
        return result
    write_text(folder / "predictions.jsonl", _prediction_lines(predictions["val"], card.classes))
    write_json(folder / "results.json", result.to_json())
    report = TrainingReport(
        title=folder.name,
        task="classify",
        model=settings.model,
        data=str(settings.data),
        scores=scores,
        split_sizes={name: len(samples) for name, samples in splits.by_name().items()},
        history=progress.history,
        best_epoch=progress.best_epoch,
        mistakes=_mistakes(predictions[result.split], card.classes),
        mistakes_split=result.split,
        augmentation=augmentation_sheet(splits.train, card.preprocessing, settings),
        transforms=describe_augmentations(settings.augmentation),
        configuration=settings.model_dump(mode="json"),
        environment=environment(training.execution.precision),
        timing=_timing(progress),
        decisions=[training.execution.reason],
        warnings=[note for note in notes if note != training.execution.reason],
    )
    write_report(folder, report)
    return result


def write_evaluation_report(folder: Path, evaluation: Evaluation) -> Path:
    """Write ``report.html`` of an evaluation into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [row.name for row in evaluation.scores.per_class]
    report = TrainingReport(
        title=f"{evaluation.model} on {evaluation.data.name}",
        task="classify",
        model=evaluation.model,
        data=str(evaluation.data),
        scores={evaluation.split: evaluation.scores},
        split_sizes={evaluation.split: evaluation.scores.images},
        mistakes=_mistakes(evaluation.predictions, names),
        mistakes_split=evaluation.split,
        environment=environment("float32"),
        timing={"evaluation": evaluation.seconds},
        warnings=[failure.fault for failure in evaluation.failures],
    )
    return write_report(folder, report)


def augmentation_sheet(
    samples: Sequence[Sample], preprocessing: Preprocessing, settings: TrainingSettings
) -> list[AugmentationSample]:
    """A few training images, evenly taken, and what augmentation makes of them, from the run's own seed."""
    pixels = TrainingPixels(preprocessing, settings.augmentation)
    sheet = []
    step = max(1, len(samples) // _SHEET_IMAGES)
    for sample in list(samples)[::step][:_SHEET_IMAGES]:
        try:
            image = read_image(sample.path)
        except ImageError:
            continue
        variants = []
        for number in range(_SHEET_VARIANTS):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(settings.seed, "sheet", sample.path.name, number))
                variants.append(pixels(image))
        sheet.append(AugmentationSample(preprocessing.pixels(image), variants))
    return sheet


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


def _mistakes(predictions: Predictions, names: Sequence[str]) -> Any:
    paths = [sample.path for sample in predictions.samples]
    return most_confident_mistakes(paths, predictions.labels, predictions.probabilities, names)


def _timing(progress: Progress) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in progress.history:
        name = f"epochs, {row['phase']}"
        seconds[name] = seconds.get(name, 0.0) + row["seconds"]
    return seconds


def _prediction_lines(predictions: Predictions, names: Sequence[str]) -> str:
    """A JSON line an image: source, truth, and the best five classes."""
    lines = []
    for sample, probabilities in zip(predictions.samples, predictions.probabilities, strict=True):
        best = best_classes(np.asarray(probabilities), names, 5)
        row = {"source": str(sample.path), "truth": names[sample.label], "classes": [score.to_json() for score in best]}
        lines.append(json.dumps(row, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)
