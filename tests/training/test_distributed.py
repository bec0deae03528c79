"""Two processes that train one network, on this machine's loopback, against one process at the same global batch."""

from __future__ import annotations

import csv
import faulthandler
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from drawn_shapes import write_shapes
from hubel.cli.main import main
from hubel.errors import DataError
from hubel.models import create_model, load_model
from hubel.training.results import TrainingResult
from hubel.training.train import train

# A smooth network without normalization or dropout, and plain gradient descent: rounding stays rounding.
SMOOTH = {
    "model": "lenet5_modern",
    "image_size": 32,
    "epochs": 3,
    "batch": 15,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "augmentation": "crop,flip",
    "precision": "float32",
    "average": 0.9,
    "balance": "loss",
    "workers": 0,
}
# Once imported, torch need not be imported again by each process of each test.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "accelerate", "hubel.training.train", "hubel.cli.main", "matplotlib.pyplot"])

_HANGS = 200  # seconds

Pair = tuple[list[int], list[str], list[str]]  # exit codes, stdout, stderr of both


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """73 training images: no batch of 15 can be halved, and the last one of an epoch is left out."""
    return write_shapes(tmp_path_factory.mktemp("data") / "skewed", {"cross": 60, "disc": 21, "frame": 16})


@pytest.fixture(scope="module")
def one(skewed: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """What a single process makes of it."""
    return train(skewed, out=tmp_path_factory.mktemp("runs") / "one", **SMOOTH)


def options(settings: dict[str, Any], **changes: Any) -> list[str]:
    """Settings as the command's options."""
    renamed = {"augmentation": "augment"}
    given = {renamed.get(key, key).replace("_", "-"): value for key, value in {**settings, **changes}.items()}
    return [word for key, value in given.items() for word in (f"--{key}", str(value))]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def one_of_two(rank: int, port: int, folder: Path, arguments: list[str], prepare: Callable[[int], None] | None) -> None:
    """What each process runs: ``hubel`` with arguments, its output in files of ``folder``."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}{rank}", os.O_WRONLY | os.O_CREAT), stream)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"HUBEL_CACHE": str(folder / "cache")}
    faulthandler.dump_traceback_later(_HANGS - 10)
    torch.set_num_threads(1)
    if prepare is not None:
        prepare(rank)
    try:
        main(arguments)
    except SystemExit as end:  # at once: decoding processes, which leave SIGTERM to us, are not waited for
        sys.stdout.flush()
        os._exit(int(end.code or 0))
    os._exit(0)


def start_two(folder: Path, arguments: list[str], prepare: Callable[[int], None] | None = None) -> list[Any]:
    port = free_port()
    folder.mkdir(exist_ok=True)
    given = (port, folder, arguments, prepare)
    pair = [FORKS.Process(target=one_of_two, args=(rank, *given)) for rank in (0, 1)]
    for process in pair:
        process.start()
    return pair


def finish_two(folder: Path, pair: list[Any]) -> Pair:
    for process in pair:
        process.join(_HANGS)
    hanging = [process.kill() for process in pair if process.is_alive()]
    assert not hanging, "a process hangs: " + "".join((folder / f"err{rank}").read_text() for rank in (0, 1))
    out, err = ([(folder / f"{name}{rank}").read_text() for rank in (0, 1)] for name in ("out", "err"))
    return [process.exitcode for process in pair], out, err


def run_two(folder: Path, arguments: list[str], prepare: Callable[[int], None] | None = None) -> Pair:
    return finish_two(folder, start_two(folder, arguments, prepare))


def figures(folder: Path) -> list[list[float]]:
    """metrics.csv without what depends on the clock."""
    rows = csv.DictReader((folder / "metrics.csv").open())
    names = ("epoch", "train_loss", "train_top1", "learning_rate", "val_loss", "val_top1")
    return [[float(row[name]) for name in names] for row in rows]


def assert_same_run(one: Path, other: Path, tolerance: float = 1e-6) -> None:
    assert len(figures(one)) == len(figures(other))
    for ours, theirs in zip(figures(one), figures(other), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for kept in ("best", "last"):
        ours, theirs = (load_model(folder / kept)[0].state_dict() for folder in (one, other))
        for name in theirs:
            assert (ours[name] - theirs[name]).abs().max() <= tolerance, name


def test_accelerate_launch_gives_the_result_of_one_process(skewed: Path, one: TrainingResult, tmp_path: Path) -> None:
    """Shares of 8 and 7 images, weighted classes, random crops, averaged weights; and one voice."""
    launch = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    launch += ["--main_process_port=0"]
    words = ["train", str(skewed), "--out", str(tmp_path / "two"), "--device=cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "hubel", *words, *options(SMOOTH)],
        capture_output=True,
        text=True,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "two", one.folder)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["metrics"] == pytest.approx(one.to_json()["metrics"], abs=1e-5)
    assert done.stderr.count("2 processes train together") == 1 and done.stderr.count("epoch   3/3") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    names = [sorted(path.name for path in run.rglob("*")) for run in (one.folder, tmp_path / "two")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_phases_on_frozen_batch_normalization(tmp_path: Path) -> None:
    """A new head, then the upper part of a network, as transfer learning has it by default."""
    data = write_shapes(tmp_path / "data", {"cross": 14, "disc": 13})
    torch.manual_seed(1)
    torch.save(create_model("resnet18", num_classes=10).state_dict(), tmp_path / "weights.pth")
    settings = {**SMOOTH, "model": "resnet18", "epochs": 2, "head_epochs": 1, "unfreeze_from": "stage4", "batch": 7}
    settings |= {"weights": str(tmp_path / "weights.pth"), "learning_rate": 1e-3, "head_learning_rate": 1e-2}
    settings |= {"augmentation": "none"}  # the head then learns from features that are computed once
    one = train(data, out=tmp_path / "one", **settings)
    arguments = ["train", str(data), "--out", str(tmp_path / "two"), *options(settings)]
    codes, _, err = run_two(tmp_path / "logs", arguments)
    assert codes == [0, 0], err
    assert "features are computed once" in err[0]
    assert_same_run(tmp_path / "two", one.folder)


def test_a_share_without_an_image(tmp_path: Path) -> None:
    """Batches of one image, and fewer validation images than processes."""
    data = write_shapes(tmp_path / "data", {"cross": 5, "disc": 5})
    settings = {**SMOOTH, "batch": 1, "epochs": 1, "learning_rate": 1e-3, "split": "0.9,0.1,0"}
    one = train(data, out=tmp_path / "one", **settings)
    codes, _, err = run_two(tmp_path / "logs", ["train", str(data), "--out", str(tmp_path / "two"), *options(settings)])
    assert codes == [0, 0], err
    assert one.scores["val"].images == 1
    assert_same_run(tmp_path / "two", one.folder)


def interrupt_the_second(rank: int) -> None:
    """SIGTERM to it alone, in its second epoch."""
    from hubel.training import loop

    validate, calls = loop._validate, []

    def interrupted(*arguments: Any) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments)

    if rank == 1:
        loop._validate = interrupted  # type: ignore[assignment]


@pytest.mark.slow
def test_interrupted_in_two_processes_goes_on_in_one(skewed: Path, one: TrainingResult, tmp_path: Path) -> None:
    """Both end, one of them says how to go on, and another number of processes does."""
    two = tmp_path / "two"
    arguments = ["train", str(skewed), "--out", str(two), *options(SMOOTH)]
    codes, out, err = run_two(tmp_path / "logs", arguments, interrupt_the_second)
    assert codes == [130, 143] and out == ["", ""]  # as by Ctrl-C, and the one that SIGTERM reached
    assert err[1] == "" and "Traceback" not in err[0]
    assert err[0].count(f"--out {two} --resume") == 1
    assert len(figures(two)) == 1
    train(skewed, out=two, resume=True)
    assert_same_run(two, one.folder)


def test_interrupted_in_one_process_goes_on_in_two(
    skewed: Path, one: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubel.training import loop

    two, finish_epoch = tmp_path / "two", loop._finish_epoch

    def interrupted(*arguments: Any) -> None:
        finish_epoch(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_finish_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(skewed, out=two, **SMOOTH)
    assert len(figures(two)) == 1
    codes, _, err = run_two(tmp_path / "logs", ["train", str(skewed), "--out", str(two), "--resume"])
    assert codes == [0, 0], err
    assert "resuming after epoch 1" in err[0] and err[1] == ""
    assert_same_run(two, one.folder)


def fail_in_the_second(rank: int) -> None:
    from hubel.training import loop

    def burn(*arguments: Any) -> None:
        raise DataError("the disk burns", "put it out")

    if rank == 1:
        loop._validate = burn  # type: ignore[assignment]


def die_in_the_second(rank: int) -> None:
    from hubel.training import loop

    if rank == 1:
        loop._validate = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


def test_an_error_of_one_process_ends_both_with_one_message(skewed: Path, tmp_path: Path) -> None:
    arguments = ["train", str(skewed), "--out", str(tmp_path / "two"), *options(SMOOTH)]
    codes, out, err = run_two(tmp_path / "logs", arguments, fail_in_the_second)
    assert codes == [1, 1] and out == ["", ""]
    assert err[1] == "error: the disk burns\nhint:  put it out\n"
    assert "error:" not in err[0] and "interrupted" not in err[0] and "Traceback" not in err[0]

    codes, out, err = run_two(tmp_path / "more-logs", arguments, die_in_the_second)
    assert codes == [1, -signal.SIGKILL]
    assert (
        err[0].count("error: another process of this training exited unexpectedly") == 1 and "Traceback" not in err[0]
    )

    (tmp_path / "empty").mkdir()
    codes, out, err = run_two(tmp_path / "other-logs", ["train", str(tmp_path / "empty"), *options(SMOOTH)])
    assert codes == [1, 1]
    assert err[0].startswith("error:") and len(err[0].splitlines()) == 2 and err[1] == ""
