"""Commands are imported when they run, and the options of ``hubel train`` are the fields of its configuration."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from hubel.cli.main import app, main
from hubel.cli.options import options_of
from hubel.config import DEFAULTS, RECIPES, Option, TrainingConfig, describe_default, make_config
from hubel.errors import UsageError

TRAIN = get_command(app).commands["train"]  # type: ignore[attr-defined]
OPTIONS = {parameter.name: parameter for parameter in TRAIN.params}


def _option(name: str) -> Option:
    return next(
        note
        for note in get_type_hints(TrainingConfig, include_extras=True)[name].__metadata__
        if isinstance(note, Option)
    )


@pytest.mark.parametrize("name", [field.name for field in fields(TrainingConfig) if field.name != "data"])
def test_every_field_is_an_option(name: str) -> None:
    option, parameter = _option(name), OPTIONS[name]
    assert set(parameter.opts) == set(option.names or ["--" + name.replace("_", "-")])
    assert parameter.help == option.help


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, bound + step)
        for name in OPTIONS
        if name in {field.name for field in fields(TrainingConfig)} - {"data"}
        for bound, step in ((_option(name).min, -1), (_option(name).above, 0), (_option(name).below, 0))
        if bound is not None
    ],
)
def test_a_value_out_of_range_is_wrong_usage(
    name: str, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=name):
        make_config(data=tmp_path, **{name: value})
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path), "--task", "classify", OPTIONS[name].opts[-1], str(value)])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert name in err.replace("-", "_")
    assert re.search(r"it is (at (least|most)|greater than|less than) ", err), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "DATA", "--epochs", "many"], "it is not a whole number"),
        (["train", "DATA", "--balance", "well"], "'well' is not one of 'auto', 'none', 'sampling', 'loss', 'smote'"),
        (["predict", "a.jpg", "--top", "0"], "it is at least 1"),
        (["predict", "a.jpg", "--conf", "2"], "it is at most 1"),
        (["export", "run", "--format", "tar"], "'tar' is not one of 'onnx', 'openvino', 'torch'"),
        (["scale", "lenet5", "--phi", "x"], "it is not a number"),
    ],
)
def test_a_wrong_value_is_told_without_the_words_of_a_library(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in err
    assert "Value error" not in err and "Input should" not in err


WRONG_NAMES = [
    (["train", "data", "--model", "resnet5"], "unknown architecture 'resnet5'"),
    (["train", "data", "--task", "detect", "--backbone", "resnet5"], "unknown architecture 'resnet5'"),
    (["train", "data", "--split", "1,2,3"], "split = '1,2,3': '1,2,3' sums to 6, not to 1"),
    (["train", "gone"], "gone does not exist"),
    (["tune", "gone"], "gone does not exist"),
    (["tune", "data", "--model", "resnet5"], "unknown architecture 'resnet5'"),
    (["evaluate", "efficientnet_lite0", "gone"], "gone does not exist"),
    (["export", "efficientnet_lite0", "--format", "openvino", "--calibrate", "gone"], "gone does not exist"),
    (["summary", "resnet5"], "resnet5 is neither an existing folder nor a known architecture"),
    (["models", "resnet5"], "unknown architecture 'resnet5'"),
    (["bench", "resnet5"], "resnet5 is neither an existing folder nor a known architecture"),
]


def test_wrong_names_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    program = """
import json, sys
sys.modules["torch"] = None
from hubel.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as ended:
        assert ended.code in (1, 2)
"""
    words = json.dumps([words for words, _ in WRONG_NAMES])
    done = subprocess.run([sys.executable, "-c", program, words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("hint:  ")]
    assert errors == [f"error: {said}" for _, said in WRONG_NAMES]


@pytest.mark.parametrize("words", [["summary"], ["export", "--format", "onnx"], ["train"], ["data", "check"]])
def test_names_longer_than_any_file_s_are_not_called_a_bug(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "a" * 300])
    assert ended.value.code == 1
    message, hint = capsys.readouterr().err.splitlines()[-2:]
    assert re.match(r"error: a{300} (does not exist|is neither an existing folder nor)", message)
    assert "bug" not in hint


def test_defaults_are_described_from_the_tables_that_hold_them() -> None:
    assert (
        describe_default("epochs")
        == "17 (60 from scratch); localize: 20 (120 from scratch); detect, instances: 60 (200 from scratch); "
        "segment: 12 (100 from scratch); super-resolve: 20"
    )
    assert describe_default("batch") == "32; detect: 16; instances, segment: 4; super-resolve: 8"
    assert describe_default("loss_weights") == "localize: class=1,giou=2,smooth_l1=5; segment: class=1,lovasz=1"
    assert describe_default("seed") is None
    for field in fields(TrainingConfig):
        tables = [*DEFAULTS.values(), *(start for starts in RECIPES.values() for start in starts)]
        if any(field.name in table for table in tables):
            assert field.default in (None, MISSING)


def test_a_new_option_is_one_field() -> None:
    config = make_dataclass(
        "Config",
        [
            ("depth", Annotated[int, Option("Depth.", min=1)], 3),
            ("names", Annotated[tuple[str, ...], Option("Names.", ("--with",), default="all")], ()),
            ("mode", Annotated[Literal["a", "b"] | None, Option("Mode.")], None),
            ("fast", Annotated[bool, Option("Fast.")], False),
            ("silent", int, 0),
        ],
    )
    seen: list[dict[str, Any]] = []

    @options_of(config)
    def command(path: Annotated[Path, typer.Argument()], last: bool = False, **given: Any) -> None:
        seen.append({"path": path, "last": last, **given})

    own = typer.Typer(rich_markup_mode=None)
    own.command()(command)
    run = CliRunner()
    assert run.invoke(own, ["x"]).exit_code == 0
    assert run.invoke(own, ["x", "--depth", "5", "--with", "a,b", "--mode", "b", "--fast", "--last"]).exit_code == 0
    assert run.invoke(own, ["x", "--depth", "0"]).exit_code == 2
    assert run.invoke(own, ["x", "--mode", "c"]).exit_code == 2
    assert run.invoke(own, ["x", "--silent", "1"]).exit_code == 2
    plain = {"path": Path("x"), "last": False}
    given = {"path": Path("x"), "last": True, "depth": 5, "names": "a,b", "mode": "b", "fast": True}
    assert seen == [plain, given]


def test_options_reach_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def train(data: Path, **options: Any) -> None:
        given.update(options)
        raise UsageError("stop", "here")

    monkeypatch.setattr("hubel.training.train.train", train)
    arguments = ["--split", "0.5,0.3,0.2", "--augment", "flip, none", "--set", "se=true", "--set", "width=0.5"]
    arguments += ["--loss-weights", "giou=1.5", "--from-scratch", "--learning-rate", "0.1"]
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), *arguments])
    assert given.pop("resume") is False and given.pop("out") is None
    assert "task" not in given and "batch" not in given
    config = make_config(data=tmp_path, **given)
    plain = make_config(data=tmp_path)
    assert config == replace(
        plain,
        split=(0.5, 0.3, 0.2),
        augmentation=("flip",),
        options={"se": True, "width": 0.5},
        loss_weights={"giou": 1.5},
        weights=None,
        learning_rate=0.1,
    )


def test_a_command_imports_no_other() -> None:
    program = """
import contextlib, io, sys
from hubel.cli.main import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(["cache", "--help"])
print(*sorted(name for name in sys.modules if name.startswith("hubel.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hubel.cli.cache", "hubel.cli.command", "hubel.cli.main", "hubel.cli.options"]
