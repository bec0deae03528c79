"""The training loop of all tasks: phases of epochs, validation, the best weights saved, resumable after every epoch."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from hubel.config import TrainingConfig
from hubel.console import count_of
from hubel.data.loader import EpochSampler, seed_for
from hubel.data.samples import Batch
from hubel.errors import ModelError, ResumableError
from hubel.fileio import write_rows
from hubel.layers.depthwise_gradients import fast_depthwise_gradients
from hubel.layers.drop_block import DropBlock, set_progress
from hubel.models.base import AUXILIARY, Model
from hubel.models.checkpoint import save_model
from hubel.models.metadata import ModelMetadata
from hubel.tasks.base import Task, TaskData
from hubel.timing import per_second
from hubel.training.activation_checkpointing import needs_checkpointing
from hubel.training.autotune import ExecutionPlan
from hubel.training.callbacks import Callbacks, RunStart, StepEnd
from hubel.training.checkpoint import Progress, load_checkpoint, restore, restore_module, save_checkpoint
from hubel.training.distributed import DistributedContext
from hubel.training.evaluate import gather_images, to_arrays
from hubel.training.feature_cache import FeatureCache
from hubel.training.finetune import (
    FrozenBackbone,
    Phase,
    describe_trained,
    enter_training_mode,
    freeze_backbone,
    freeze_below,
    make_optimizer,
    plan_phases,
    set_learning_rate,
    single_values_normalized,
    trainable_top,
)
from hubel.training.progress import TrainingDisplay
from hubel.training.run_folder import CHECKPOINT


def rate_factor(schedule: str, step: int, steps: int, warmup_steps: int) -> float:
    """Factor of the peak learning rate, 0..1.

    Args:
        schedule: ``"cosine"`` falls from 1 to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983,
            equation 5, one period) after a linear warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2.2);
            ``"one-cycle"`` rises from 1/25 over the first 30 % and falls to nearly nothing (Smith and Topin 2019,
            arXiv 1708.07120), its rise being the warm-up; ``"constant"`` stays at 1 after the warm-up.
        step: from 0.
        steps: of the whole phase, at least 1.
        warmup_steps: of the linear rise, of cosine and constant.
    """
    if schedule == "one-cycle":
        rise = max(1, round(0.3 * steps))
        if step < rise:
            return _half_cosine(1 / 25, 1.0, step / rise)
        return _half_cosine(1.0, 1 / 25e4, (step - rise) / max(1, steps - rise))
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    return warmup * (_half_cosine(1.0, 0.0, step / steps) if schedule == "cosine" else 1.0)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class WeightAverage(AveragedModel):
    """Exponential moving average (EMA) of the weights: the model that is validated and saved.

    Polyak and Juditsky 1992; for networks as in Tarvainen and Valpola 2017, arXiv 1703.01780, section 2, with the
    decay growing from 0.1 over the first steps so that the initial weights are forgotten.

    Only trainable tensors are averaged: parameters with gradients, and buffers except those of frozen modules. While
    only a head is trained, going through all the other weights took longer than its whole step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        for prefix, module in model.named_modules():
            own = list(module.parameters(recurse=False))
            if not own or any(parameter.requires_grad for parameter in own):
                names += [f"{prefix}.{name}".lstrip(".") for name, _ in module.named_buffers(recurse=False)]
        self._trainable = [attrgetter(name) for name in names]

    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the current weights; the first call copies them."""
        count = int(self.n_averaged)
        rate = 1 - min(self._decay, (1 + count) / (10 + count)) if count else 1.0
        with torch.no_grad():
            for of in self._trainable:
                average, current = of(self.module), of(model)
                if count and average.is_floating_point():
                    average.lerp_(current, rate)
                else:
                    average.copy_(current)
        self.n_averaged += 1


@dataclass
class TrainingRun:
    """Everything the loop works on.

    Attributes:
        config: resolved.
        train: shuffled batches of uint8 pixels (N, C, H, W) and labels; its sampler is an ``EpochSampler``.
        validation: batches in fixed order.
        batch: shape (N, C, H, W) of a training batch.
        features: replaces the images while only the head is trained; ``None`` if they are augmented.
        processes: those that train together; the loaders give this one's part of each batch.
        on_features: batches hold features of the frozen backbone, not pixels.
        stop_if_asked: called in each step; raises if the user has interrupted.
        callbacks: empty in all but the main process.
        images: their number by split.
        saving_interval: seconds of training after which the checkpoint is written again, and with it ``last/``, which
            is otherwise written at the end, and ``best/`` never; 0 to write all of them after every epoch.
        resumed_after: last epoch of the process before; 0 if there was none.
    """

    folder: Path
    config: TrainingConfig
    model: Model
    metadata: ModelMetadata
    train: DataLoader[Any]
    validation: DataLoader[Any]
    task: Task
    data: TaskData
    execution: ExecutionPlan
    accelerator: Accelerator
    batch: tuple[int, int, int, int]
    features: FeatureCache | None
    processes: DistributedContext
    display: TrainingDisplay
    on_features: bool = False
    stop_if_asked: Callable[[], None] = lambda: None
    callbacks: Callbacks = field(default_factory=Callbacks)
    images: Mapping[str, int] = field(default_factory=dict)
    saving_interval: float = 0.0
    resumed_after: int = 0

    def load(self, batch: Batch) -> Tensor:
        """The network's input on its device: normalized images, or features."""
        pixels = batch.pixels.to(self.accelerator.device, non_blocking=True)
        return pixels.float() if self.on_features else self.metadata.preprocessing.normalize(pixels)


def fit(training: TrainingRun) -> Progress:
    """Train from the last checkpoint, or from the start, to the end of the last phase.

    Leaves ``best/``, ``last/``, ``metrics.csv`` and the checkpoint in the run's folder after every epoch.
    """
    path = training.folder / CHECKPOINT
    content = training.processes.broadcast_file(path)
    progress, state = load_checkpoint(path, content, training.task.monitor) if content is not None else (Progress(), {})
    training.resumed_after = progress.epoch
    if progress.epoch:
        training.display.log(f"resuming after epoch {progress.epoch}")
    training.callbacks.on_run_start(
        RunStart(training.folder, training.config, training.metadata.classes, training.images, progress.epoch)
    )
    for phase in plan_phases(training.config):
        if progress.epoch < phase.last_epoch and not _is_over(training, progress):
            _run_phase(training, phase, progress, state)
            state = {}
    return progress


def _is_over(training: TrainingRun, progress: Progress) -> bool:
    return progress.should_stop_early(training.config.patience, training.task.monitor)


def _run_phase(training: TrainingRun, phase: Phase, progress: Progress, state: dict[str, Any]) -> None:
    """Train the remaining epochs of one phase; ``state`` is the checkpoint's, empty if there is none."""
    config, accelerator, log = training.config, training.accelerator, training.display.log
    task, scored = training.task, training.images.get("val", 1)
    if state:
        restore_module(training.folder / CHECKPOINT, state, "model", training.model)
    trainable = freeze_below(training.model, phase.trainable_from)
    trained, epochs = describe_trained(training.model, trainable), count_of(phase.epochs, "epoch")
    log(f"phase {phase.name}: trains {trained}, learning rate {phase.learning_rate:g}, {epochs}")
    optimizer = make_optimizer(training.model, config, phase.learning_rate)
    average = WeightAverage(training.model, config.average) if config.average else None
    if state and progress.epoch >= phase.first_epoch:  # else the checkpoint closes the phase before
        restore(training.folder / CHECKPOINT, state, optimizer, **({"average": average} if average is not None else {}))
    dtype = torch.bfloat16 if training.execution.precision == "bfloat16" else torch.float32
    lower = freeze_backbone(training.model, accelerator.device, dtype)
    recompute = needs_checkpointing(training.model, training.batch, training.execution.precision, log)
    accelerator.free_memory()  # of the phase before
    upper, optimizer = accelerator.prepare(trainable_top(training.model, lower.parts, recompute), optimizer)
    started = time.perf_counter()
    if training.features is not None and not trainable:
        loaders = training.features.swap_in_features(training.model, lower, accelerator, log)
        if loaders is not None:
            training = replace(training, train=loaders[0], validation=loaders[1], on_features=True)
            lower = replace(lower, network=nn.Identity(), dtype=torch.float32)
    for epoch in range(max(phase.first_epoch, progress.epoch + 1), phase.last_epoch + 1):
        row = _train_epoch(training, lower, upper, optimizer, average, phase, epoch)
        kept = training.model if average is None else cast(Model, average.module)
        training.processes.broadcast_module(kept, buffers_only=True)
        row |= _validate(training, lower, trainable_top(kept, lower.parts))
        row["seconds"] = round(time.perf_counter() - started, 3)
        better = progress.add(row, training.task.monitor, lambda best: task.choice_margin(best, scored))
        if training.processes.is_main:
            _finish_epoch(training, progress, better, kept, optimizer, average)
        training.processes.barrier()
        started = time.perf_counter()
        if _is_over(training, progress):
            log(f"validation has not improved for {count_of(config.patience, 'epoch')}: stopping early")
            return


def _train_epoch(
    training: TrainingRun,
    lower: FrozenBackbone,
    upper: nn.Module,
    optimizer: Any,
    average: AveragedModel | None,
    phase: Phase,
    epoch: int,
) -> dict[str, Any]:
    """One pass over the training images; returns the beginning of the epoch's row."""
    config, accelerator = training.config, training.accelerator
    processes, display = training.processes, training.display
    sampler = training.train.sampler
    assert isinstance(sampler, EpochSampler)
    sampler.epoch = epoch
    torch.manual_seed(seed_for(config.seed, "epoch", epoch, *processes.seed_offset))
    np.random.seed(seed_for(config.seed, "blend", epoch, *processes.seed_offset) % 2**32)
    enter_training_mode(upper, config.batch_norm or "train")
    steps = len(training.train)
    scheduled = [module for module in training.model.modules() if isinstance(module, DropBlock)]
    display.restart(f"epoch {epoch}/{display.epochs} {phase.name}", steps)
    started, seen, rate = time.perf_counter(), 0, 0.0
    totals: Counter[str] = Counter()
    for step, batch in enumerate(training.train):
        if not len(batch.indices):
            continue
        done = (epoch - phase.first_epoch) * steps + step
        factor = rate_factor(config.schedule, done, phase.epochs * steps, round(config.warmup * steps))
        rate = phase.learning_rate * factor
        set_learning_rate(optimizer, rate)
        # Told, not counted, so that a run that is resumed or in several processes is like any other.
        before = (epoch - 1) * steps + step
        training.model.images_seen = before * config.batch
        set_progress(scheduled, before / (steps * (config.epochs or epoch)))
        images, targets = training.load(batch), training.data.targets(batch, accelerator.device)
        if not training.on_features:
            images, targets = training.data.blend(images, targets, step)
        images = images.contiguous(memory_format=training.execution.memory_format)
        updates = (step + 1) % config.accumulate == 0 or step + 1 == steps
        unsynced = nullcontext() if updates else accelerator.no_sync(upper)
        fast = fast_depthwise_gradients(accelerator.device, training.execution.precision)
        with unsynced, single_values_normalized(upper, len(images)), fast:
            with accelerator.autocast():
                outputs = upper(lower(images), targets)
                terms = training.model.losses(outputs, targets)
                objective, means = sum_terms(terms), _logged(terms)
            sums = training.model.training_metrics(outputs, targets)
            training.stop_if_asked()
            whole = processes.reduce_batch(objective, means, sums, targets.weight, batch.indices)
            if not math.isfinite(whole.objective):
                raise ModelError(
                    f"the loss is {whole.objective} in epoch {epoch}: training diverged",
                    "lower --learning-rate, or use --precision float32; earlier epochs are kept",
                )
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
        speed = per_second(seen, time.perf_counter() - started)
        training.callbacks.on_step_end(StepEnd(epoch, phase.name, step + 1, steps, whole.means, rate, speed))
        display.advance_epoch(f"loss {totals['loss'] / max(1, seen):.3f}  {speed:.0f} images/s")
    _check_batch_read(seen, "training")
    return {
        "epoch": epoch,
        "phase": phase.name,
        **{f"train_{name}": round(total / seen, 6) for name, total in totals.items()},
        "learning_rate": rate,
        "images_per_second": round(per_second(seen, time.perf_counter() - started), 2),
    }


def sum_terms(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of the terms of a loss."""
    first, *others = terms.values()
    return sum(others, first)


def _logged(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The loss without auxiliary classifiers, and its terms if there are several."""
    own = {name: term for name, term in terms.items() if name != AUXILIARY}
    return {"loss": sum_terms(own), **({f"{name}_loss": term for name, term in own.items()} if len(own) > 1 else {})}


def _check_batch_read(images: float, split: str) -> None:
    if not images:
        raise ResumableError(f"no {split} image can be read anymore", "restore the images, then continue with --resume")


def _validate(training: TrainingRun, lower: FrozenBackbone, upper: nn.Module) -> dict[str, Any]:
    """Losses and metrics of the validation images."""
    accelerator, processes, model = training.accelerator, training.processes, training.model
    size = (training.metadata.preprocessing.height, training.metadata.preprocessing.width)
    evaluator = training.task.evaluator(training.metadata)
    upper.eval()
    totals: dict[str, float] = defaultdict(float)
    indices: list[int] = []
    with torch.no_grad():
        for batch in training.validation:
            if not len(batch.indices):
                continue
            images = training.load(batch)
            with accelerator.autocast():
                outputs = upper(lower(images.contiguous(memory_format=training.execution.memory_format)))
            if isinstance(outputs, Tensor):
                outputs = outputs.float()
            else:
                outputs = {name: each.float() if each.is_floating_point() else each for name, each in outputs.items()}
            terms = model.losses(outputs, training.data.targets(batch, accelerator.device, train=False))
            losses = {name: float(term) for name, term in terms.items()}
            count = len(batch.indices)
            totals["loss"] += sum(losses.values()) * count
            if training.task.logs_validation_terms and len(losses) > 1:
                for name, loss in losses.items():
                    totals[f"{name}_loss"] += loss * count
            evaluator.update(to_arrays(model.predictions(outputs, size)), batch.targets)
            indices += batch.indices.tolist()
    (seen,) = processes.all_reduce_sum(len(indices))
    _check_batch_read(seen, "validation")
    gather_images(evaluator, indices, processes)
    metrics = evaluator.compute().to_json()["metrics"]
    parts = processes.all_gather([dict(totals)])  # empty for a process without images
    names = max(parts, key=len)
    columns = {name: sum(part.get(name, 0.0) for part in parts) / seen for name in names}
    columns |= {name: metrics[name] or 0.0 for name in training.task.logged_metrics}
    return {f"val_{name}": round(value, 6) for name, value in columns.items()}


def _finish_epoch(
    training: TrainingRun,
    progress: Progress,
    better: bool,
    kept: nn.Module,
    optimizer: Any,
    average: AveragedModel | None,
) -> None:
    """Write what is due, and tell who follows the run."""
    row, interval = progress.history[-1], training.saving_interval
    if not interval:
        if better:
            save_model(training.folder / "best", kept, training.metadata)
        _save(training, progress, kept, optimizer, average)
    elif progress.epoch == training.config.epochs or _has_passed(interval, progress):
        _save(training, progress, kept, optimizer, average)
    training.display.end_epoch(row, training.task.logged_metrics, better)
    training.callbacks.on_epoch_end(dict(row))


def _has_passed(interval: float, progress: Progress) -> bool:
    """Whether a multiple of ``interval`` seconds of training lies in the last epoch."""
    until = sum(row["seconds"] for row in progress.history)
    return bool(until // interval > (until - progress.history[-1]["seconds"]) // interval)


def _save(
    training: TrainingRun, progress: Progress, kept: nn.Module, optimizer: Any, average: AveragedModel | None
) -> None:
    """Write weights, metrics and checkpoint; the checkpoint comes last: a run killed before it repeats the epoch."""
    save_model(training.folder / "last", kept, training.metadata)
    write_rows(training.folder / "metrics.csv", progress.history)
    state = {"model": training.model.state_dict(), "optimizer": optimizer.state_dict()}
    if average is not None:
        state["average"] = average.state_dict()
    save_checkpoint(training.folder / CHECKPOINT, progress, state)
