"""The folder of a run: whole or not there, resumed only where that can work, used by one training at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drawn_shapes import write_shapes
from hubel.config import make_config
from hubel.config_file import read_config
from hubel.data.splits import SplitFractions, read_splits, training_splits
from hubel.errors import DataError, HubelError, UsageError
from hubel.tasks.registry import get_task
from hubel.training.run_folder import in_use, latest_run_folder, make_run_folder
from hubel.training.train import train

QUICK: dict[str, Any] = {"model": "simple_cnn", "image_size": 28, "epochs": 1, "batch": 4, "workers": 0}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 16 images; reports are not written."""
    monkeypatch.setattr("hubel.training.results.write_report", lambda *_: None)
    return write_shapes(tmp_path / "small", {"disc": 8, "cross": 8})


@pytest.fixture
def make(small: Path) -> Callable[[Path], Path]:
    """Makes the folder of a run of the small data set."""
    samples = get_task("classify").read(small)
    config = make_config(data=small, **QUICK)
    splits = training_splits(samples, SplitFractions(), 0)
    return lambda base: make_run_folder(base, config, splits, samples)


def test_run_folders_are_whole_and_never_reused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    base = tmp_path / "runs" / "a"
    assert [make(base).name for _ in range(3)] == ["a", "a-2", "a-3"]
    assert latest_run_folder(base).name == "a-3"
    assert read_config(base / "config.yaml").model == "simple_cnn" and read_splits(base / "splits.json")["train"]
    (tmp_path / "runs" / "a-4").mkdir()  # not a run
    assert latest_run_folder(base).name == "a-3"
    with pytest.raises(DataError, match="no run to resume"):
        latest_run_folder(tmp_path / "runs" / "b")


def test_an_interrupt_while_a_folder_is_made_leaves_none(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hubel.training.run_folder.write_splits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "runs" / "a")
    assert not (tmp_path / "runs").exists()


def test_a_run_killed_before_its_split_was_written_resumes(small: Path, tmp_path: Path) -> None:
    whole = train(small, out=tmp_path / "whole", **QUICK)
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copy(whole.folder / "config.yaml", killed)
    resumed = train(small, out=killed, resume=True)
    assert resumed.folder == killed
    assert (killed / "splits.json").read_text() == (whole.folder / "splits.json").read_text()
    assert resumed.to_json()["metrics"] == whole.to_json()["metrics"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"device": "0"}, "'0'"),
        ({"model": "resnet5"}, "resnet5"),
        ({"unfreeze_from": "stage99"}, "stage99"),
        ({"unfreeze_from": "1.5"}, "not a fraction"),
        ({"backbone": "resnet5", "task": "detect", "model": "ssd"}, "resnet5"),
    ],
)
def test_wrong_names_are_refused_before_an_image_is_read(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], named: str
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("images were read")

    monkeypatch.setattr("hubel.training.run_data.read_run_data", read)
    with pytest.raises(HubelError, match=named):
        train(small, out=tmp_path / "run", **{**QUICK, **wrong})
    assert not (tmp_path / "run").exists()


def test_a_start_that_fails_leaves_no_folder(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UsageError("--option is wrong", "choose another")

    monkeypatch.setattr("hubel.training.train.build_training", fail)
    with pytest.raises(UsageError):
        train(small, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_start_keeps_its_folder(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hubel.training.train.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small, out=tmp_path / "run", **QUICK)
    assert latest_run_folder(tmp_path / "run") == tmp_path / "run"


def test_an_existing_folder_is_told_at_the_start(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubel.training.train.fit", lambda training: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "run").mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(small, out=tmp_path / "run", **QUICK)
    assert f"run folder: {tmp_path / 'run-2'}, as {tmp_path / 'run'} exists" in capsys.readouterr().err


def test_a_folder_in_use_is_refused_until_the_process_ends(
    make: Callable[[Path], Path], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "run")
    code = f"""
import sys, time
from pathlib import Path
from hubel.training.run_folder import in_use
with in_use(Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        monkeypatch.setattr("hubel.training.run_folder._WAIT", 0.0)
        with pytest.raises(DataError, match="another training is running"):
            train(small, out=folder, resume=True)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with in_use(folder, waits=5):
            pass
    finally:
        other.kill()
        other.wait()
