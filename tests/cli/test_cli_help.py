"""Help, completion, and what ``hubel`` alone does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hubel.cli.main import app
from hubel.cli.options import _GROUP_OF
from hubel.config import TrainingConfig

COMMANDS = dict(get_command(app).commands)  # type: ignore[attr-defined]


def _help(*words: str, width: int = 80) -> str:
    shown = CliRunner().invoke(app, [*words], prog_name="hubel", terminal_width=width)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_alone_it_prints_its_help_and_that_is_no_fault() -> None:
    assert _help() == _help("--help")
    assert _help("data") == _help("data", "--help")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_short_help_values_and_width(name: str) -> None:
    text = _help(name, "-h")
    assert text == _help(name, "--help")
    assert not re.findall(r"<\w[\w\[\] ]*>|\{\w+\}|\[\[", text), "a type or bracket of the library shows"
    options = text[text.index("Options:") :] if "Options:" in text else ""
    assert max(map(len, options.splitlines()), default=0) <= 80


def test_no_summary_is_cut_off() -> None:
    assert "..." not in _help("--help").replace("[ARGS]...", "")


def test_options_stand_in_groups() -> None:
    text = _help("predict", "-h")
    running = text[text.index("How the network runs:") : text.index("Large collections:")]
    assert "--engine auto|torch|openvino|onnx" in running and "--threads N" in running
    assert "--top N" not in running


def test_every_grouped_option_of_training_exists() -> None:
    assert set(_GROUP_OF) <= {field.name for field in fields(TrainingConfig)}
    text = _help("train", "-h")
    assert text.index("--epochs N") < text.index("Optimization:") < text.index("--learning-rate, --lr X")
    assert "train [OPTIONS] [DATA]" in text  # a --config may name it


def _completed(line: str) -> list[str]:
    words = line.split(" ")
    environment = {"_HUBEL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", "from hubel.cli.main import main; main([])"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_shell_completes_commands_options_values_and_models() -> None:
    assert "predict" in _completed("hubel pre")
    assert "--engine" in _completed("hubel predict --en")
    assert _completed("hubel predict --engine ") == ["auto", "torch", "openvino", "onnx"]
    assert "ssd300_vgg16" in _completed("hubel predict --model ssd")


def test_the_script_for_a_shell_is_shown() -> None:
    shown = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="hubel")
    if shown.exit_code:  # typer finds out the shell by itself, and takes no name then
        environment = {**os.environ, "_HUBEL_COMPLETE": "source_bash"}
        command = [sys.executable, "-c", "from hubel.cli.main import main; main([])"]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "_HUBEL_COMPLETE=complete_bash" in shown.stdout
