"""``hubel train`` and ``hubel evaluate`` as commands: what goes to stdout, what to stderr, and the exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from drawn_shapes import write_shapes
from hubel.cli.main import main

QUICK = ["--model", "simple_cnn", "--epochs", "2", "--batch", "16", "--augment", "none", "--workers", "0"]
QUICK += ["--precision", "float32", "--learning-rate", "0.001"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", {"cross": 30, "disc": 30})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    assert status(["train", str(data), "--out", str(folder), "--tensorboard", *QUICK]) == 0
    return folder


def status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_train_prints_json_and_nothing_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(["train", str(data), "--json", *QUICK]) == 0
    output = capsys.readouterr()
    row = json.loads(output.out)
    assert row["run"] == "runs/shapes" and (tmp_path / "runs/shapes/report.html").is_file()
    assert row["task"] == "classify" and row["model"] == "simple_cnn" and row["split"] == "test"
    assert "epoch   2/2" in output.err and "report: runs/shapes/report.html" in output.err
    assert status(["train", str(data), "--json", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "runs/shapes-2"


def test_evaluate_as_text_and_as_json(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["evaluate", str(run), str(data), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    kept = json.loads((run / "results.json").read_text())
    assert row["metrics"] == pytest.approx(kept["metrics"], abs=1e-5) and row["images"] == kept["images"]
    assert status(["evaluate", str(run), str(data), "--split", "val"]) == 0
    text = capsys.readouterr().out
    assert "val split" in text and f"{kept['validation']['top1']:.4f}" in text


def test_evaluate_names_what_it_cannot_read_and_goes_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = write_shapes(tmp_path / "more", {"cross": 3, "disc": 3}, seed=9)
    (more / "disc" / "torn.png").write_bytes(b"not an image")
    report = tmp_path / "report"
    assert status(["evaluate", str(run), str(more), "--split", "all", "--json", "--report", str(report)]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["images"] == 6
    assert "torn.png" in output.err and "Traceback" not in output.err
    assert "torn.png" in (report / "report.html").read_text()
    assert status(["evaluate", str(run), str(more), "--split", "all", "--strict"]) == 1


def test_unsplit_data_wants_a_split_and_unknown_classes_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_shapes(tmp_path / "other", {"cross": 2, "disc": 2}, seed=3)
    assert status(["evaluate", str(run), str(other)]) == 1
    assert "--split all" in capsys.readouterr().err
    shutil.move(other / "disc", other / "ring")
    assert status(["evaluate", str(run), str(other), "--split", "all"]) == 1
    assert "ring" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--augment", "blur"], "blur"),
        (["--split", "1,2"], "split"),
        (["--optimizer", "adam"], "adam"),
        (["--epochs", "0"], "epochs"),
    ],
)
def test_wrong_usage_exits_with_two(
    options: list[str], named: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["train", str(data), *options]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "nowhere"], "nowhere"),
        (["evaluate", "nowhere", "DATA"], "nowhere"),
        (["train", "DATA", "--model", "resnet19"], "resnet1"),
        (["train", "DATA", "--resume", "--out", "nowhere"], "no run to resume"),
    ],
)
def test_faults_are_two_lines_and_exit_with_one(
    arguments: list[str], named: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status([str(data) if word == "DATA" else word for word in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert named in lines[-2] and lines[-2].startswith("error: ") and lines[-1].startswith("hint: ")


def test_tensorboard_events_hold_the_table(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("val_loss")]
    rows = (run / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_loss")
    assert losses == pytest.approx([float(row.split(",")[column]) for row in rows[1:]], rel=1e-5)
