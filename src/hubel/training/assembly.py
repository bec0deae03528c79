"""From settings, data and a network to all that the loop works on, with a sentence for each decision."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from hubel.data.augmentation import BatchBlending, TrainingPixels
from hubel.data.class_folder_checks import SKEWED
from hubel.data.class_folders import Sample
from hubel.data.loading import EpochSampler, LabelledImages, batches, default_workers
from hubel.data.splits import Splits
from hubel.models import ModelCard
from hubel.models.registry import Classifier
from hubel.runtime.devices import choose_device
from hubel.tasks.classification import class_skew, classification_loss, inverse_frequency
from hubel.training.execution import Execution, choose_execution
from hubel.training.frozen_features import FeatureCache
from hubel.training.loop import Training
from hubel.training.phases import enter_training_mode, freeze_below, plan_phases
from hubel.training.settings import TrainingSettings
from hubel.training.smote import with_smote
from hubel.training.starting_model import training_size
from hubel.writing import write_json

DECISIONS = "decisions.json"
_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def assemble(
    folder: Path,
    settings: TrainingSettings,
    model: Classifier,
    card: ModelCard,
    splits: Splits,
    say: Callable[[str], None],
) -> tuple[Training, tuple[str, ...]]:
    """Everything a run needs beside its data check.

    Args:
        folder: the run's; its recorded decisions are used again.
        settings: resolved.
        model: as it starts.
        card: what describes it.
        splits: readable samples.
        say: shows a line to the person.

    Returns:
        The training, and the sentences that say what was decided and why.
    """
    classes = len(card.classes)
    labels = [sample.label for sample in splits.train]
    balance, sentence = _choose_balance(settings.balance, labels, classes)
    device = choose_device(settings.device)
    class_weights = inverse_frequency(labels, classes).to(device) if balance == "loss" else None
    loss = partial(classification_loss, label_smoothing=settings.label_smoothing, class_weights=class_weights)
    model.to(device)
    side = training_size(settings, model, card.preprocessing.height)
    batch = (min(settings.batch, len(labels)), card.in_channels, side, side)
    execution = _execution(folder, model, loss, batch, device, settings)
    decisions = tuple(line for line in (execution.reason, sentence) if line)
    for line in decisions:
        say(f"chosen: {line}")
    model.to(memory_format=execution.memory_format)
    accelerator = Accelerator(
        mixed_precision=_MIXED[execution.precision],
        gradient_accumulation_steps=settings.accumulate,
        cpu=device.type == "cpu",
    )
    sample_weights = inverse_frequency(labels, classes)[torch.tensor(labels)] if balance == "sampling" else None
    order = EpochSampler(len(labels), settings.seed, shuffle=True, weights=sample_weights)
    training_pixels = TrainingPixels(card.preprocessing.resized(side), settings.augmentation)
    in_order = EpochSampler(len(splits.val), settings.seed, shuffle=False)
    features = None
    if balance == "smote":
        once = EpochSampler(len(labels), settings.seed, shuffle=False)
        images = _loader(splits.train, training_pixels, once, settings, drop_last=False)
        features = FeatureCache(images, partial(with_smote, classes=card.classes, seed=settings.seed))
    training = Training(
        folder=folder,
        settings=settings,
        model=model,
        card=card,
        phases=plan_phases(settings),
        train=_loader(splits.train, training_pixels, order, settings, drop_last=True),
        validation=_loader(splits.val, card.preprocessing.pixels, in_order, settings, drop_last=False),
        loss=loss,
        blending=BatchBlending(settings.augmentation, classes),
        execution=execution,
        accelerator=accelerator,
        prepare=card.preprocessing.normalize,
        features=features,
    )
    return training, decisions


def _loader(
    samples: tuple[Sample, ...],
    pixels: Callable[[Image.Image], np.ndarray],
    sampler: EpochSampler,
    settings: TrainingSettings,
    drop_last: bool,
) -> DataLoader[Any]:
    paths, labels = [sample.path for sample in samples], [sample.label for sample in samples]
    workers = default_workers() if settings.workers is None else settings.workers
    return batches(LabelledImages(paths, labels, pixels, settings.seed), sampler, settings.batch, workers, drop_last)


def _choose_balance(wanted: str, labels: list[int], classes: int) -> tuple[str, str]:
    """How skewed classes are treated, and the sentence that says so."""
    skew = class_skew(labels, classes)
    if wanted == "none" or (wanted == "auto" and skew < SKEWED):
        return "none", ""
    if wanted == "smote":
        largest = np.bincount(labels, minlength=classes).max()
        return wanted, (
            f"class balance: SMOTE, as asked: {largest * classes - len(labels)} interpolated features beside those of "
            f"{len(labels)} images, so that every class has {largest}"
        )
    if wanted != "auto":
        return wanted, f"class balance: {wanted}, as asked (largest class {skew:.1f} times the smallest)"
    return "sampling", (
        f"class balance: the largest class has {skew:.1f} times the images of the smallest, so rare classes are drawn "
        "more often (--balance loss weights the loss instead, --balance none leaves it)"
    )


def _execution(
    folder: Path,
    model: Classifier,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: tuple[int, int, int, int],
    device: torch.device,
    settings: TrainingSettings,
) -> Execution:
    """The run's own choice where it has been made, so that a resumed run computes as it began."""
    path = folder / DECISIONS
    if path.exists():
        return Execution(**json.loads(path.read_text())["execution"])
    freeze_below(model, plan_phases(settings)[-1].trainable_from)
    enter_training_mode(model, settings.batch_norm or "train")
    targets = torch.zeros(batch[0], dtype=torch.int64, device=device)
    execution = choose_execution(model, lambda scores: loss(scores, targets), batch, device, settings.precision)
    write_json(path, {"execution": execution.__dict__})
    return execution
