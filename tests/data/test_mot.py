"""MOTChallenge text as tools and spreadsheets write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hubel.data.mot import read_mot_text
from hubel.errors import DataError

LINES = ["1,2,10.5,20,30,40,0.9,-1,-1,-1", "1,3,60,20,30,40,0.8,-1,-1,-1", "2,2,11,20.25,30,40,1,-1,-1,-1"]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "boxes.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line,
        lambda line: line + ",",
        lambda line: line + ", ",
        lambda line: line.replace(",", ", "),
        lambda line: line.replace(",", ";"),
        lambda line: line.replace(",", " ; ") + ";",
        lambda line: line.replace(",", ";").replace(".", ","),
        lambda line: line.replace(",", "\t"),
        lambda line: line.replace(",", "\t").replace(".", ",") + "\t",
        lambda line: line.replace(",", ",\t"),
        lambda line: line.replace(",", " "),
        lambda line: "  " + line.replace(",", "   ") + " ",
        lambda line: line.replace(",", "|"),
        lambda line: line.replace(",", " ").replace(".", ","),
    ],
)
@pytest.mark.parametrize("header", ["", "frame,id,x,y,w,h,score,a,b,c\n", "# made by a tool\n\n"])
def test_any_separator(tmp_path: Path, change: object, header: str) -> None:
    text = header + "".join(change(line) + "\n" for line in LINES)
    boxes = read_mot_text(written(tmp_path, text))
    assert boxes.frames.tolist() == [1, 1, 2]
    assert boxes.ids.tolist() == [2, 3, 2]
    assert boxes.boxes.tolist() == [[10.5, 20, 40.5, 60], [60, 20, 90, 60], [11, 20.25, 41, 60.25]]
    assert boxes.scores.tolist() == [0.9, 0.8, 1]
    assert boxes.notes == ()
    first = text.split("\n").index(change(LINES[0])) + 1
    assert np.array_equal(boxes.lines, [first, first + 1, first + 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,10,,30,40,1\n", "line 1: '' is not a number"),
        ("1,2,10,20,30,40\n1,3,10,20,30,40,\n1,4;5,6,7,8\n", "line 3: '4;5' is not a number"),
        ("1;2;10;20;30\n", "line 1: 5 numbers, expected at least 6"),
        ("1 2 10 20 30 40\n1,2,10,20,30,40\n", "line 2"),
        ("frame,id\n", None),
    ],
)
def test_what_is_no_table_is_named_by_its_line(tmp_path: Path, text: str, message: str | None) -> None:
    path = written(tmp_path, text)
    if message is None:
        assert len(read_mot_text(path)) == 0
        return
    with pytest.raises(DataError, match=message):
        read_mot_text(path)


@pytest.mark.parametrize("cell", ["1_0", "\u0661", "\uff11", "0x10", "1D3", "true"])
@pytest.mark.parametrize("column", [0, 1, 2, 6])
def test_what_only_some_parsers_take_for_a_number_is_named_with_its_line(
    tmp_path: Path, cell: str, column: int
) -> None:
    cells = ["2", "1", "10", "10", "20", "20", "1", "-1", "-1", "-1"]
    cells[column] = cell
    file = tmp_path / "a.txt"
    file.write_text("1,1,10,10,20,20,1,-1,-1,-1\n" + ",".join(cells) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"line 2: '{cell}' is not a number"):
        read_mot_text(file)


def test_boxes_farther_away_than_any_image_is_wide_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("1,1,10,10,20,20,1\n1,2,1e300,10,1e300,20,1\n1,3,1e400,10,2,2,1\n")
    found = read_mot_text(file)
    assert found.ids.tolist() == [1]
    assert ["not finite" in note for note in found.notes] == [True, False]
    assert "1 box is farther away than any image is wide (first in line 2)" in found.notes[1]
