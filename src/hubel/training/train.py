"""From a data set to a run folder: everything around the training loop."""

from __future__ import annotations

import contextlib
import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch

from hubel.config import TrainingConfig, make_config
from hubel.config_file import read_config
from hubel.console import activity
from hubel.data.samples import Sample
from hubel.errors import ModelError, ResumableError, UsageError
from hubel.fileio import check_exists
from hubel.inference.precision import choose_device
from hubel.interrupts import interruptions
from hubel.models import ModelMetadata, architecture, create_model, describe
from hubel.models.base import Model
from hubel.models.cfg_reference import is_cfg, read_cfg_model, with_texts
from hubel.reports.report_data import few_to_choose_by
from hubel.system import tune_allocator
from hubel.tasks.registry import get_task, guess_task
from hubel.training.callbacks import Callback, Callbacks, trackers
from hubel.training.checkpoint import WORKER_DEATH
from hubel.training.distributed import DistributedContext, distributed_session, report_error_once
from hubel.training.feature_cache import (
    neighbours_for,
    require_fixed_features,
    require_imbalanced_learn,
)
from hubel.training.finetune import freeze_below, plan_phases
from hubel.training.loop import fit
from hubel.training.progress import TrainingDisplay
from hubel.training.results import TrainingResult, finish
from hubel.training.run_data import RunData, read_together
from hubel.training.run_folder import (
    CONFIG,
    failed_start_removed,
    in_use,
    latest_run_folder,
    make_run_folder,
)
from hubel.training.setup import build_training
from hubel.training.stages import Stage, refuse_stage, resolve_stages, stages_of
from hubel.training.train_options import TrainingOptions, with_options
from hubel.weights import default_entry


def weights_name(config: TrainingConfig) -> str | None:
    """Catalog name or file of the weights that the model or its backbone starts from; ``None`` if there are none."""
    if config.weights != "default":
        return config.weights
    entry = default_entry(architecture(config.model).stands_on(config.backbone) or config.model)
    return entry.name if entry else None


def make_model(
    config: TrainingConfig, classes: Sequence[str], samples: Sequence[Sample] = ()
) -> tuple[Model, ModelMetadata]:
    """The model with a head for the data's classes, and its metadata; the samples are those that will train it.

    Raises:
        ModelError: it cannot be trained, or is not for the task.
        UsageError: ``loss_weights`` do not fit its loss.
    """
    arch = architecture(config.model)
    size = config.image_size or arch.input[1]
    weights = weights_name(config)
    start: dict[str, Any] = {"weights": weights, "backbone": config.backbone}
    if (backbone := arch.stands_on(config.backbone)) is not None:
        start = {"backbone": f"{backbone}:{weights}" if weights else backbone}
    torch.manual_seed(config.seed)
    model = create_model(
        config.model, len(classes), in_channels=arch.input[0], image_size=size, **start, **config.options
    )
    if not isinstance(model, Model):
        raise ModelError(f"{config.model} cannot be trained", "choose one that hubel models lists")
    if config.loss_weights:
        if unknown := [name for name in config.loss_weights if name not in model.loss_weights]:
            terms = ", ".join(model.loss_weights)
            raise UsageError(f"--loss-weights {unknown[0]}: the loss has no term of that name", f"choose from {terms}")
        if not any(config.loss_weights.values()):
            raise UsageError("--loss-weights: every term has weight 0", "set at least one to a positive weight")
        model.loss_weights = config.loss_weights
    described = describe(model)
    metadata = replace(described, classes=list(classes), preprocessing=described.preprocessing.antialiased())
    return model, get_task(config.task).prepare_model(config, model, metadata, samples)


def train(
    data: Path | str,
    *,
    resume: bool = False,
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    **config: Unpack[TrainingOptions],
) -> TrainingResult:
    """Train a model on labelled images; the same as ``hubel train``.

    Args:
        data: for classification a folder with one folder per class, or with ``train``, ``val``, ``test`` that contain
            such folders.
        resume: continue the newest run of this name (or ``out``), with its own configuration.
        out: folder of the run; ``runs/NAME`` by default, with a number if it exists.
        callbacks: objects with methods of :class:`~hubel.training.callbacks.Callback`, which follow the run; of one in
            stages, each stage.
        config: fields of :class:`~hubel.config.TrainingConfig`: ``model``, ``epochs``, …

    Returns:
        The finished run with its scores.

    Raises:
        DataError: the data cannot be used; raised before the first epoch.
        ModelError, WeightsError: there is no such model, or its weights are not available.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP; the finished epochs are kept and ``resume`` continues.
    """
    started = time.perf_counter()
    tune_allocator(keep=None)
    base = Path(out) if out is not None else Path("runs") / (Path(data).resolve().name or "run")
    with distributed_session(config.get("device", "auto")) as processes, ExitStack() as stack:

        def planned() -> dict[str, Any]:
            plan = _plan(Path(data), base, resume, dict(config))
            if plan["folder"] is not None:
                stack.enter_context(in_use(Path(plan["folder"])))
            return plan

        plan = processes.broadcast_object(planned)
        chosen = make_config(**plan["config"])
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        run_data = read_together(processes, chosen, plan["folder"])
        with activity(f"building {chosen.model}"):
            made = make_model(chosen, run_data.samples.classes, run_data.splits.train)
        validate_before_run(chosen, made[0], run_data)

        def new_folder() -> str:
            folder = make_run_folder(base, chosen, run_data.splits, run_data.samples)
            stack.enter_context(in_use(folder))
            return str(folder)

        folder = Path(processes.broadcast_object(lambda: plan["folder"] or new_folder()))
        taken = "" if folder == base or resume else f", as {base} exists"
        again = f"hubel train {data}{f' --out {folder}' if out is not None else ''} --resume"
        *earlier, last = stages_of(chosen, folder)
        seconds = {"reading and checking the data": time.perf_counter() - started}
        with interruptions() as stop_if_asked:
            session = _Session(folder, taken, again, run_data, processes, callbacks, stop_if_asked)
            network: Network | None = made
            if earlier:
                del made  # it is built again when it is its turn
                network = None
            for stage in earlier:
                done = processes.broadcast_object(stage.finished_seconds)
                if done is None:
                    processes.broadcast_object(partial(stage.make_folder, run_data))
                    done = _train_stage(session, stage, None, {}).seconds
                seconds[f"training {stage.config.model}"] = done
            return _train_stage(session, last, network, seconds)


Network = tuple[Model, ModelMetadata]


@dataclass(frozen=True)
class _Session:
    """What the trainings of a run have in common.

    Attributes:
        folder: of the run; ``taken`` says why it has another name than asked for.
        again: the command that continues the run.
        stop_if_asked: raises if the user has interrupted.
    """

    folder: Path
    taken: str
    again: str
    data: RunData
    processes: DistributedContext
    callbacks: Sequence[Callback]
    stop_if_asked: Callable[[], None]


def _train_stage(
    session: _Session, stage: Stage, network: Network | None, seconds: Mapping[str, float]
) -> TrainingResult:
    """Train a network, which is built if there is none, and score it.

    ``seconds`` have passed before, by what they were spent on.
    """
    config, data, processes, folder = stage.config, session.data, session.processes, session.folder
    quiet, epochs = not processes.is_main, config.epochs or 1
    followers = Callbacks(() if quiet else (*trackers(config), *session.callbacks))
    later = epochs * (stage.count - stage.number)
    with TrainingDisplay(epochs, quiet, later) as display, ExitStack() as stack:
        stack.callback(followers.on_run_end, None)  # unless there is a result
        display.started, display.seconds = display.started - sum(seconds.values()), dict(seconds)
        try:
            with report_error_once(processes), failed_start_removed(folder, quiet), worker_deaths_explained():
                if network is None:
                    with display.stage(f"building {config.model}"):
                        network = make_model(config, data.samples.classes, data.splits.train)
                model, metadata = network
                if processes.is_main:
                    stage.load_previous(model)
                _announce(stage, metadata, data, processes, display)
                if stage.before is None:
                    display.log(f"run folder: {folder}{session.taken}")
                with display.stage("choosing how to compute"):
                    training, decisions = build_training(
                        stage.folder, config, model, metadata, data.trained_splits, display, processes
                    )
                training.stop_if_asked, training.callbacks = session.stop_if_asked, followers
                progress = fit(training)
        except KeyboardInterrupt:
            display.log(f"interrupted: finished epochs are kept in {folder}")
            anywhere = "" if processes.is_single else ", with any number of processes"
            display.log(f"continue with: {session.again}{anywhere}")
            raise
        result = finish(training, progress, data.splits, data.warnings, decisions)
        followers.on_run_end(result)
        return result


def _plan(data: Path, base: Path, resume: bool, options: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration as JSON, and the folder of the run to continue, or ``None``."""
    if resume:
        folder = latest_run_folder(base)
        refuse_stage(folder)
        return {"folder": str(folder), "config": read_config(folder / CONFIG).to_json()}
    check_exists(data)
    return {"folder": None, "config": complete_config(data, options).to_json()}


def complete_config(data: Path, options: Mapping[str, Any]) -> TrainingConfig:
    """Check options without reading an image, and fill in the task and all defaults.

    Raises:
        UsageError: an option has a value that it cannot have.
        DataError: there is no task that the data could be for.
        ModelError: there is no such architecture.
        MissingExtraError: an option needs a package that is not installed.
    """
    options = _of_cfg(options)
    if "task" not in options:
        options = {**options, "task": guess_task(data, options.get("model"))}
    chosen = make_config(data=data, **options)
    # A wrong name is an error before the images are read.
    for name in (chosen.model, chosen.backbone):
        if name is not None:
            architecture(name)
    _check_task_of_model(chosen)
    choose_device(chosen.device)
    if chosen.balance == "smote":
        require_imbalanced_learn()
    chosen = replace(chosen, options=with_texts(chosen.options))
    _check_image_labels(chosen)
    task = get_task(chosen.task)
    resolved = task.resolve_config(chosen)  # the architecture that the task stands for, among other things
    if recipe := architecture(resolved.model).recipes[weights_name(resolved) is None]:
        given = {name: value for name, value in options.items() if value is not None}
        again = make_config(data=data, **{**options, **recipe, **given})
        resolved = task.resolve_config(replace(again, options=chosen.options))
    chosen = resolved.resolved(weights_name(resolved) is not None)
    trackers(chosen)  # packages that are missing
    _check_layer_name(chosen)
    return resolve_stages(chosen)


def _of_cfg(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A Darknet cfg as the model becomes the architecture that is built of it, with the cfg's text and image size."""
    model = options.get("model")
    if model is None or not is_cfg(model):
        return options
    cfg = read_cfg_model(model)
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("weights", "default") == "default":
        given["weights"] = None if cfg.weights is None else str(cfg.weights)
    return {
        "task": cfg.task,
        "image_size": cfg.image.height,
        **given,
        "model": cfg.architecture,
        "options": {**cfg.options, **given.get("options", {})},
    }


def _check_task_of_model(config: TrainingConfig) -> None:
    """Refuse a network of another task; a classifier may be one for its own, or a backbone."""
    arch = architecture(config.model)
    if not arch.is_backbone and arch.task != config.task:
        message = f"{config.model} is for --task {arch.task}, not for {config.task}"
        raise ModelError(message, f"use --task {arch.task}, or choose from hubel models --task {config.task}")


def _check_image_labels(config: TrainingConfig) -> None:
    """Refuse ``--image-labels`` where images without boxes have no meaning."""
    if config.image_labels is None:
        return
    if config.task != "detect":
        raise UsageError(f"--image-labels is for --task detect, not for {config.task}", "omit it")
    if "mosaic" in config.augmentation:  # a part without boxes would teach that nothing is there
        raise UsageError("--augment mosaic cannot be used with --image-labels", "omit one of them")
    check_exists(config.image_labels)


def _check_layer_name(config: TrainingConfig) -> None:
    """Refuse a wrong ``--unfreeze-from``, also of a run that ends before that phase."""
    with contextlib.suppress(ValueError):
        if 0 <= float(config.unfreeze_from or 0) <= 1:
            return
    with torch.device("meta"):
        network = create_model(config.model, image_size=config.image_size, weights=None, **config.options)
    if isinstance(network, Model):
        freeze_below(network, str(config.unfreeze_from))


def validate_before_run(config: TrainingConfig, model: Model, data: RunData) -> None:
    """Refuse a wrong configuration before a folder is created."""
    phases = plan_phases(config)
    if config.cache_features and all(freeze_below(model, phase.trainable_from) for phase in phases):
        raise UsageError(
            "--cache-features is for epochs in which only the head is trained, and there are none",
            "add --head-epochs 3",
        )
    for phase in reversed(phases):  # a wrong --unfreeze-from
        freeze_below(model, phase.trainable_from)
    if data.image_labels and not getattr(model, "learns_image_labels", False):
        message = f"--image-labels: {config.model} learns from boxes alone"
        raise UsageError(message, "use --model yolo_9000, or omit --image-labels")
    if config.balance == "smote":
        require_fixed_features(config, model, phases, "--balance smote")
        neighbours_for([sample.label for sample in data.splits.train], data.samples.classes)


def _announce(
    stage: Stage,
    metadata: ModelMetadata,
    data: RunData,
    processes: DistributedContext,
    display: TrainingDisplay,
) -> None:
    """Log what the check found and what is about to happen."""
    config = stage.config
    if stage.count > 1:
        display.log(f"{stage.name}{f', from the best weights of {stage.before.name}' if stage.before else ''}")
    if stage.before is not None:
        return
    for warning in data.warnings:
        display.log(f"note: {warning}")
    weights = metadata.weights or (metadata.backbone.weights if metadata.backbone else None)
    splits, start = data.splits, f"from {weights}" if weights else "from scratch"
    classes = f"{len(metadata.classes)} classes; " if metadata.classes else ""
    display.log(
        f"{len(splits.train)} training, {len(splits.val)} validation and {len(splits.test)} test images; "
        f"{classes}{config.model} {start}"
    )
    if data.image_labels:
        times = f"; those with boxes are shown {data.repetitions} times" if data.repetitions > 1 else ""
        display.log(f"and {len(data.image_labels)} training images of {config.image_labels}, without boxes{times}")
    if few := few_to_choose_by(len(splits.val)):
        display.log(f"note: {few}")
    if not processes.is_single:
        display.log(
            f"{processes.count} processes train together; each takes its part of the {config.batch} images per step"
        )


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
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
        raise ResumableError(
            f"a data-loading worker exited unexpectedly: {error}",
            "continue with --resume, or start again with fewer --workers: often memory ran out",
        ) from error


train.__signature__ = with_options(inspect.signature(train))  # type: ignore[attr-defined]
