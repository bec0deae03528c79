"""From settings, data and a network to all that the loop works on, with a sentence for each decision."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hubel.data.augmentation import BatchBlending, TrainingPixels
from hubel.data.class_folder_checks import SKEWED
from hubel.data.loading import LoadedBatch
from hubel.data.splits import Splits
from hubel.models import ModelCard
from hubel.models.registry import Classifier
from hubel.tasks.classification import (
    class_skew,
    classification_loss,
    inverse_frequency,
    weight_of,
    with_auxiliary,
)
from hubel.training.execution import Execution, choose_execution, execution_key, forward_and_backward
from hubel.training.frozen import UpperPart
from hubel.training.frozen_features import FeatureCache
from hubel.training.loop import Training
from hubel.training.phases import enter_training_mode, freeze_below, plan_phases
from hubel.training.processes import ALONE, Processes
from hubel.training.recomputation import needs_recomputation
from hubel.training.run_images import RunImages
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
    processes: Processes = ALONE,
) -> tuple[Training, tuple[str, ...]]:
    """Everything a run needs beside its data check.

    Args:
        folder: the run's; its recorded decisions are used again.
        settings: resolved.
        model: as it starts.
        card: what describes it.
        splits: readable samples.
        say: shows a line to the person.
        processes: those that train together.

    Returns:
        The training, and the sentences that say what was decided and why.
    """
    classes = len(card.classes)
    labels = [sample.label for sample in splits.train]
    balance, sentence = _choose_balance(settings.balance, labels, classes)
    device = processes.device_for(settings.device)
    class_weights = inverse_frequency(labels, classes).to(device) if balance == "loss" else None
    loss = partial(classification_loss, label_smoothing=settings.label_smoothing, class_weights=class_weights)
    model.to(device)
    side = training_size(settings, model, card.preprocessing.height)
    share = -(-min(settings.batch, len(labels)) // processes.count)
    batch = (share, card.in_channels, side, side)
    made = processes.from_main(lambda: asdict(_execution(folder, model, loss, batch, device, settings)))
    execution = Execution(**made)
    model.to(memory_format=execution.memory_format)
    processes.copy_from_main(model)
    accelerator = Accelerator(
        mixed_precision=_MIXED[execution.precision],
        gradient_accumulation_steps=settings.accumulate,
        cpu=device.type == "cpu",
    )
    sample_weights = inverse_frequency(labels, classes)[torch.tensor(labels)] if balance == "sampling" else None
    pixels = TrainingPixels(card.preprocessing.resized(side), settings.augmentation)
    images = RunImages(splits, settings, pixels, card.preprocessing, sample_weights, processes)
    phases = plan_phases(settings)
    fixed = balance == "smote" or settings.cache_features or not settings.augmentation
    epochs = sum(phase.epochs for phase in phases if not fixed or freeze_below(model, phase.trainable_from))
    kept = workers = ""
    if epochs > 1:
        kept = images.keep()
        step = _trial_step(model, loss, card.preprocessing.normalize, execution, settings, batch)
        workers = images.choose_workers(folder, step, execution_key(model, batch, device, execution.precision))
    decisions = tuple(line for line in (execution.reason, sentence, kept, workers) if line)
    for line in decisions:
        say(f"chosen: {line}")
    features = None
    if fixed:
        enlarge = partial(with_smote, classes=card.classes, seed=settings.seed) if balance == "smote" else None
        size = card.preprocessing if settings.augmentation else card.preprocessing.resized(side)
        features = FeatureCache(images.unchanged(), size, images.whole_validation(), enlarge)
    training = Training(
        folder=folder,
        settings=settings,
        model=model,
        card=card,
        phases=phases,
        train=images.train(),
        validation=images.validation(),
        loss=loss,
        weight=partial(weight_of, class_weights=class_weights),
        blending=BatchBlending(settings.augmentation, classes),
        execution=execution,
        accelerator=accelerator,
        prepare=card.preprocessing.normalize,
        batch=batch,
        features=features,
        processes=processes,
    )
    return training, decisions


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
    network = _as_in_the_last_phase(model, batch, settings, "float32")
    targets = torch.zeros(batch[0], dtype=torch.int64, device=device)
    objective = _objective(model, loss, targets)
    execution = choose_execution(network, objective, batch, device, settings.precision)
    write_json(path, {"execution": asdict(execution)})
    return execution


def _trial_step(
    model: Classifier,
    loss: Callable[[Tensor, Tensor], Tensor],
    prepare: Callable[[Tensor], Tensor],
    execution: Execution,
    settings: TrainingSettings,
    batch: tuple[int, int, int, int],
) -> Callable[[LoadedBatch], None]:
    """A step on a copy of the network as it trains in the last phase."""
    trial = copy.deepcopy(_as_in_the_last_phase(model, batch, settings, execution.precision))

    def step(loaded: LoadedBatch) -> None:
        if len(loaded.labels):
            device = next(trial.parameters()).device
            images = prepare(loaded.pixels.to(device)).contiguous(memory_format=execution.memory_format)
            labels = loaded.labels.to(device)
            forward_and_backward(trial, _objective(model, loss, labels), images, execution.precision)

    return step


def _objective(
    model: Classifier, loss: Callable[[Tensor, Tensor], Tensor], targets: Tensor
) -> Callable[[list[Tensor]], Tensor]:
    """What a step minimizes, of the scores of the head and of the auxiliary classifiers, which take time as well."""

    def objective(scores: list[Tensor]) -> Tensor:
        of_head, *auxiliary = (loss(each, targets) for each in scores)
        return with_auxiliary(of_head, auxiliary, model.auxiliary_weight)

    return objective


def _as_in_the_last_phase(
    model: Classifier, batch: tuple[int, int, int, int], settings: TrainingSettings, precision: str
) -> nn.Module:
    """The network in the mode and with the memory of the phase in which most of it learns."""
    freeze_below(model, plan_phases(settings)[-1].trainable_from)
    network = UpperPart(model, 0, needs_recomputation(model, batch, precision))
    enter_training_mode(network, settings.batch_norm or "train")
    return network
