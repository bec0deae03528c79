"""From a data set to a run folder: everything around the training loop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hubel.config import SplitFractions, TrainingConfig, make_config, read_config, write_config
from hubel.console import ProgressBar
from hubel.data.samples import ImageDataset
from hubel.data.splits import (
    Splits,
    read_splits,
    recorded_splits,
    to_record,
    training_splits,
    write_splits,
)
from hubel.errors import DataError, ModelError, UsageError
from hubel.interrupts import interruptions
from hubel.models import ModelMetadata, architecture, create_model, describe
from hubel.models.base import Model
from hubel.system import tune_allocator
from hubel.tasks.registry import get_task, guess_task
from hubel.training.checkpoint import WORKER_DEATH
from hubel.training.distributed import DistributedContext, distributed_session, report_error_once
from hubel.training.feature_cache import (
    neighbours_for,
    require_fixed_features,
    require_imbalanced_learn,
)
from hubel.training.finetune import freeze_below, plan_phases
from hubel.training.loop import fit
from hubel.training.progress import TrainingDisplay, require_tensorboard
from hubel.training.results import TrainingResult, finish
from hubel.training.setup import build_training
from hubel.weights import default_entry


def weights_name(config: TrainingConfig) -> str | None:
    """Catalog name or file of the weights that the model or its backbone starts from; ``None`` if there are none."""
    if config.weights != "default":
        return config.weights
    entry = default_entry(config.backbone or architecture(config.model).backbone or config.model)
    return entry.name if entry else None


def make_model(config: TrainingConfig, classes: Sequence[str]) -> tuple[Model, ModelMetadata]:
    """The model with a head for the data's classes, and its metadata.

    Raises:
        ModelError: it cannot be trained, or is not for the task.
        UsageError: ``loss_weights`` do not fit its loss.
    """
    arch = architecture(config.model)
    size = config.image_size or arch.input[1]
    weights = weights_name(config)
    start: dict[str, Any] = {"weights": weights}
    if arch.backbone is not None:
        backbone = config.backbone or arch.backbone
        start = {"backbone": f"{backbone}:{weights}" if weights else backbone}
    torch.manual_seed(config.seed)
    model = create_model(
        config.model, len(classes), in_channels=arch.input[0], image_size=size, **start, **config.options
    )
    if not isinstance(model, Model):
        raise ModelError(f"{config.model} cannot be trained", "hubel models lists the architectures")
    if config.loss_weights:
        if unknown := [name for name in config.loss_weights if name not in model.loss_weights]:
            terms = ", ".join(model.loss_weights)
            raise UsageError(f"--loss-weights {unknown[0]}: the loss has no term of that name", f"choose from {terms}")
        if not any(config.loss_weights.values()):
            raise UsageError("--loss-weights: every term has weight 0", "set at least one to a positive weight")
        model.loss_weights = config.loss_weights
    metadata = replace(describe(model), classes=list(classes))
    return model, get_task(config.task).prepare_model(config, model, metadata)


def new_run_folder(base: Path) -> Path:
    """Create ``base``, or ``base-2``, ``-3``, … if it exists; raises :class:`DataError` if that fails."""
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise DataError(
                f"{folder} cannot be created: {error.strerror}", "choose another folder with --out"
            ) from error


def latest_run_folder(base: Path) -> Path:
    """The newest of ``base``, ``base-2``, …; raises :class:`DataError` if there is none."""
    found = [base] if base.is_dir() else []
    if base.parent.is_dir():
        numbered = base.parent.glob(f"{base.name}-*")
        found += [path for path in numbered if path.name[len(base.name) + 1 :].isdigit() and path.is_dir()]
    if not found:
        raise DataError(f"{base}: there is no run to resume", "start one without --resume, or pass it with --out")
    return max(found, key=lambda path: int(path.name[len(base.name) + 1 :] or 1))


CONFIG, SPLITS = "config.yaml", "splits.json"


@dataclass(frozen=True)
class RunData:
    """The data of a run, its readable samples by split, and what the check found, one line each."""

    samples: ImageDataset
    splits: Splits
    warnings: tuple[str, ...]


def train(data: Path | str, *, resume: bool = False, out: Path | str | None = None, **config: Any) -> TrainingResult:
    """Train a model on labelled images; the same as ``hubel train``.

    Args:
        data: for classification a folder with one folder per class, or with ``train``, ``val``, ``test`` that contain
            such folders.
        resume: continue the newest run of this name (or ``out``), with its own configuration.
        out: folder of the run; ``runs/NAME`` by default, with a number if it exists.
        config: fields of :class:`~hubel.config.TrainingConfig`: ``model``, ``epochs``, …

    Returns:
        The finished run with its scores.

    Raises:
        DataError: the data cannot be used; raised before the first epoch.
        ModelError, WeightsError: there is no such model, or its weights are not available.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP; the finished epochs are kept and ``resume`` continues.
    """
    tune_allocator(keep=None)
    base = Path(out) if out is not None else Path("runs") / (Path(data).resolve().name or "run")
    with distributed_session(config.get("device", "auto")) as processes:
        plan = processes.broadcast_object(lambda: _plan(Path(data), base, resume, config))
        chosen = make_config(**plan["config"])
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        run_data = _read_data_together(processes, chosen, plan["folder"])
        model, metadata = make_model(chosen, run_data.samples.classes)
        _validate_before_run(chosen, model, run_data)

        def new_folder() -> str:
            folder = new_run_folder(base)
            write_config(folder / CONFIG, chosen)
            write_splits(folder / SPLITS, run_data.splits, run_data.samples.root)
            return str(folder)

        folder = Path(processes.broadcast_object(lambda: plan["folder"] or new_folder()))
        with interruptions() as stop_if_asked, TrainingDisplay(chosen.epochs or 1, not processes.is_main) as display:
            try:
                with report_error_once(processes), _worker_deaths_explained():
                    _announce(chosen, metadata, run_data, processes, display)
                    training, decisions = build_training(
                        folder, chosen, model, metadata, run_data.splits, display, processes
                    )
                    training.stop_if_asked = stop_if_asked
                    progress = fit(training)
            except KeyboardInterrupt:
                option = f" --out {folder}" if out is not None else ""
                again = f"hubel train {data}{option} --resume"
                display.log(f"interrupted: finished epochs are kept in {folder}")
                display.log(f"continue with: {again}{'' if processes.is_single else ', with any number of processes'}")
                raise
            return finish(training, progress, run_data.splits, (*run_data.warnings, *decisions))


def _plan(data: Path, base: Path, resume: bool, options: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration as JSON, and the folder of the run to continue, or ``None``."""
    if resume:
        folder = latest_run_folder(base)
        return {"folder": str(folder), "config": read_config(folder / CONFIG).to_json()}
    if "task" not in options:
        options = {**options, "task": guess_task(data, options.get("model"))}
    chosen = make_config(data=data, **options)
    architecture(chosen.model)  # an unknown name is an error before the images are read
    if chosen.balance == "smote":
        require_imbalanced_learn()
    chosen = get_task(chosen.task).resolve_config(chosen)
    chosen = chosen.resolved(weights_name(chosen) is not None)
    if chosen.tensorboard:
        require_tensorboard()
    return {"folder": None, "config": chosen.to_json()}


def _validate_before_run(config: TrainingConfig, model: Model, data: RunData) -> None:
    """Refuse a wrong configuration before a folder is created."""
    phases = plan_phases(config)
    if config.cache_features and all(freeze_below(model, phase.trainable_from) for phase in phases):
        raise UsageError(
            "--cache-features is for epochs in which only the head is trained, and there are none",
            "add --head-epochs 3",
        )
    for phase in reversed(phases):  # a wrong --unfreeze-from
        freeze_below(model, phase.trainable_from)
    if config.balance == "smote":
        require_fixed_features(config, model, phases, "--balance smote")
        neighbours_for([sample.label for sample in data.splits.train], data.samples.classes)


def _read_data_together(processes: DistributedContext, config: TrainingConfig, folder: str | None) -> RunData:
    """Check the images in the main process; the others receive the usable ones and their split."""
    read: list[RunData] = []

    def checked() -> dict[str, Any]:
        read.append(_read_data(config, Path(folder) / SPLITS if folder else None))
        return {"splits": to_record(read[0].splits, read[0].samples.root), "warnings": read[0].warnings}

    record = processes.broadcast_object(checked)
    if not read:
        samples = get_task(config.task).read(config.data, config.strict)
        read.append(RunData(samples, recorded_splits(samples, record["splits"]), tuple(record["warnings"])))
    return read[0]


def _read_data(config: TrainingConfig, recorded: Path | None) -> RunData:
    """Find, split and check the images; unreadable ones are left out and reported."""
    task = get_task(config.task)
    samples = task.read(config.data, config.strict)
    if recorded is not None:
        splits = recorded_splits(samples, read_splits(recorded))
    else:
        splits = training_splits(samples, SplitFractions(*config.split), config.seed)
    with ProgressBar("checking images") as bar:
        findings = task.check(splits.by_name(), samples.classes, bar.update)
    findings.raise_if_unusable(config.strict)
    train, val, test = map(findings.usable, (splits.train, splits.val, splits.test))
    return RunData(samples, Splits(train, val, test), (*samples.warnings, *splits.warnings, *findings.warnings()))


def _announce(
    config: TrainingConfig,
    metadata: ModelMetadata,
    data: RunData,
    processes: DistributedContext,
    display: TrainingDisplay,
) -> None:
    """Log what the check found and what is about to happen."""
    for warning in data.warnings:
        display.log(f"note: {warning}")
    weights = metadata.weights or (metadata.backbone.weights if metadata.backbone else None)
    splits, start = data.splits, f"from {weights}" if weights else "from scratch"
    display.log(
        f"{len(splits.train)} training, {len(splits.val)} validation and {len(splits.test)} test images; "
        f"{len(metadata.classes)} classes; {config.model} {start}"
    )
    if not processes.is_single:
        display.log(
            f"{processes.count} processes train together; each takes its part of the {config.batch} images per step"
        )


@contextmanager
def _worker_deaths_explained() -> Iterator[None]:
    """Explain the death of a worker process: by an interruption, or by a system short of memory."""
    try:
        yield
    except RuntimeError as error:
        if WORKER_DEATH not in str(error):
            raise
        if isinstance(error.__context__, KeyboardInterrupt) or "Terminated" in str(error):
            raise KeyboardInterrupt from None
        # The run is over: torch would report every other worker that dies with it.
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise DataError(
            f"a data-loading worker exited unexpectedly: {error}",
            "often memory ran out: continue with --resume, or start again with fewer --workers",
        ) from error
