"""Names from files cannot command the terminal: what commands print as text has their escapes visible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubel.cli.main import main
from labelled_sets import write_image

BELL = "cat\x1b[2J\x07\u202e"


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    root = tmp_path / "set\x1b[31m"
    images = []
    for number in range(6):
        write_image(root / f"{number}\x1b]0;x\x07.jpg", 64, 48)
        images.append({"id": number, "file_name": f"{number}\x1b]0;x\x07.jpg", "width": 64, "height": 48})
    rows = [{"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [5, 6, 15, 24 + 50 * n]} for n in range(6)]
    names = [{"id": 1, "name": BELL}, {"id": 2, "name": "dog"}]
    (root / "labels.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": names}))
    return root


@pytest.mark.parametrize("command", ["stats", "check", "convert", "split"])
def test_no_escape_reaches_the_terminal(
    command: str, odd_names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out\x1b[1m")]
    more = {"convert": ["--to", "voc", *out], "split": out}
    with pytest.raises(SystemExit) as ended:
        main(["data", command, str(odd_names), *more.get(command, [])])
    captured = capsys.readouterr()
    assert ended.value.code in (0, 1)
    assert "\\x1b" in captured.out + captured.err
    for letter in "\x1b\x07\u202e":
        assert letter not in captured.out and letter not in captured.err


def test_json_keeps_names_exact(odd_names: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "stats", str(odd_names), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert BELL in _texts(record)


def _texts(value: object) -> set[str]:
    if isinstance(value, dict):
        return set().union(value, *map(_texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()
