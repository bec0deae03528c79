"""Ctrl-C, a request to end and a closed terminal end every command alike: status 128 + N, and nothing hidden stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from drawn_shapes import write_shapes

ADD_IMAGE = "hubel.data.annotations.writer:DatasetWriter.add_image"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# Runs a command, which waits for the signal within a function, with a folder of its own half written.
WAITING = """
import time
from pkgutil import resolve_name
from hubel.cli.main import main

module, _, path = {where!r}.partition(":")
*inner, name = path.split(".")

def wait(*arguments, **named):
    print("ready", flush=True)
    time.sleep(60)

setattr(resolve_name(":".join([module, *inner])), name, wait)
main({arguments!r})
"""


def _start(where: str, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    program = before + WAITING.format(where=where, arguments=list(map(str, arguments)))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen([sys.executable, "-c", program], **pipes, start_new_session=True)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("ready"):
            time.sleep(0.1)
            return running
    raise AssertionError(running.communicate()[1])


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("command", ["split", "export"])
def test_no_half_of_a_folder_is_left(command: str, sent: signal.Signals, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", {"cross": 9, "disc": 9})
    out = tmp_path / "made" / "out"
    where, words = {
        "split": (ADD_IMAGE, ("data", "split", data)),
        "export": ("hubel.exporters.export:write_text", ("export", "efficientnet_lite0", "--format", "openvino")),
    }[command]
    running = _start(where, *words, "--out", out)
    os.killpg(running.pid, sent)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + sent, errors
    assert errors.strip().endswith("interrupted") and "Traceback" not in errors
    assert not (tmp_path / "made").exists()


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` leaves SIGHUP."""
    data = write_shapes(tmp_path / "data", {"cross": 9, "disc": 9})
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    running = _start(ADD_IMAGE, "data", "split", data, "--out", tmp_path / "out", before=ignoring)
    running.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    assert running.communicate(timeout=60) and running.returncode == 143


def test_a_reader_that_has_gone_is_no_error() -> None:
    command = [sys.executable, "-m", "hubel", "cache", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    errors = running.stderr.read()
    assert (running.wait(60), errors) == (0, b"")


def test_an_output_that_cannot_be_written_is_told() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hubel", "cache", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: the output cannot be written: No space left on device")
