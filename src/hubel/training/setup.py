"""From a configuration, data and a network to all that the loop works on, with a sentence for each decision."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hubel.config import TrainingConfig
from hubel.data.splits import (
    Splits,
)
from hubel.fileio import write_json
from hubel.models import ModelMetadata
from hubel.models.base import ClassificationHead, Model
from hubel.tasks.objective import add_auxiliary_losses, sum_of
from hubel.training.activation_checkpointing import needs_checkpointing
from hubel.training.autotune import ExecutionPlan, choose_execution, execution_key, forward_and_backward
from hubel.training.data_module import RunImages
from hubel.training.distributed import SINGLE_PROCESS, DistributedContext
from hubel.training.finetune import enter_training_mode, freeze_below, plan_phases, trainable_top
from hubel.training.loop import TrainingRun
from hubel.training.task import Objective
from hubel.training.tasks import task_named

DECISIONS = "decisions.json"
_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def assemble(
    folder: Path,
    config: TrainingConfig,
    model: Model,
    metadata: ModelMetadata,
    splits: Splits[Any],
    log: Callable[[str], None],
    processes: DistributedContext = SINGLE_PROCESS,
) -> tuple[TrainingRun, tuple[str, ...]]:
    """Everything a run needs beside its data check.

    Args:
        folder: the run's; its recorded decisions are used again.
        config: resolved.
        model: as it starts.
        card: what describes it.
        splits: readable samples.
        say: shows a line to the person.
        processes: those that train together.

    Returns:
        The training, and the sentences that say what was decided and why.
    """
    task = task_named(config.task)
    device = processes.device_for(config.device)
    learning = task.learning(config, splits.train, metadata, device)
    model.to(device)
    side = training_size(config, model, metadata.preprocessing.height)
    share = -(-min(config.batch, len(splits.train)) // processes.count)
    shape = metadata.preprocessing.resized(side)
    batch = (share, metadata.in_channels, shape.height, shape.width)
    sampled = task.images(config, metadata.preprocessing, side)
    objective = _objective(model, learning, learning.labels(sampled.dummy_batch(share), device))
    made = processes.broadcast_object(lambda: asdict(_execution(folder, model, objective, batch, device, config)))
    execution = ExecutionPlan(**made)
    model.to(memory_format=execution.memory_format)
    processes.broadcast_module(model)
    accelerator = Accelerator(
        mixed_precision=_MIXED[execution.precision],
        gradient_accumulation_steps=config.accumulate,
        cpu=device.type == "cpu",
    )
    images = RunImages(splits, config, sampled, learning.chances, processes)
    phases = plan_phases(config)
    fixed = learning.fixed_features
    epochs = sum(phase.epochs for phase in phases if not fixed or freeze_below(model, phase.trainable_from))
    kept = workers = ""
    if epochs > 1:
        kept = images.keep()
        step = _trial_step(model, learning, metadata.preprocessing.normalize, execution, config, batch)
        workers = images.choose_workers(folder, step, execution_key(model, batch, device, execution.precision))
    decisions = tuple(line for line in (execution.reason, learning.decision, kept, workers) if line)
    for line in decisions:
        log(f"chosen: {line}")
    training = TrainingRun(
        folder=folder,
        config=config,
        model=model,
        metadata=metadata,
        phases=phases,
        train=images.train(),
        validation=images.validation(),
        task=task,
        learning=learning,
        execution=execution,
        accelerator=accelerator,
        prepare=metadata.preprocessing.normalize,
        batch=batch,
        features=task.features(config, metadata, side, splits.train, images, learning),
        processes=processes,
    )
    return training, decisions


def _execution(
    folder: Path,
    model: Model,
    objective: Callable[[list[Any]], Tensor],
    batch: tuple[int, int, int, int],
    device: torch.device,
    config: TrainingConfig,
) -> ExecutionPlan:
    """The run's own choice where it has been made, so that a resumed run computes as it began."""
    path = folder / DECISIONS
    if path.exists():
        return ExecutionPlan(**json.loads(path.read_text())["execution"])
    network = _as_in_the_last_phase(model, batch, config, "float32")
    execution = choose_execution(network, objective, batch, device, config.precision)
    write_json(path, {"execution": asdict(execution)})
    return execution


def _trial_step(
    model: Model,
    learning: Objective,
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
            labels = learning.labels(loaded, device)
            forward_and_backward(trial, _objective(model, learning, labels), images, execution.precision)

    return step


def _objective(model: Model, learning: Objective, labels: Any) -> Callable[[list[Any]], Tensor]:
    """What a step minimizes, of the outputs of the head and of the auxiliary heads, which take time as well."""

    def objective(outputs: list[Any]) -> Tensor:
        of_head, *auxiliary = (sum_of(learning.terms(each, labels)) for each in outputs)
        return add_auxiliary_losses(of_head, auxiliary, model.auxiliary_weight)

    return objective


def _as_in_the_last_phase(
    model: Model, batch: tuple[int, int, int, int], config: TrainingConfig, precision: str
) -> nn.Module:
    """The network in the mode and with the memory of the phase in which most of it learns."""
    freeze_below(model, plan_phases(config)[-1].trainable_from)
    network = trainable_top(model, 0, needs_checkpointing(model, batch, precision))
    enter_training_mode(network, config.batch_norm or "train")
    return network


def training_size(config: TrainingConfig, model: Model, size: int) -> int:
    """Side of the training crops for a prediction input of ``size`` pixels.

    Random crops show objects larger than they are in prediction. Training at six sevenths of the size, to a
    multiple of 32, makes up for it (Touvron et al. 2019, arXiv 1906.06423) and takes less time; networks whose
    dense layers have a fixed size, or that learn from scratch, train at the size itself.
    """
    if config.training_size:
        return config.training_size
    flexible = isinstance(model.head, ClassificationHead) and config.pretrained and "crop" in config.augmentation
    return max(32, round(size * 6 / 7 / 32) * 32) if flexible and size >= 64 else size
