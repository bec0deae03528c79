"""Results of a finished run: scores of the best weights, predictions, the report."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubel.console import count_of
from hubel.data.splits import Splits
from hubel.fileio import write_json, write_text
from hubel.models import load_model
from hubel.models.base import Model
from hubel.reports import TrainingReport, write_report
from hubel.tasks.base import Task
from hubel.training.checkpoint import Progress
from hubel.training.evaluate import environment, evaluate_samples, scores_document, scores_html
from hubel.training.loop import TrainingRun


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """A finished run.

    Attributes:
        model: name of the architecture.
        scores: of the weights of ``best_epoch``, by split: ``"val"`` and, where there is one, ``"test"``.
        seconds: of the whole run until its scores, data and trials included.
    """

    folder: Path
    task: Task
    model: str
    data: Path
    scores: dict[str, Any]
    best_epoch: int
    seconds: float

    @property
    def split(self) -> str:
        """The split of the final metrics: test where there is one, else val."""
        return "test" if "test" in self.scores else "val"

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        scores = self.scores[self.split]
        return {
            **scores_document(self.task, self.model, self.data, self.split, scores, self.seconds),
            "run": str(self.folder),
            "best_epoch": self.best_epoch,
            "validation": self.scores["val"].to_json()["metrics"],
        }

    def headline(self) -> str:
        """The metrics as text."""
        names = {"val": "validation", "test": "test"}
        parts = [
            f"{names[split]}, {count_of(scores.images, 'image')}\n{self.task.scores_table(scores)}"
            for split, scores in self.scores.items()
        ]
        chosen = f"weights of epoch {self.best_epoch} (chosen on the validation set, so slightly optimistic)"
        return "\n\n".join(parts) + f"\n\n{chosen}"

    def __repr__(self) -> str:
        return f"{self.folder}: {self.model} trained on {self.data}\n{self.headline()}"

    def _repr_html_(self) -> str:
        document = self.to_json()
        caption = (
            f"{self.folder}: {self.model} trained on {self.data}, epoch {self.best_epoch}; {self.split} split, "
            f"{count_of(document['images'], 'image')}"
        )
        return scores_html(caption, document["metrics"], document["per_class"])


def finish(
    training: TrainingRun, progress: Progress, splits: Splits, warnings: Sequence[str], decisions: Sequence[str]
) -> TrainingResult:
    """Score the best weights, and write ``predictions.jsonl``, ``results.json`` and ``report.html``.

    Args:
        warnings: what the check of the data found.
        decisions: how the run computes, a sentence each.
    """
    config, folder, processes, metadata = training.config, training.folder, training.processes, training.metadata
    task, device = training.task, training.accelerator.device
    model = load_model(folder / "best")[0] if processes.is_main else metadata.build()
    assert isinstance(model, Model)
    processes.broadcast_module(model.to(device))
    with training.display.stage("scoring the best weights"):
        evaluated = {
            name: evaluate_samples(model, metadata, samples, config.batch, device, processes)
            for name, samples in (("val", splits.val), ("test", splits.test))
            if samples
        }
    scores = {name: each.scores for name, each in evaluated.items()}
    timing = _timing(training, progress)
    seconds = sum(timing.values())
    result = TrainingResult(folder, task, config.model, config.data, scores, progress.best_epoch, seconds)
    if not processes.is_main:
        return result
    lines = (json.dumps(row, ensure_ascii=False) for row in evaluated["val"].evaluator.prediction_records())
    write_text(folder / "predictions.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(folder / "results.json", result.to_json())
    report = TrainingReport(
        title=folder.name,
        task=task.name,
        model=config.model,
        data=str(config.data),
        scores=scores,
        split_sizes={name: len(samples) for name, samples in splits.by_name().items()},
        history=progress.history,
        best_epoch=progress.best_epoch,
        mistakes=evaluated[result.split].evaluator.worst_predictions(),
        mistakes_split=result.split,
        augmentation=training.data.augmentation_preview(splits.train),
        transforms=training.data.describe_augmentations(),
        configuration={
            **config.to_json(),
            "image_size": metadata.preprocessing.height,
            "precision": training.execution.precision,
        },
        environment=environment(training.execution.precision),
        timing=timing,
        decisions=list(decisions),
        warnings=list(warnings),
    )
    with training.display.stage("writing the report"):
        write_report(folder, report, task.report)
    return result


def _timing(training: TrainingRun, progress: Progress) -> dict[str, float]:
    """Seconds by what they were spent on; of what happened before the run was last resumed, the epochs only."""
    before = [row for row in progress.history if row["epoch"] <= training.resumed_after]
    timing: dict[str, float] = defaultdict(float, training.display.seconds)
    for row in progress.history:
        timing[f"epochs, {row['phase']}"] += row["seconds"]
    passed = time.perf_counter() - training.display.started + sum(row["seconds"] for row in before)
    timing["saving weights, and the rest"] = max(0.0, passed - sum(timing.values()))
    return dict(timing)
