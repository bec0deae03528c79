"""Configurations as files, and what is wrong with an option in words."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import hubel
from hubel.cli.main import main
from hubel.config import TrainingConfig, make_config
from hubel.config_file import read_config, read_options, write_config
from hubel.errors import DataError, UsageError
from hubel.training.train_options import TrainingOptions


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epoch": 3}, "epoch: there is no such option\ndid you mean epochs?"),
        ({"lr": 3}, "lr: there is no such option\nsee hubel train --help"),
        ({"epochs": 0}, "epochs = 0: it is at least 1\n"),
        ({"epochs": "many"}, "epochs = 'many': it is not a whole number\n"),
        ({"epochs": 1.5}, "epochs = 1.5: it is not a whole number\n"),
        ({"epochs": []}, "epochs = []: it is not a whole number\n"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: it is greater than 0\n"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast': it is not a number\n"),
        ({"average": 1}, "average = 1: it is less than 1\n"),
        ({"optimizer": "adam"}, "optimizer = 'adam': it is one of 'adamw', 'sgd'\n"),
        (
            {"task": "sort"},
            "task = 'sort': it is one of 'classify', 'localize', 'detect', 'segment', 'instances', 'super-resolve'\n",
        ),
        ({"strict": "maybe"}, "strict = 'maybe': it is neither true nor false\n"),
        ({"split": "1,2,3"}, "split = '1,2,3': '1,2,3' sums to 6, not to 1\n"),
        ({"split": [0.5, 0.5]}, "split"),
        ({"model": 3}, "model = 3: it is not text\n"),
        ({"options": ["se"]}, "options = ['se']: 'se' is not NAME=VALUE\n"),
        ({"options": 3}, "options = 3: it is not a mapping of names to values\n"),
        ({"loss_weights": "box=x"}, "loss_weights"),
        ({"augmentation": 3}, "augmentation"),
    ],
)
def test_a_wrong_option_is_told_in_plain_words(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(data="x", **values)
    assert str(caught.value).startswith(said)
    for word in ("pydantic", "Value error", "Input should", "validation", "type="):
        assert word not in str(caught.value)


def test_typed_keywords_are_those_of_the_configuration() -> None:
    names = [each.name for each in fields(TrainingConfig) if each.name != "data"]
    assert sorted(TrainingOptions.__annotations__) == sorted(names)
    signature = inspect.signature(hubel.train)
    assert set(names) < set(signature.parameters) and "callbacks" in signature.parameters
    options, config = get_type_hints(TrainingOptions), get_type_hints(TrainingConfig)
    for name in names:  # the same type, or text that is read as one
        given = getattr(options[name], "__args__", (options[name],))
        assert config[name] == options[name] or str in given or "Mapping" in str(options[name]), name


def test_a_file_of_options_is_overridden_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def train(data: Path, **options: Any) -> None:
        given.update(data=data, **options)
        raise UsageError("stop", "here")

    monkeypatch.setattr("hubel.training.train.train", train)
    (tmp_path / "flowers").mkdir()
    config = make_config(data=tmp_path / "flowers", epochs=7, seed=3, accumulate=2, augmentation="flip", weights=None)
    write_config(tmp_path / "config.yaml", config)
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "config.yaml"), "--epochs", "9", "--seed", "0"])
    assert (given["resume"], given["out"]) == (False, None)
    assert given["data"] == str(tmp_path / "flowers")
    options = {name: value for name, value in given.items() if name not in ("data", "resume", "out")}
    repeated = make_config(data=given["data"], **options)
    assert repeated == make_config(
        data=tmp_path / "flowers", epochs=9, seed=0, accumulate=2, augmentation="flip", weights=None
    )
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "--config", str(tmp_path / "config.yaml")])
    assert given["data"] == tmp_path and given["epochs"] == 7


def test_data_comes_from_somewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "options.yaml").write_text("learning-rate: 0.1\n")
    assert read_options(tmp_path / "options.yaml") == {"learning_rate": 0.1}
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", str(tmp_path / "options.yaml")])
    assert caught.value.code == 2 and "DATA is missing" in capsys.readouterr().err


LINES = [f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)]
BOMB = "".join(["a: &a [x, x]\n", *LINES])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [", "not valid YAML"),
        ("- a\n", "not a mapping"),
        ("", "not a mapping"),
        ("1: 2\n", "not a mapping"),
        (BOMB, "aliases"),
        ("a: " + "[" * 20_000, "not valid YAML"),
        ("a: [" + "1," * 200_000 + "]", "more than"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
    ],
)
def test_what_is_no_configuration_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    for read, kind in ((read_config, DataError), (read_options, UsageError)):
        with pytest.raises(kind, match=said) as caught:
            read(path)
        assert len(str(caught.value)) < 500


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml cannot be read: No such file"):
        read_options(tmp_path / "nothing.yaml")
    with pytest.raises(DataError, match=r"nothing\.yaml is missing"):
        read_config(tmp_path / "nothing.yaml")
