"""Runs that hubel 0.1 saved, interrupted after ten epochs of twelve: they still load, predict, evaluate and resume.

``tests/data/run_classify_0.1`` is a tiny DenseNet. ``tests/data/run_detect_0.1`` is SSD on a fixed MobileNetV3 in which
five of six channels are zero, so that its tensors compress well; the weights that the backbone started from are beside
it. ``expected.json`` has what 0.1 printed.
"""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hubel
from hubel.cli.main import main

SAVED = Path(__file__).parents[1] / "data"
PREDICTED = {
    "classify": ["data/across/0.png", "data/down/1.png", "data/grid/2.png"],
    "detect": [f"data/val/images/{number}.png" for number in range(3)],
}
TIMES = ("seconds", "images_per_second")


def draw_stripes(root: Path) -> None:
    """Class folders of noise with bright lines across, down or both ways. Integers only: the same pixels everywhere."""
    rng = np.random.default_rng(0)
    for kind in ("across", "down", "grid"):
        (root / kind).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 150, (32, 32, 3), dtype=np.uint8)
            start, step = (int(value) for value in rng.integers(2, 7, 2))
            colour = rng.integers(120, 256, 3, dtype=np.uint8)
            if kind != "down":
                pixels[start::step] = colour
            if kind != "across":
                pixels[:, start::step] = colour
            Image.fromarray(pixels).save(root / kind / f"{number}.png")


def draw_rectangles(root: Path) -> None:
    """Pascal VOC: a red and perhaps a blue rectangle on noise. Integers only: the same pixels everywhere."""
    rng = np.random.default_rng(0)
    colours = {"red": (220, 40, 40), "blue": (40, 80, 220)}
    for split, count in (("train", 24), ("val", 8)):
        for folder in ("images", "annotations"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(90, 150, (64, 64, 3), dtype=np.uint8)
            text = "<annotation><size><width>64</width><height>64</height><depth>3</depth></size>"
            for label in list(colours)[: 1 + number % 2]:
                left, width = int(rng.integers(0, 8)) + 32 * (label == "blue"), int(rng.integers(16, 24))
                top, height = int(rng.integers(0, 32)), int(rng.integers(16, 32))
                pixels[top : top + height, left : left + width] = colours[label]
                box = zip(
                    ("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, left + width, top + height), strict=True
                )
                inside = "".join(f"<{name}>{value}</{name}>" for name, value in box)
                text += f"<object><name>{label}</name><bndbox>{inside}</bndbox></object>"
            Image.fromarray(pixels).save(root / split / "images" / f"{number}.png")
            (root / split / "annotations" / f"{number}.xml").write_text(f"{text}</annotation>\n")


DRAWN = {"classify": draw_stripes, "detect": draw_rectangles}


@pytest.fixture(params=["classify", "detect"])
def task(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The task, with a copy of its run as ``run`` and its images as ``data`` in the working directory."""
    shutil.copytree(SAVED / f"run_{request.param}_0.1", tmp_path / "run")
    if (tensors := tmp_path / "run" / "tensors.tar.xz").exists():
        with tarfile.open(tensors) as archive:
            archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    DRAWN[request.param](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return request.param


def expected(task: str) -> dict[str, Any]:
    return json.loads((SAVED / f"run_{task}_0.1" / "expected.json").read_text())


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert not end.value.code, err
    return [json.loads(line) for line in out.splitlines()]


def predicted(capsys: pytest.CaptureFixture[str], task: str) -> list[dict[str, Any]]:
    options = ("--engine", "torch", "--precision", "fp32", "--threads", "1", "--conf", "0.3", "--top", "3")
    return printed(capsys, "predict", *PREDICTED[task], "--model", "run", *options)


def evaluated(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (row,) = printed(capsys, "evaluate", "run", "data", "--split", "val", "--threads", "1")
    return row


def resumed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (row,) = printed(capsys, "train", "data", "--out", "run", "--resume")
    rows = csv.DictReader(Path("run/metrics.csv").read_text().splitlines())
    kept = [{name: number(text) for name, text in row.items() if name not in TIMES} for row in rows]
    return {"printed": row, "rows": kept}


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def assert_alike(value: Any, expected: Any, path: str = "") -> None:
    """Equal, but for keys that are new and for numbers, which other processors round otherwise."""
    if isinstance(expected, dict):
        for name in expected.keys() - {*TIMES}:
            assert_alike(value[name], expected[name], f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(value) == len(expected), path
        for index, (one, other) in enumerate(zip(value, expected, strict=True)):
            assert_alike(one, other, f"{path}[{index}]")
    elif isinstance(expected, float):
        # Boxes are pixels, all else fractions and losses.
        assert value == pytest.approx(expected, rel=1e-3, abs=0.05 if ".box[" in path else 1e-3), path
    else:
        assert value == expected, path


def test_it_predicts_as_it_did(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_alike(predicted(capsys, task), expected(task)["predicted"])


def test_it_is_scored_as_it_was(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_alike(evaluated(capsys), expected(task)["evaluated"])


def test_its_scores_are_tables(task: str) -> None:
    scored = hubel.evaluate("run", "data", split="val", threads=1)
    assert repr(scored) == scored.table() and "val split" in repr(scored).splitlines()[0]
    page = scored._repr_html_()
    assert page.count("<table>") == 2 and all(name in page for name in scored.metrics if name != "confusion")
    assert all(row["name"] in page for row in scored.per_class)


def test_it_resumes_as_it_did(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("run/metrics.csv").read_text()
    now, then = resumed(capsys), expected(task)["resumed"]
    assert Path("run/metrics.csv").read_text().startswith(before)  # the ten epochs that were finished
    assert [row["epoch"] for row in now["rows"]] == list(range(1, 13))
    assert_alike(now, then)
    assert Path("run/report.html").is_file() and Path("run/predictions.jsonl").is_file()
