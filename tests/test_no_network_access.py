"""No command opens a connection, and OpenVINO's and NNCF's telemetry finds no home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hubel.cli.main import app

# Every process of a command, workers included, tells of connections, names looked up, messages sent, and fails there.
_WATCH = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        what = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        if arguments[0].family == getattr(socket, "AF_UNIX", None):
            return  # between a process and its workers
        what = arguments[1]
    else:
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{event} {what}\\n")
    raise OSError(f"{event} is blocked")

sys.addaudithook(watch)
"""

_RUN = """
import sys
from hubel.cli.main import main

for line in sys.stdin.read().splitlines():
    try:
        main(line.split("\\t"))
    except SystemExit as done:
        print("status", done.code or 0, line.split("\\t")[0], file=sys.stderr)
"""


def _watched(tmp_path: Path, program: str, text: str = "", home_is_untouched: bool = True) -> tuple[str, str]:
    """What a program says on stderr, and what its processes wanted from the network."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_WATCH)
    home = tmp_path / "home"
    home.mkdir()
    path = os.pathsep.join([str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "PYTHONPATH": path, "WATCHED": str(tmp_path / "watched"), "HOME": str(home)}
    environment |= {"HUBEL_CACHE": str(tmp_path / "cache"), "MPLCONFIGDIR": str(tmp_path)}
    for name in ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS"):  # where telemetry would be off by itself
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", program], input=text, env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    if home_is_untouched:
        assert not list(home.rglob("*intel*")) and not list(home.rglob("*telemetry*"))
    watched = tmp_path / "watched"
    return done.stderr, watched.read_text() if watched.exists() else ""


def test_the_watch_sees_connections(tmp_path: Path) -> None:
    program = (
        "import contextlib, urllib.request\n"
        "with contextlib.suppress(OSError):\n"
        "    urllib.request.urlopen('http://192.0.2.1/', timeout=1)\n"
    )
    assert "192.0.2.1" in _watched(tmp_path, program)[1]


@pytest.mark.parametrize("quiet", [False, True])
def test_openvino_reports_unless_switched_off(tmp_path: Path, quiet: bool) -> None:
    """Should it ever keep quiet by itself, ``switch_off_telemetry`` may go."""
    pytest.importorskip("openvino_telemetry")
    ours = "from hubel.inference.engines.openvino import openvino; openvino()\n"
    program = (ours if quiet else "import openvino\n") + "import threading, time\ntime.sleep(1)\n"
    watched = _watched(tmp_path, program, home_is_untouched=quiet)[1]
    assert (watched == "") is quiet


_SHORT = "--engine openvino --precision fp32 --batch 1 --seconds 0 --rounds 1 --threads 1"


def test_no_command_opens_a_connection(tmp_path: Path, shapes: Path) -> None:
    image = str(next(shapes.rglob("*.png")))
    run = str(tmp_path / "run")
    small = ["--model", "lenet5", "--epochs", "1", "--image-size", "32", "--batch", "32", "--threads", "1"]
    lines = {
        "train": [["train", str(shapes), *small, "--out", run]],
        "predict": [
            ["predict", image, "--model", run, "--engine", engine, "--threads", "1"] for engine in ("torch", "openvino")
        ],
        "evaluate": [["evaluate", run, str(shapes), "--threads", "1"]],
        "models": [["models", "--match", "lenet*"]],
        "summary": [["summary", "lenet5"]],
        "bench": [["bench", run, *_SHORT.split()]],
        "cache": [["cache"], ["cache", "clear"]],
        "demo": [["demo", "--out", str(tmp_path / "demo")]],
        "export": [["export", run, "--format", "openvino", "--out", str(tmp_path / "ir")]],
    }
    commands = get_command(app).commands  # type: ignore[attr-defined]
    asked = [line for name, rows in lines.items() if name in commands for line in rows]
    asked += [[name, "--help"] for name in commands if name not in lines]
    output, watched = _watched(tmp_path, _RUN, "\n".join("\t".join(line) for line in asked))
    assert watched == ""
    statuses = [line.split() for line in output.splitlines() if line.startswith("status")]
    assert [(status[2], status[1]) for status in statuses] == [(line[0], "0") for line in asked], output


def test_quantization_opens_no_connection(tmp_path: Path) -> None:
    program = """
import time
import numpy as np
from torch import nn
from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.openvino import to_openvino
from hubel.inference.quantize import post_training_quantization

network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
post_training_quantization(to_openvino(network, Preprocessing(16, 16)), np.zeros((4, 16, 16, 3), np.uint8))
time.sleep(1)
"""
    assert _watched(tmp_path, program)[1] == ""
