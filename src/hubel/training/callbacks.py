"""Callbacks: what follows a training run as it goes, and the trackers that are built on them.

A callback is any object with some of the methods of :class:`Callback`. Those of a run are called in the main process
only, in the order given; what they raise ends the run like any other error.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hubel.bounded import BoundError, read_text
from hubel.config import TrainingConfig
from hubel.errors import MissingExtraError, UsageError
from hubel.fileio import write_text

if TYPE_CHECKING:
    from hubel.training.results import TrainingResult

_LONGEST_NAME = 200  # bytes of a tracker's name for a run
_LONGEST_ROW = 2_000  # characters of a row of steps.csv; one has a few dozen


@dataclass(frozen=True)
class RunStart:
    """A run that begins, or continues after ``epoch`` finished ones.

    Attributes:
        folder: of the run.
        config: with all defaults filled in.
        classes: names, in the order of the labels.
        images: their number by split.
    """

    folder: Path
    config: TrainingConfig
    classes: Sequence[str]
    images: Mapping[str, int]
    epoch: int = 0


@dataclass(frozen=True)
class StepEnd:
    """A finished training step.

    Attributes:
        epoch: from 1.
        step: within the epoch, from 1; of ``steps``.
        losses: ``"loss"`` of the batch and, where it has several, its terms as ``"NAME_loss"``.
        learning_rate: of the step.
        images_per_second: in the epoch so far; 0 where no time has been measured.
    """

    epoch: int
    phase: str
    step: int
    steps: int
    losses: Mapping[str, float]
    learning_rate: float
    images_per_second: float

    @property
    def total(self) -> int:
        """Steps of the run so far, if all its epochs have as many."""
        return (self.epoch - 1) * self.steps + self.step


class Callback:
    """Follows a run; methods that a subclass leaves out do nothing."""

    def on_run_start(self, run: RunStart) -> None:
        """Before the first epoch, also of a resumed run."""

    def on_step_end(self, step: StepEnd) -> None:
        """After a training step."""

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """After validation, with the epoch's row of ``metrics.csv``; the checkpoint has been written."""

    def on_run_end(self, result: TrainingResult | None) -> None:
        """At the end, with the result; ``None`` where the run failed or was interrupted."""


class Callbacks(Callback):
    """Several callbacks as one."""

    def __init__(self, callbacks: Sequence[Any] = ()) -> None:
        self._callbacks = tuple(callbacks)
        self._started: list[Any] = []

    def on_run_start(self, run: RunStart) -> None:
        """See :class:`Callback`."""
        for callback in self._callbacks:
            _call(callback, "on_run_start", run)
            self._started.append(callback)

    def on_step_end(self, step: StepEnd) -> None:
        """See :class:`Callback`."""
        for callback in self._callbacks:
            _call(callback, "on_step_end", step)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        for callback in self._callbacks:
            _call(callback, "on_epoch_end", row)

    def on_run_end(self, result: TrainingResult | None) -> None:
        """Ends those that started, each once. What one raises does not hide the error that ended the run."""
        while self._started:
            with nullcontext() if result is not None else suppress(Exception):
                _call(self._started.pop(0), "on_run_end", result)


def _call(callback: Any, name: str, argument: Any) -> None:
    method = getattr(callback, name, None)
    if method is not None:
        method(argument)


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, without that of the epoch."""
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "epoch"}


class StepLog(Callback):
    """``steps.csv`` in the run's folder: loss, its terms and learning rate of every step.

    A resumed run goes on where its last checkpoint was: rows of an epoch that is repeated are dropped.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._kept: list[dict[str, str]] = []
        self._writer: csv.DictWriter[str] | None = None

    def on_run_start(self, run: RunStart) -> None:
        """See :class:`Callback`."""
        path = run.folder / "steps.csv"
        if run.epoch and path.exists():
            # The last line of a killed run may be incomplete: its epoch is repeated anyway.
            with path.open(newline="", encoding="utf-8", errors="replace") as file, suppress(csv.Error):
                for row in csv.DictReader(file):
                    number = row.get("epoch") or ""
                    is_short = sum(map(len, map(str, row.values()))) < _LONGEST_ROW
                    if is_short and number.isdecimal() and len(number) < 10 and int(number) <= run.epoch:
                        self._kept.append(row)
        self._file = path.open("w", newline="", encoding="utf-8")

    def on_step_end(self, step: StepEnd) -> None:
        """See :class:`Callback`."""
        row = {"epoch": step.epoch, "phase": step.phase, "step": step.step, **step.losses}
        row |= {"learning_rate": step.learning_rate, "images_per_second": round(step.images_per_second, 2)}
        if self._file is None:
            return
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row), lineterminator="\n", extrasaction="ignore")
            self._writer.writeheader()
            self._writer.writerows({name: kept.get(name, "") for name in row} for kept in self._kept)
        self._writer.writerow(row)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        if self._file is not None:
            self._file.flush()

    def on_run_end(self, result: TrainingResult | None) -> None:
        """See :class:`Callback`."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard(Callback):
    """Event files in ``tensorboard/`` of the run's folder, with the numbers of every epoch."""

    def __init__(self) -> None:
        _require("tensorboard", "--tensorboard", "tensorboard")
        self._folder = Path()

    def on_run_start(self, run: RunStart) -> None:
        """See :class:`Callback`."""
        self._folder = run.folder / "tensorboard"

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        from torch.utils.tensorboard.writer import SummaryWriter

        with SummaryWriter(str(self._folder)) as writer:
            for name, value in numbers(row).items():
                writer.add_scalar(name, value, row["epoch"])


class WeightsAndBiases(Callback):
    """A run of Weights & Biases; its own environment variables decide where to, such as ``WANDB_MODE=offline``."""

    def __init__(self) -> None:
        _require("wandb", "--wandb", "wandb")
        self._run: Any = None

    def on_run_start(self, run: RunStart) -> None:
        """See :class:`Callback`."""
        import wandb

        # A resumed run goes on in the same record.
        name = _remembered(run.folder / "wandb-id", lambda: uuid.uuid4().hex[:8])
        with _refusal_explained("Weights & Biases", "run wandb login, or set WANDB_MODE=offline"):
            self._run = wandb.init(
                dir=run.folder, name=run.folder.name, id=name, resume="allow", config=run.config.to_json()
            )

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        self._run.log(numbers(row), step=row["epoch"])

    def on_run_end(self, result: TrainingResult | None) -> None:
        """See :class:`Callback`."""
        if result is not None:
            self._run.summary.update(final_metrics(result))
        self._run.finish(exit_code=0 if result is not None else 1)


_MLFLOW_PLACES = (
    "set MLFLOW_TRACKING_URI to the address of a server, to file:FOLDER (with MLFLOW_ALLOW_FILE_STORE=true), or to a "
    "database, for which MLflow's full package is needed: pip install mlflow"
)


class MLflow(Callback):
    """A run of MLflow; its own environment variables decide where to, such as ``MLFLOW_TRACKING_URI``.

    Without any, MLflow's default is a database; its small package, which has no database, gets the folder ``mlruns``.
    """

    def __init__(self) -> None:
        _require("mlflow", "--mlflow", "mlflow")
        self._client: Any = None
        self._id = ""

    def on_run_start(self, run: RunStart) -> None:
        """See :class:`Callback`."""
        from mlflow import MlflowClient, is_tracking_uri_set

        place = None
        if not is_tracking_uri_set() and importlib.util.find_spec("sqlalchemy") is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it
            place = Path("mlruns").resolve().as_uri()
        with _refusal_explained("MLflow", _MLFLOW_PLACES):
            self._client = MlflowClient(place)
            self._id = _remembered(run.folder / "mlflow-id", lambda: self._new(run))
            self._client.update_run(self._id, "RUNNING")

    def _new(self, run: RunStart) -> str:
        name = "hubel"
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        created = self._client.create_run(number, run_name=run.folder.name)
        for key, value in run.config.to_json().items():
            self._client.log_param(created.info.run_id, key, str(value)[:500])
        return str(created.info.run_id)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        for name, value in numbers(row).items():
            self._client.log_metric(self._id, name, value, step=row["epoch"])

    def on_run_end(self, result: TrainingResult | None) -> None:
        """See :class:`Callback`."""
        for name, value in final_metrics(result).items() if result is not None else ():
            self._client.log_metric(self._id, name, value)
        self._client.set_terminated(self._id, "FINISHED" if result is not None else "FAILED")


def final_metrics(result: TrainingResult) -> dict[str, float]:
    """Metrics of a finished run's best weights, as ``test_top1``."""
    return {f"{result.split}_{name}": value for name, value in numbers(result.to_json()["metrics"]).items()}


def trackers(config: TrainingConfig) -> list[Callback]:
    """The callbacks that options ask for; raises :class:`MissingExtraError` for a package that is not installed."""
    asked: dict[type[Callback], bool] = {
        StepLog: config.log_steps,
        TensorBoard: config.tensorboard,
        WeightsAndBiases: config.wandb,
        MLflow: config.mlflow,
    }
    return [make() for make, wanted in asked.items() if wanted]


def _require(package: str, option: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(option, extra)


@contextmanager
def _refusal_explained(tracker: str, hint: str) -> Iterator[None]:
    """What keeps a tracker from starting is its setup, whatever its package raises."""
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split())
        raise UsageError(f"{tracker} does not start: {message or type(error).__name__}", hint) from error


def _remembered(path: Path, make: Callable[[], str]) -> str:
    """The name of a tracker's record of this run, kept in its folder."""
    with suppress(OSError, BoundError):
        name = read_text(path, _LONGEST_NAME).strip()
        if name.isascii() and name.isprintable() and name:
            return name
    name = str(make())
    write_text(path, name + "\n")
    return name
