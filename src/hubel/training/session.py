"""From a folder of photographs to a run folder: everything around the loop."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from hubel.data.augmentation import BatchBlending, TrainingPixels
from hubel.data.class_folder_checks import SKEWED, check_class_folders
from hubel.data.class_folders import ClassFolders, Sample, read_class_folders
from hubel.data.loading import EpochSampler, LabelledImages, batches, default_workers
from hubel.data.preprocessing import Preprocessing
from hubel.data.splits import SplitFractions, Splits, read_splits, recorded_splits, training_splits, write_splits
from hubel.errors import DataError, ModelError
from hubel.models import ModelCard, architecture, create_model, describe
from hubel.models.registry import Classifier
from hubel.runtime.allocator import tune_allocator
from hubel.runtime.devices import choose_device
from hubel.tasks.classification import class_skew, classification_loss, inverse_frequency
from hubel.training.execution import Execution, choose_execution
from hubel.training.loop import Training, fit
from hubel.training.phases import enter_training_mode, freeze_below, plan_phases
from hubel.training.progress_bar import TrainingDisplay, check_progress
from hubel.training.results import TrainingResult, finish
from hubel.training.run_folder import latest_run_folder, new_run_folder
from hubel.training.settings import TrainingSettings, make_settings, read_settings, write_settings
from hubel.training.tensorboard import require_tensorboard
from hubel.weights import default_entry
from hubel.writing import write_json

CONFIG, SPLITS, DECISIONS = "config.yaml", "splits.json", "decisions.json"


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        folders: as they lie on disk.
        splits: which samples train, validate, test; unreadable images are left out.
        warnings: what the check found, one line each.
    """

    folders: ClassFolders
    splits: Splits
    warnings: tuple[str, ...]


def train(data: Path | str, *, resume: bool = False, out: Path | str | None = None, **settings: Any) -> TrainingResult:
    """Train a classifier on class folders; the same as ``hubel train``.

    Args:
        data: a folder with one folder a class, or with ``train``, ``val``, ``test`` that have those.
        resume: go on with the newest run of this name (or ``out``), with its own settings.
        out: the run's folder; ``runs/NAME`` by default, with a number where it exists.
        settings: fields of :class:`~hubel.training.settings.TrainingSettings`: ``model``, ``epochs``, …

    Returns:
        The finished run with its scores.

    Raises:
        DataError: the data cannot be used; before the first epoch.
        ModelError, WeightsError: there is no such model, or its weights cannot be had.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; the finished epochs are kept and ``resume`` goes on.
    """
    tune_allocator()
    data = Path(data)
    wanted = Path(out) if out is not None else Path("runs") / (data.resolve().name or "run")
    if resume:
        folder = latest_run_folder(wanted)
        chosen = read_settings(folder / CONFIG)
        run_data = _read_data(chosen, folder / SPLITS)
    else:
        chosen = make_settings(data=data, **settings)
        chosen = chosen.resolved(_weights_name(chosen) is not None)
        if chosen.tensorboard:
            require_tensorboard()
        architecture(chosen.model)  # an unknown name is told before the images are read
        run_data = _read_data(chosen, None)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    model, card = _make_model(chosen, run_data.folders.classes)
    phases = plan_phases(chosen)
    for phase in reversed(phases):  # a wrong --unfreeze-from is told before a folder is made
        freeze_below(model, phase.trainable_from)
    if not resume:
        folder = new_run_folder(wanted)
        write_settings(folder / CONFIG, chosen)
        write_splits(folder / SPLITS, run_data.splits, run_data.folders.root)
    with _terminate_as_interrupt(), TrainingDisplay(chosen.epochs or 1) as display:
        try:
            training, decisions = _assemble(folder, chosen, model, card, run_data, display)
            with _worker_deaths_explained():
                progress = fit(training, display)
        except KeyboardInterrupt:
            place = f" --out {folder}" if out is not None else ""
            display.say(f"interrupted: finished epochs are kept in {folder}")
            display.say(f"go on with: hubel train {data}{place} --resume")
            raise
        return finish(training, progress, run_data.folders, run_data.splits, (*run_data.warnings, *decisions))


def _weights_name(settings: TrainingSettings) -> str | None:
    """The catalog name or file to start from; ``None`` from scratch or where the architecture has no weights."""
    if settings.weights != "default":
        return settings.weights
    entry = default_entry(settings.model)
    return entry.name if entry else None


def _read_data(settings: TrainingSettings, recorded: Path | None) -> RunData:
    """Find, split and check the images; those that cannot be read are left out and named."""
    folders = read_class_folders(settings.data)
    if recorded is not None:
        splits = recorded_splits(folders, read_splits(recorded))
    else:
        splits = training_splits(folders, SplitFractions(*settings.split), settings.seed)
    findings = check_class_folders(splits.by_name(), folders.classes, check_progress())
    findings.raise_if_unusable(settings.strict)
    train, val, test = map(findings.readable, (splits.train, splits.val, splits.test))
    return RunData(folders, Splits(train, val, test), (*folders.warnings, *splits.warnings, *findings.warnings()))


def _make_model(settings: TrainingSettings, classes: tuple[str, ...]) -> tuple[Classifier, ModelCard]:
    """The network with a head for the data's classes, and its card."""
    row = architecture(settings.model)
    channels = row.input[0]
    size = settings.image_size or row.input[1]
    weights = _weights_name(settings)
    torch.manual_seed(settings.seed)
    model = create_model(settings.model, len(classes), in_channels=channels, image_size=size, weights=weights)
    if not isinstance(model, Classifier):
        raise ModelError(f"{settings.model} is no classifier", "hubel models --task classify lists those")
    if weights is not None:
        _start_head_small(model.head.get_submodule("classifier"))
    card = replace(describe(model), classes=list(classes))
    if settings.crop_fraction is not None:
        card = replace(card, preprocessing=replace(card.preprocessing, crop_fraction=settings.crop_fraction))
    return model, card


def _start_head_small(classifier: nn.Module) -> None:
    """Let a new head on pretrained features begin undecided, not confidently wrong."""
    if isinstance(classifier, nn.Linear):
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)


def _at_size(preprocessing: Preprocessing, size: int) -> Preprocessing:
    return preprocessing if (preprocessing.height, preprocessing.width) == (size, size) else preprocessing.resized(size)


def _assemble(
    folder: Path,
    settings: TrainingSettings,
    model: Classifier,
    card: ModelCard,
    data: RunData,
    display: TrainingDisplay,
) -> tuple[Training, tuple[str, ...]]:
    """Loaders, loss, precision: all the loop needs, and the sentences that say what was decided and why."""
    classes, train_samples = data.folders.classes, data.splits.train
    for warning in data.warnings:
        display.say(f"note: {warning}")
    display.say(
        f"{len(train_samples)} images train, {len(data.splits.val)} validate, {len(data.splits.test)} test; "
        f"{len(classes)} classes; {settings.model}" + (f" from {card.weights}" if card.weights else " from scratch")
    )
    balance, sentence = _choose_balance(settings.balance, train_samples, len(classes))
    device = choose_device(settings.device)
    labels = [sample.label for sample in train_samples]
    class_weights = inverse_frequency(labels, len(classes)).to(device) if balance == "loss" else None
    loss = partial(classification_loss, label_smoothing=settings.label_smoothing, class_weights=class_weights)
    model.to(device)
    freeze_below(model, plan_phases(settings)[-1].trainable_from)
    enter_training_mode(model, settings.batch_norm or "train")
    size = card.preprocessing
    shape = (min(settings.batch, len(train_samples)), size.channels, size.height, size.width)
    targets = torch.arange(shape[0], device=device) % len(classes)
    execution = _execution(folder, model, lambda scores: loss(scores, targets), shape, device, settings)
    for line in (execution.reason, *([sentence] if sentence else [])):
        display.say(f"chosen: {line}")
    model.to(memory_format=execution.memory_format)
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[execution.precision]
    accelerator = Accelerator(
        mixed_precision=mixed, gradient_accumulation_steps=settings.accumulate, cpu=device.type == "cpu"
    )
    workers = default_workers() if settings.workers is None else settings.workers
    weights = inverse_frequency(labels, len(classes))[torch.tensor(labels)] if balance == "sampling" else None
    sampler = EpochSampler(len(labels), settings.seed, shuffle=True, weights=weights)
    training_pixels = TrainingPixels(_at_size(size, settings.training_size or size.height), settings.augmentation)
    training = Training(
        folder=folder,
        settings=settings,
        model=model,
        card=card,
        phases=plan_phases(settings),
        train=batches(_images(train_samples, training_pixels, settings.seed), sampler, settings.batch, workers, True),
        validation=validation_batches(data.splits.val, card.preprocessing, settings.batch, workers),
        loss=loss,
        blending=BatchBlending(settings.augmentation, len(classes)),
        execution=execution,
        accelerator=accelerator,
    )
    return training, tuple(line for line in (execution.reason, sentence) if line)


def _images(samples: tuple[Sample, ...], pixels: Any, seed: int) -> LabelledImages:
    return LabelledImages([sample.path for sample in samples], [sample.label for sample in samples], pixels, seed)


def validation_batches(samples: tuple[Sample, ...], preprocessing: Preprocessing, batch: int, workers: int) -> Any:
    """Batches of samples in their order, prepared as for prediction."""
    sampler = EpochSampler(len(samples), 0, shuffle=False)
    return batches(_images(samples, preprocessing.pixels, 0), sampler, batch, workers)


def _choose_balance(wanted: str, samples: tuple[Sample, ...], classes: int) -> tuple[str, str]:
    """How skewed classes are treated, and the sentence that says so."""
    skew = class_skew([sample.label for sample in samples], classes)
    if wanted != "auto":
        return (
            wanted,
            "" if wanted == "none" else f"class balance: {wanted}, as asked (largest / smallest class {skew:.1f})",
        )
    if skew < SKEWED:
        return "none", ""
    return "sampling", (
        f"class balance: the largest class has {skew:.1f} times the images of the smallest, so rare classes are drawn "
        "more often (--balance loss weights the loss instead, --balance none leaves it)"
    )


def _execution(
    folder: Path, model: Classifier, loss: Any, shape: Any, device: torch.device, settings: TrainingSettings
) -> Execution:
    """The run's own choice where it has been made, so that a resumed run computes as it began."""
    path = folder / DECISIONS
    if path.exists():
        return Execution(**json.loads(path.read_text())["execution"])
    execution = choose_execution(model, loss, shape, device, settings.precision)
    write_json(path, {"execution": execution.__dict__})
    return execution


@contextmanager
def _worker_deaths_explained() -> Iterator[None]:
    """A decoding process that was killed: as part of an interruption, or by a system short of memory."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if isinstance(error.__context__, KeyboardInterrupt) or "Terminated" in str(error):
            raise KeyboardInterrupt from None
        raise DataError(
            f"a process that decodes images has died: {error}",
            "often memory ran out: go on with --resume, or start again with fewer --workers",
        ) from error


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """While training, SIGTERM (a cluster's or a shutdown's) ends like Ctrl-C: with everything finished kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
