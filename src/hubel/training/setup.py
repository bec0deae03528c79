"""From a configuration, data and a model to everything that the loop works on, with a sentence for each decision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from hubel.config import TrainingConfig
from hubel.data.loader import start_workers
from hubel.data.splits import Splits
from hubel.models import ModelMetadata
from hubel.models.base import ClassificationHead, Model
from hubel.tasks.base import TaskData
from hubel.tasks.registry import get_task
from hubel.training.activation_checkpointing import needs_checkpointing
from hubel.training.autotune import (
    ExecutionPlan,
    choose_execution,
    forward_and_backward,
)
from hubel.training.data_module import RunImages
from hubel.training.distributed import DistributedContext
from hubel.training.feature_cache import FeatureCache
from hubel.training.feature_store import FeatureStore
from hubel.training.finetune import enter_training_mode, freeze_below, plan_phases, trainable_top
from hubel.training.loop import TrainingRun, sum_terms
from hubel.training.progress import TrainingDisplay
from hubel.training.run_records import decided_once
from hubel.training.trials import TrialBudget, planned_steps, step_key

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def build_training(
    folder: Path,
    config: TrainingConfig,
    model: Model,
    metadata: ModelMetadata,
    splits: Splits,
    display: TrainingDisplay,
    processes: DistributedContext,
    store: FeatureStore | None = None,
) -> tuple[TrainingRun, tuple[str, ...]]:
    """Choose precision, caches and workers, unless recorded in the folder; the run and a sentence for each decision.

    ``store`` holds features of a frozen backbone that trainings in this process share.
    """
    task = get_task(config.task)
    device = processes.device_for(config.device)
    model.to(device)
    side = training_size(config, model, metadata.preprocessing.height)
    data = task.data(config, metadata, side, splits.train)
    part = -(-min(config.batch, len(splits.train)) // processes.count)
    batch = (part, metadata.in_channels, *data.augmented.shape[:2])
    objective = _objective(model, data.targets(data.dummy_batch(part), device))
    on_features = data.allows_feature_cache
    planned = planned_steps(config, model, len(splits.train), len(splits.val), on_features)
    budget = TrialBudget.of(planned, display.announce_trial)
    plan = processes.broadcast_object(lambda: _execution(folder, model, objective, batch, device, config, budget))
    execution = ExecutionPlan(**plan)
    model.to(memory_format=execution.memory_format)
    processes.broadcast_module(model)
    # Accelerate keeps one state in a process, and refuses a second training that computes otherwise than the first.
    AcceleratorState._reset_state(reset_partial_state=processes.is_single)
    accelerator = Accelerator(
        mixed_precision=_MIXED[execution.precision],
        gradient_accumulation_steps=config.accumulate,
        cpu=device.type == "cpu",
    )
    images = RunImages(splits, config, data, processes)
    epochs = sum(
        phase.epochs for phase in plan_phases(config) if not on_features or freeze_below(model, phase.trainable_from)
    )
    cached = workers = ""
    if epochs > 1:
        cached = images.cache_images()
        workers = images.choose_workers(
            folder,
            lambda: _trial_step(model, data, metadata.preprocessing.normalize, execution, config, batch),
            step_key(model, batch, device, execution.precision),
            budget,
        )
    decisions = tuple(line for line in (execution.reason, data.balance_note, cached, workers) if line)
    for line in decisions:
        display.log(f"chosen: {line}")
    features = None
    if on_features:
        unchanged, preprocessing = data.for_feature_cache(splits.train)
        features = FeatureCache(
            config,
            (images.in_order(unchanged, len(splits.train)), preprocessing),
            (images.whole_validation(), metadata.preprocessing),
            metadata.classes,
            data.sample_weights,
            processes,
            store,
        )
    validation = images.validation()
    start_workers(validation)
    training = TrainingRun(
        folder=folder,
        config=config,
        model=model,
        metadata=metadata,
        train=images.train(),
        validation=validation,
        task=task,
        data=data,
        execution=execution,
        accelerator=accelerator,
        batch=batch,
        features=features,
        processes=processes,
        display=display,
        images={name: len(samples) for name, samples in splits.by_name().items()},
    )
    return training, decisions


def _execution(
    folder: Path,
    model: Model,
    objective: Callable[[Any], Tensor],
    batch: tuple[int, int, int, int],
    device: torch.device,
    config: TrainingConfig,
    budget: TrialBudget,
) -> dict[str, Any]:
    def choose() -> ExecutionPlan:
        network = _as_in_the_last_phase(model, batch, config, "float32")
        return choose_execution(network, objective, batch, device, config.precision, budget)

    return asdict(decided_once(folder, "execution", ExecutionPlan, choose))


def _trial_step(
    model: Model,
    data: TaskData,
    prepare: Callable[[Tensor], Tensor],
    execution: ExecutionPlan,
    config: TrainingConfig,
    batch: tuple[int, int, int, int],
) -> Callable[[Any], None]:
    """A step on a copy of the network as it trains in the last phase."""
    trial = copy.deepcopy(_as_in_the_last_phase(model, batch, config, execution.precision))

    def step(loaded: Any) -> None:
        if len(loaded.indices):
            device = next(trial.parameters()).device
            images = prepare(loaded.pixels.to(device)).contiguous(memory_format=execution.memory_format)
            objective = _objective(model, data.targets(loaded, device))
            forward_and_backward(trial, objective, images, execution.precision)

    return step


def _objective(model: Model, targets: Any) -> Callable[[Any], Tensor]:
    """The loss of training outputs, auxiliary heads included, which take time as well."""
    return lambda outputs: sum_terms(model.losses(outputs, targets))


def _as_in_the_last_phase(
    model: Model, batch: tuple[int, int, int, int], config: TrainingConfig, precision: str
) -> nn.Module:
    """The network in the mode and with the memory of the phase in which most of it is trained."""
    freeze_below(model, plan_phases(config)[-1].trainable_from)
    network = trainable_top(model, 0, needs_checkpointing(model, batch, precision))
    enter_training_mode(network, config.batch_norm or "train")
    return network


def training_size(config: TrainingConfig, model: Model, size: int) -> int:
    """Side of training images for a prediction input of ``size`` pixels.

    Random crops show objects larger than they are in prediction. Training at six sevenths of the size, to a
    multiple of 32, compensates for it (Touvron et al. 2019, arXiv 1906.06423) and takes less time; networks whose
    dense layers have a fixed size, or that train from scratch, train at the size itself.
    """
    if config.training_size:
        return config.training_size
    flexible = isinstance(model.head, ClassificationHead) and config.pretrained and "crop" in config.augmentation
    return max(32, round(size * 6 / 7 / 32) * 32) if flexible and size >= 64 else size
