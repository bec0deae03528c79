"""`hubel.bounded`: forged JSON and YAML ends at once, with a short message; what is sound reads as it should."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hubel.bounded import BoundError, check_yaml, load_json, load_yaml, read_bytes, read_json
from hubel.config import make_config
from hubel.config_file import read_config, write_config
from hubel.errors import DataError

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGED = "a0: &a0 {key: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
FORGED_YAML = {
    "aliases of aliases": (ALIASES, "stands for more than 200,000 values"),
    "merged keys": (MERGED, "stands for more than 200,000 values"),
    "itself": ("a: &a [*a]", "a value contains itself"),
    "merged with itself": ("a: &a {<<: *a}", "a value contains itself"),
    "nested lists": ("[" * 500_000, "nested too deeply"),
    "nested keys": ("{a: " * 200_000, "nested too deeply"),
    "nested blocks": ("- " * 200_000, "nested too deeply"),
    "values": ("[" + "[]," * 300_000 + "]", "more than 200,000 values"),
    "code": ("- !!python/object/apply:os.system [id]", "could not determine a constructor"),
    "tag of nothing": ("- !!float ''", "is not valid YAML"),
    "no truth": ("- !!bool maybe", "is not valid YAML"),
    "no date": ("- !!timestamp x", "is not valid YAML"),
    "null bytes": ("\0" * 100, "is not valid YAML"),
    "not closed": ('"' + "a " * 500_000, "is not valid YAML"),
}
FORGED_JSON = {
    "nested lists": ("[" * 200_000, "nested too deeply"),
    "nested objects": ('{"a":' * 200_000, "nested too deeply"),
    "digits": ("1" * 100_000, "thousands of digits"),
    "zeros": ("[" + "0," * 5_000_000 + "0]", "more than the limit"),
    "cut off": ('{"a": ', "line 1, column 7"),
}


@pytest.mark.parametrize("name", FORGED_YAML)
def test_forged_yaml_is_refused(name: str) -> None:
    text, expected = FORGED_YAML[name]
    with pytest.raises(BoundError, match=expected) as caught:
        load_yaml(text)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("names: [a, b\ntrain: x\n", "line 1, column 8: a list that begins with [ here has no ]"),
        ("a: 1\nb: {c: 1\n", "line 2, column 4: what begins with { here has no }"),
        ("a: 1\nb: c: d\n", "line 2, column 5: a colon, or a deeper indent, where neither can be"),
        ("a:\n\t- b\n", "line 2, column 1: a tab, or a value that begins with @"),
        ("a: 1\nb: 'x\n", "line 2, column 4: a text that begins with a quotation mark here does not end"),
        ("a: *x\n", "line 1, column 4: a value that begins with * refers to nothing"),
        ("- a\nb: c\n", "line 2, column 1: the list above goes on without -"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: a second document"),
        ("a: \x01\n", "a byte or character that no text has, at position 4"),
    ],
)
def test_faults_of_yaml_are_told_with_their_line_first(text: str, fault: str) -> None:
    for read in (load_yaml, check_yaml):
        with pytest.raises(BoundError) as caught:
            read(text)
        assert str(caught.value).startswith(f"is not valid YAML ({fault}")


@pytest.mark.parametrize("name", FORGED_JSON)
def test_forged_json_is_refused(name: str) -> None:
    text, expected = FORGED_JSON[name]
    with pytest.raises(BoundError, match=expected) as caught:
        load_json(text)
    assert len(str(caught.value)) < 300


def test_plain_yaml_reads_as_by_pyyaml() -> None:
    text = "names: {0: a, 1: 'b'}\nx: &x [1, 2.5, null]\ny: *x\nz: {<<: {q: 1}, r: 2}\ndate: 2020-01-01\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("") is None
    assert load_yaml("\ufeffa: é".encode()) == {"a": "é"}


def test_a_number_in_base_60_of_any_length_takes_no_time() -> None:
    text = "1" + ":00" * 100_000  # as a number its time grows with the square of its length
    assert load_yaml(f"a: {text}") == {"a": text}
    assert load_yaml("a: 1:30") == {"a": 90}


def test_only_regular_files_of_limited_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 40)  # a terabyte of zeros that takes no space
    with pytest.raises(BoundError, match="more than the limit"):
        read_bytes(tmp_path / "large")
    with pytest.raises(BoundError, match="is not a file"):
        read_json(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BoundError, match="is not a file"):
            read_json(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b'"\xe9"')
    with pytest.raises(BoundError, match="not UTF-8"):
        read_json(tmp_path / "latin")


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        MERGED,
        f"data: x\nseed: [{'1, ' * 9_000}]",
        "[1]",
        "1: 2",
        "task: [a]",
        "data: x\noptions: [.inf]",
        "data: x\naugmentation: 5",
        "data: x\naugmentation: [1]",
        "data: x\nsplit: {a: b}",
    ],
)
def test_a_forged_configuration_of_a_run_is_named_in_a_short_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match="config.yaml") as caught:
        read_config(tmp_path / "config.yaml")
    assert len(caught.value.message) < 600


def test_a_written_configuration_is_read_back(tmp_path: Path) -> None:
    config = make_config(data="x", epochs=3, augmentation="flip,crop")
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config
