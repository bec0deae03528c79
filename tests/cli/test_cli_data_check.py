"""`hubel data check` and `hubel data stats`: what they print where, what they write, how they end."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from hubel.cli.main import main
from hubel.data.checks import check_data
from hubel.data.file_listing import OUTPUT_MARK
from label_errors import Planted


def _ended(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    planted = Planted(tmp_path / "set")
    planted.put("train1.png", (30, 80, 30, 90), (150, 5, 190, 20), (5, 5, 6, 25))
    return planted.write("coco")


def test_check_prints_findings_by_kind_and_ends_with_1(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended("data", "check", faulty) == 1
    lines = capsys.readouterr().out.splitlines()
    image = check_data(faulty).findings[0].image
    assert lines == [
        "error: Boxes without area: 1. Draw them again; --fix removes them.",
        f"  {image}, object 4 (bus): is 0 wide and 10 high",
        "warning: Boxes that extend beyond the image: 1. --fix clips them at its edge.",
        f"  {image}, object 5 (bus): extends 30 pixels beyond the image, with 75% of its area",
        "warning: Boxes of about a pixel: 1. Delete those drawn by accident.",
        f"  {image}, object 6 (bus): is 1 wide and 20 high",
        f"{faulty}: 9 images (0 unlabelled, 0 labelled as empty), 30 objects, 2 classes: 1 error, 2 warnings",
    ]


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_fix_report_and_json(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "mended", tmp_path / "check.html"
    assert _ended("data", "check", faulty, "--fix", out, "--report", page, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"degenerate": 1, "partly-outside": 1, "tiny": 1}
    assert report["findings"][1]["box"] == [150, 5, 190, 20]
    assert [len(report["fix"][name]) for name in ("changes", "left")] == [2, 1]
    sources = _Sources()
    sources.feed(page.read_text(encoding="utf-8"))
    assert sum(source.startswith("data:image/jpeg") for source in sources.found) == 3
    assert all(source.startswith(("data:", "#")) for source in sources.found)
    # Only the warning is left: no error, but not clean either.
    assert _ended("data", "check", out) == 0
    assert _ended("data", "check", out, "--strict") == 1


def test_a_mended_copy_never_lies_in_the_original(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended("data", "check", faulty, "--fix", faulty / "mended") == 2
    assert "inside the data set" in capsys.readouterr().err
    assert not (faulty / "mended").exists()


def test_stats(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures"
    assert _ended("data", "stats", faulty, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [["train", "val"], ["images", "6", "3"], ["unlabelled", "0", "0"]]
    assert "objects per labelled image: 3 to 6, mean 3.3" in lines
    assert {file.name for file in out.iterdir()} == {
        OUTPUT_MARK, "statistics.html", "classes.png", "per_picture.png", "sizes.png", "aspects.png", "positions.png",
    }  # fmt: skip
    assert Image.open(out / "positions.png").width > 400
    assert _ended("data", "stats", faulty, "--json") == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["by_class"] == {"bus": 15, "car": 6}
