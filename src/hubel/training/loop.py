"""The one training loop: epochs of phases, validation, the best weights kept, resumable after every epoch."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from hubel.config import TrainingConfig
from hubel.data.loader import EpochSampler, seed_for
from hubel.errors import DataError, ModelError
from hubel.fileio import write_rows
from hubel.models.base import Model
from hubel.models.checkpoint import ModelMetadata, save_model
from hubel.tasks.objective import add_auxiliary_losses, sum_of
from hubel.training.activation_checkpointing import needs_checkpointing
from hubel.training.autotune import ExecutionPlan
from hubel.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from hubel.training.distributed import SINGLE_PROCESS, DistributedContext
from hubel.training.ema import WeightAverage
from hubel.training.feature_cache import FeatureCache
from hubel.training.finetune import (
    FrozenBackbone,
    Phase,
    enter_training_mode,
    freeze_backbone,
    freeze_below,
    make_optimizer,
    trainable_top,
)
from hubel.training.progress import TrainingDisplay, write_scalars
from hubel.training.task import Objective, Task


def rate_factor(schedule: str, step: int, steps: int, warmup_steps: int) -> float:
    """What the peak learning rate is multiplied by.

    Args:
        schedule: ``"cosine"`` falls from 1 to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983,
            equation 5, one period) after a linear warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2.2);
            ``"one-cycle"`` rises from 1/25 over the first 30 % and falls to nearly nothing (Smith and Topin 2019,
            arXiv 1708.07120), its rise being the warm-up; ``"constant"`` stays at 1 after the warm-up.
        step: from 0.
        steps: of the whole phase, at least 1.
        warmup_steps: of the linear rise, of cosine and constant.

    Returns:
        0..1.
    """
    if schedule == "one-cycle":
        rise = max(1, round(0.3 * steps))
        if step < rise:
            return _half_cosine(1 / 25, 1.0, step / rise)
        return _half_cosine(1.0, 1 / 25e4, (step - rise) / max(1, steps - rise))
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    return warmup * (_half_cosine(1.0, 0.0, step / steps) if schedule == "cosine" else 1.0)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


CHECKPOINT = "checkpoint.pt"


@dataclass
class TrainingRun:
    """What the loop works on.

    Attributes:
        folder: the run's.
        config: resolved.
        model: on its device.
        card: what is saved beside the weights.
        phases: in order.
        train: shuffled batches of uint8 pixels (N, C, H, W) and labels; its sampler is an ``EpochSampler``.
        validation: batches in fixed order.
        task: what the network is for.
        learning: what is minimized and watched.
        execution: precision and layout.
        accelerator: devices, mixed precision, accumulation.
        prepare: uint8 pixels (N, C, H, W) → the network's input.
        batch: shape (N, C, H, W) of what ``prepare`` gives for a step.
        features: stands in for the images while the head alone learns; ``None`` where they change from epoch to epoch.
        processes: those that train it together; the loaders give this one's share of each batch.
        stop_if_asked: called in each step; raises where somebody has interrupted.
    """

    folder: Path
    config: TrainingConfig
    model: Model
    metadata: ModelMetadata
    phases: tuple[Phase, ...]
    train: DataLoader[Any]
    validation: DataLoader[Any]
    task: Task
    learning: Objective
    execution: ExecutionPlan
    accelerator: Accelerator
    prepare: Callable[[Tensor], Tensor]
    batch: tuple[int, int, int, int]
    features: FeatureCache | None = None
    processes: DistributedContext = SINGLE_PROCESS
    stop_if_asked: Callable[[], None] = lambda: None


def fit(training: TrainingRun, display: TrainingDisplay) -> Progress:
    """Train from the last checkpoint, or from the start, to the end of the last phase.

    Leaves ``best/``, ``last/``, ``metrics.csv`` and the checkpoint in the run's folder after every epoch.
    """
    path = training.folder / CHECKPOINT
    content = training.processes.broadcast_file(path)
    progress, state = load_checkpoint(path, content) if content is not None else (Progress(), {})
    if progress.epoch:
        display.log(f"resuming after epoch {progress.epoch}")
    for phase in training.phases:
        if progress.epoch < phase.last_epoch and not progress.should_stop_early(training.config.patience):
            _run_phase(training, phase, progress, state, display)
            state = {}
    return progress


def _run_phase(
    training: TrainingRun, phase: Phase, progress: Progress, state: dict[str, Any], display: TrainingDisplay
) -> None:
    """Train the epochs of one phase that are not done yet; ``state`` is the checkpoint's where there is one."""
    config, accelerator = training.config, training.accelerator
    if state:
        training.model.load_state_dict(state["model"])
    learning = freeze_below(training.model, phase.trainable_from)
    what = f"the head and {', '.join(learning)}" if learning else "the head"
    display.log(f"phase {phase.name}: {what} learn, rate {phase.learning_rate:g}, {phase.epochs} epochs")
    optimizer = make_optimizer(training.model, config, phase.learning_rate)
    average = WeightAverage(training.model, config.average) if config.average else None
    if state and progress.epoch >= phase.first_epoch:  # else the checkpoint closes the phase before
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
    dtype = torch.bfloat16 if training.execution.precision == "bfloat16" else torch.float32
    lower = freeze_backbone(training.model, accelerator.device, dtype)
    recompute = needs_checkpointing(training.model, training.batch, training.execution.precision, display.log)
    accelerator.free_memory()  # of the phase before
    upper, optimizer = accelerator.prepare(trainable_top(training.model, lower.parts, recompute), optimizer)
    beginning = time.perf_counter()
    if training.features is not None and not learning:
        training, lower = training.features.swap_in_features(training, lower, display.log)
    for epoch in range(max(phase.first_epoch, progress.epoch + 1), phase.last_epoch + 1):
        row = _train_epoch(training, lower, upper, optimizer, average, phase, epoch, display)
        kept = training.model if average is None else cast(Model, average.module)
        training.processes.broadcast_module(kept, buffers_only=True)
        row |= _validate(training, lower, trainable_top(kept, lower.parts))
        row["seconds"] = round(time.perf_counter() - beginning, 3)
        better = progress.add(row, training.task.merit)
        if training.processes.is_main:
            _finish_epoch(training, progress, better, kept, optimizer, average, display)
        training.processes.wait()
        beginning = time.perf_counter()
        if progress.should_stop_early(config.patience):
            display.log(f"validation has not improved for {config.patience} epochs: stopping early")
            return


def _train_epoch(
    training: TrainingRun,
    lower: FrozenBackbone,
    upper: nn.Module,
    optimizer: Any,
    average: AveragedModel | None,
    phase: Phase,
    epoch: int,
    display: TrainingDisplay,
) -> dict[str, Any]:
    """One pass over the training images; returns the beginning of the epoch's row."""
    config, accelerator, processes = training.config, training.accelerator, training.processes
    sampler = training.train.sampler
    assert isinstance(sampler, EpochSampler)
    sampler.epoch = epoch
    torch.manual_seed(seed_for(config.seed, "epoch", epoch, *processes.seed_offset))
    np.random.seed(seed_for(config.seed, "blend", epoch, *processes.seed_offset) % 2**32)
    enter_training_mode(upper, config.batch_norm or "train")
    steps = len(training.train)
    display.start_epoch(epoch, phase.name, steps)
    started, seen, rate = time.perf_counter(), 0, 0.0
    totals: Counter[str] = Counter()
    for step, batch in enumerate(training.train):
        if not len(batch.indices):
            continue
        done = (epoch - phase.first_epoch) * steps + step
        factor = rate_factor(config.schedule, done, phase.epochs * steps, round(config.warmup * steps))
        rate = phase.learning_rate * factor
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = training.prepare(batch.pixels.to(accelerator.device, non_blocking=True))
        labels = training.learning.labels(batch, accelerator.device)
        images, labels = training.learning.change(images, labels)
        images = images.contiguous(memory_format=training.execution.memory_format)
        updates = (step + 1) % config.accumulate == 0 or step + 1 == steps
        with nullcontext() if updates else accelerator.no_sync(upper):
            with accelerator.autocast():
                output, *auxiliary = upper(lower(images))
                terms = training.learning.terms(output, labels)
                loss = sum_of(terms)
                beside = [sum_of(training.learning.terms(each, labels)) for each in auxiliary]
                objective = add_auxiliary_losses(loss, beside, training.model.auxiliary_weight)
            means = {"loss": loss, **({f"{name}_loss": term for name, term in terms.items()} if len(terms) > 1 else {})}
            sums = training.learning.sums(output, labels)
            training.stop_if_asked()
            whole = processes.reduce_batch(objective, means, sums, training.learning.weight(labels), batch.indices)
            _check_loss_finite(whole.objective, epoch)
            if whole.images:
                accelerator.backward(objective * whole.factor)
        if updates:
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                average.update_parameters(training.model)
        totals.update({name: mean * whole.images for name, mean in whole.means.items()})
        totals.update(whole.sums)
        seen += whole.images
        display.step(totals["loss"] / max(1, seen), seen / (time.perf_counter() - started))
    _check_batch_read(seen, "training")
    return {
        "epoch": epoch,
        "phase": phase.name,
        **{f"train_{name}": round(total / seen, 6) for name, total in totals.items()},
        "learning_rate": rate,
        "images_per_second": round(seen / (time.perf_counter() - started), 2),
    }


def _check_loss_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise ModelError(
            f"the loss is {loss} in epoch {epoch}: training diverged",
            "lower --learning-rate, or use --precision float32; the epochs before are kept",
        )


def _check_batch_read(images: float, split: str) -> None:
    if not images:
        raise DataError(f"not one {split} image can be read any more", "put the images back, then go on with --resume")


def _validate(training: TrainingRun, lower: FrozenBackbone, upper: nn.Module) -> dict[str, Any]:
    """The task's figures of the validation images."""
    accelerator = training.accelerator
    upper.eval()
    validation, seen = training.learning.validation(), 0.0
    with torch.no_grad():
        for batch in training.validation:
            if not len(batch.indices):
                continue
            images = training.prepare(batch.pixels.to(accelerator.device, non_blocking=True))
            with accelerator.autocast():
                output = upper(lower(images.contiguous(memory_format=training.execution.memory_format)))[0]
            validation.add(output, training.learning.labels(batch, accelerator.device))
            seen += len(batch.indices)
    (images_seen,) = training.processes.total(seen)
    _check_batch_read(images_seen, "validation")
    columns = validation.columns(training.processes, images_seen)
    return {f"val_{name}": round(value, 6) for name, value in columns.items()}


def _finish_epoch(
    training: TrainingRun,
    progress: Progress,
    better: bool,
    kept: nn.Module,
    optimizer: Any,
    average: AveragedModel | None,
    display: TrainingDisplay,
) -> None:
    """Write what the epoch gave; the checkpoint comes last, so that a run killed before it repeats the epoch."""
    row = progress.history[-1]
    if better:
        save_model(training.folder / "best", kept, training.metadata)
    save_model(training.folder / "last", kept, training.metadata)
    write_rows(training.folder / "metrics.csv", progress.history)
    if training.config.tensorboard:
        write_scalars(training.folder / "tensorboard", row)
    state = {"model": training.model.state_dict(), "optimizer": optimizer.state_dict()}
    if average is not None:
        state["average"] = average.state_dict()
    save_checkpoint(training.folder / CHECKPOINT, progress, state)
    display.end_epoch(row, training.task.watched, better)
