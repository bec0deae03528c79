"""What follows a run: callbacks, the steps' table, and trackers."""

from __future__ import annotations

import csv
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from drawn_shapes import write_shapes
from hubel.errors import MissingExtraError, UsageError
from hubel.reports.report_data import few_to_choose_by
from hubel.training.callbacks import Callback, Callbacks, StepLog
from hubel.training.progress import TrainingDisplay
from hubel.training.train import train

QUICK: dict[str, Any] = {
    "model": "simple_cnn", "image_size": 28, "epochs": 2, "batch": 4, "workers": 0, "precision": "float32",
}  # fmt: skip


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 16 images, 12 of them to train on; reports are not written."""
    monkeypatch.setattr("hubel.training.results.write_report", lambda *_: None)
    return write_shapes(tmp_path / "small", {"disc": 8, "cross": 8})


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_run_start(self, run: Any) -> None:
        self.calls.append(("start", run))

    def on_step_end(self, step: Any) -> None:
        self.calls.append(("step", step))

    def on_epoch_end(self, row: Any) -> None:
        self.calls.append(("epoch", row))

    def on_run_end(self, result: Any) -> None:
        self.calls.append(("end", result))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_callback_sees_steps_epochs_and_the_result(small: Path, tmp_path: Path) -> None:
    recorder = Recorder()

    class Partial:
        """Any object with some of the methods."""

        rows: ClassVar[list[Any]] = []

        def on_epoch_end(self, row: Any) -> None:
            self.rows.append(row)

    result = train(small, out=tmp_path / "run", callbacks=[recorder, Partial()], log_steps=True, **QUICK)
    assert [name for name, _ in recorder.calls] == ["start", *2 * (3 * ["step"] + ["epoch"]), "end"]
    start = recorder.calls[0][1]
    assert start.folder == result.folder and start.epoch == 0 and set(start.classes) == {"cross", "disc"}
    assert start.images == {"train": 12, "val": 2, "test": 2} and start.config.batch == 4
    rows = table(result.folder / "metrics.csv")
    steps = [step for name, step in recorder.calls if name == "step"]
    assert [(step.epoch, step.step, step.total) for step in steps] == [
        (1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 4), (2, 2, 5), (2, 3, 6)
    ]  # fmt: skip
    for number, row in enumerate(rows):
        losses = [step.losses["loss"] for step in steps[3 * number : 3 * number + 3]]
        assert sum(losses) / 3 == pytest.approx(float(row["train_loss"]), abs=2e-6)
        assert steps[3 * number + 2].learning_rate == pytest.approx(float(row["learning_rate"]))
    assert recorder.calls[-1][1] is result
    assert [row["epoch"] for row in Partial.rows] == [1, 2]
    logged = table(result.folder / "steps.csv")
    assert [float(row["loss"]) for row in logged] == [step.losses["loss"] for step in steps]
    assert [row["step"] for row in logged] == ["1", "2", "3"] * 2


def test_a_failed_run_ends_for_its_callbacks_too(small: Path, tmp_path: Path) -> None:
    class Failing(Recorder):
        def on_epoch_end(self, row: Any) -> None:
            raise KeyboardInterrupt

    failing = Failing()
    with pytest.raises(KeyboardInterrupt):
        train(small, out=tmp_path / "run", callbacks=[failing], log_steps=True, **QUICK)
    assert failing.calls[-1] == ("end", None)
    # The epoch is in the checkpoint: the resumed run does not repeat its steps.
    resumed = Recorder()
    train(small, out=tmp_path / "run", resume=True, callbacks=[resumed])
    assert resumed.calls[0][1].epoch == 1
    rows = table(tmp_path / "run" / "steps.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [(epoch, step) for epoch in "12" for step in "123"]


def test_rows_of_an_epoch_that_is_repeated_are_dropped(tmp_path: Path) -> None:
    step = SimpleNamespace(epoch=2, phase="train", step=1, losses={"loss": 0.5}, learning_rate=0.1, images_per_second=3)
    head = "epoch,phase,step,loss,learning_rate,images_per_second"
    (tmp_path / "steps.csv").write_text(f"{head}\n1,train,1,0.9,0.1,3\n2,train,1,0.8,0.1,3\n2,tra")
    log = StepLog()
    log.on_run_start(SimpleNamespace(folder=tmp_path, epoch=1))  # type: ignore[arg-type]
    log.on_step_end(step)  # type: ignore[arg-type]
    log.on_run_end(None)
    assert (tmp_path / "steps.csv").read_text() == f"{head}\n1,train,1,0.9,0.1,3\n2,train,1,0.5,0.1,3\n"


def test_missing_trackers_are_named_before_anything_else(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("wandb", "mlflow", "tensorboard"):
        with pytest.raises(MissingExtraError, match=rf"--{name} needs(.|\n)*hubel\[{name}\]"):
            train(small, out=tmp_path / "run", **{**QUICK, name: True})
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_gets_epochs_and_final_metrics(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Run:
        summary: ClassVar[dict[str, float]] = {}

        def log(self, numbers: dict[str, float], step: int) -> None:
            calls.append((step, numbers))

        def finish(self, exit_code: int) -> None:
            calls.append(("finished", exit_code))

    def init(**given: Any) -> Run:
        calls.append(("init", given))
        return Run()

    double = ModuleType("wandb")
    double.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", double)
    monkeypatch.setattr("hubel.training.callbacks._require", lambda *_: None)
    result = train(small, out=tmp_path / "run", wandb=True, **QUICK)
    (_, given), *epochs, finished = calls
    assert (
        given["id"] == (result.folder / "wandb-id").read_text().strip() != ""
        and given["resume"] == "allow"
        and given["name"] == "run"
    )
    assert given["config"]["model"] == "simple_cnn"
    rows = table(result.folder / "metrics.csv")
    assert [(step, numbers["val_loss"]) for step, numbers in epochs] == [
        (int(row["epoch"]), float(row["val_loss"])) for row in rows
    ]
    assert Run.summary["test_top1"] == result.to_json()["metrics"]["top1"] and finished == ("finished", 0)


def test_a_tracker_that_does_not_start_says_why_and_what_to_set(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: str | None) -> None:
        raise RuntimeError("the store\nis closed")

    double = ModuleType("mlflow")
    double.MlflowClient, double.is_tracking_uri_set = refuse, lambda: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", double)
    monkeypatch.setattr("hubel.training.callbacks._require", lambda *_: None)
    recorder = Recorder()
    with pytest.raises(UsageError) as raised:
        train(small, out=tmp_path / "run", mlflow=True, callbacks=[recorder], **QUICK)
    assert raised.value.message == "MLflow does not start: the store is closed"
    assert "MLFLOW_TRACKING_URI" in raised.value.hint
    assert recorder.calls == [], "it never started, so it does not end either"
    assert not (tmp_path / "run").exists()


def test_what_ends_a_run_is_not_hidden_by_a_callback_that_fails_at_the_end() -> None:
    class Fails(Recorder):
        def on_run_end(self, result: Any) -> None:
            super().on_run_end(result)
            raise RuntimeError("and the tracker, too")

    fails, after = Fails(), Recorder()
    callbacks = Callbacks([fails, after])
    callbacks.on_run_start(None)  # type: ignore[arg-type]
    callbacks.on_run_end(None)
    callbacks.on_run_end(None)
    assert fails.calls == after.calls == [("start", None), ("end", None)]
    callbacks = Callbacks([Fails()])
    callbacks.on_run_start(None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="tracker"):
        callbacks.on_run_end("a result")  # type: ignore[arg-type]


def test_mlflow_itself_keeps_what_the_run_wrote(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder ``mlruns``, as nothing says where to, and the small package has no database."""
    from mlflow import MlflowClient

    found = importlib.util.find_spec  # hubel[tune] brings SQLAlchemy, which the small package does without
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sqlalchemy" else found(name))
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")  # which is restored, too
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    result = train(small, out=tmp_path / "run", mlflow=True, **QUICK)
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    run = client.get_run((result.folder / "mlflow-id").read_text().strip())
    assert (run.info.status, run.data.params["model"]) == ("FINISHED", "simple_cnn")
    assert run.data.metrics["test_top1"] == result.to_json()["metrics"]["top1"]
    logged = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "val_loss")]
    rows = table(result.folder / "metrics.csv")
    assert logged == [(int(row["epoch"]), float(row["val_loss"])) for row in rows]
    train(small, out=tmp_path / "run", resume=True)
    (experiment,) = (each.experiment_id for each in client.search_experiments() if each.name == "hubel")
    assert len(client.search_runs([experiment])) == 1, "resumed, it goes on in the same record"


def test_weights_and_biases_itself_keeps_what_the_run_wrote(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_X_SERVICE_WAIT", "300")  # seconds, on a busy machine
    result = train(small, out=tmp_path / "run", wandb=True, **QUICK)
    name = (result.folder / "wandb-id").read_text().strip()
    (record,) = result.folder.glob(f"wandb/offline-run-*/run-{name}.wandb")
    losses = [row["val_loss"].rstrip("0").encode() for row in table(result.folder / "metrics.csv")]
    until = time.monotonic() + 120  # W&B's own process writes the record, on a busy machine after the run has ended
    while not all(loss in record.read_bytes() for loss in losses) and time.monotonic() < until:
        time.sleep(0.2)
    assert all(loss in record.read_bytes() for loss in losses) and len(losses) == QUICK["epochs"]


def test_few_validation_images_are_said_to_be_few() -> None:
    assert few_to_choose_by(99).startswith("99 validation images are few")
    assert few_to_choose_by(1).startswith("1 validation image is few")
    assert not few_to_choose_by(0) and not few_to_choose_by(100)


def test_the_time_left_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    display = TrainingDisplay(5, quiet=True)
    monkeypatch.setattr(display, "advance", lambda note: notes.append(note))
    display.restart("epoch 1/5", 4)
    display.advance_epoch("loss 1")
    display.end_epoch({"epoch": 1, "phase": "train", "seconds": 60.0, "train_loss": 1.0, "val_loss": 1.0}, {}, True)
    display.restart("epoch 2/5", 4)
    display.advance_epoch("loss 1")
    assert notes == ["loss 1", "loss 1  run: at most 0:03:45 left"]  # 3 ¾ epochs of a minute
