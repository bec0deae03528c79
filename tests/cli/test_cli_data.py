"""`hubel data`: what it prints where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hubel.cli.main import app, main
from hubel.data.annotations import read_annotations, write_annotations
from labelled_sets import small_set


def _ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write_annotations(small_set(tmp_path / "source"), "coco", tmp_path / "coco")
    return tmp_path / "coco"


def test_convert_says_what_is_lost(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(["data", "convert", str(coco), "--to", "createml", "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert output.out == (
        f"{tmp_path / 'out'}: 5 images, 1 of them unlabelled, 11 objects of 3 classes, from coco to createml\n"
    )
    lost = output.err.splitlines()
    assert "not in createml: 3 masks are reduced to bounding boxes" in lost
    assert "not in createml: 1 crowd flags" in lost
    assert all(line.startswith("not in createml: ") for line in lost)
    assert sum(map(len, read_annotations(tmp_path / "out").splits.values())) == 5


def test_json_is_one_object(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = CliRunner().invoke(
        app, ["data", "convert", str(coco), "--to", "yolo", "--out", str(out), "--json", "--images", "link"]
    )
    assert shown.exit_code == 0
    row = json.loads(shown.stdout)
    assert (row["from"], row["to"], row["classes"]) == ("coco", "yolo", ["bus", "car", "ox"])
    assert (row["images"], row["unlabelled"], row["objects"]) == ({"train": 3, "val": 2}, 1, 11)
    assert [line for line in row["losses"] if "masks" in line]
    assert all(path.is_symlink() and path.exists() for path in out.glob("images/*/*"))


def test_ends_with_1_and_two_lines(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(["data", "convert", str(coco), "--to", "voc", "--out", str(coco)]) == 1
    message, hint = capsys.readouterr().err.splitlines()[-2:]
    assert message == f"error: {coco} is not empty"
    assert hint == "hint:  choose another --out; nothing is overwritten"


@pytest.mark.parametrize("option", ["--to", "--from"])
def test_unknown_formats_end_with_2(
    option: str, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = {"--to": "yolo", "--from": "coco", option: "pascal"}
    words = [word for pair in formats.items() for word in pair]
    assert _ended(["data", "convert", str(coco), *words, "--out", str(tmp_path / "out")]) == 2
    assert "'pascal' is not an annotation format" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reads_no_torch(coco: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from hubel.data.annotations import read_annotations, write_annotations
write_annotations(read_annotations({str(coco)!r}), "voc", {str(tmp_path / "out")!r})
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
