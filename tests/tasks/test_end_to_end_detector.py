"""docs/from-labels-to-detector.md at small size: a LabelImg export with five planted mistakes, by commands alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from defusedxml import ElementTree

import hubel
from hubel.cli.main import main
from synthetic_shapes import SIDE, painted


def ended(command: str, *arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), *map(str, arguments)])
    return int(end.value.code or 0)


def edit(labels: Path, change: dict[str, str], which: int = 0) -> None:
    """Change what a label file says of one object."""
    tree = ElementTree.parse(labels)
    obj = tree.findall("object")[which]
    for tag, text in change.items():
        obj.find(f".//{tag}").text = text
    tree.write(labels)


def labelimg_export(root: Path) -> Path:
    """One folder of images with an XML file beside each, as LabelImg leaves it; five of them are wrong."""
    painted(root.parent / "voc", {"train": 36})
    root.mkdir()
    for labels in sorted((root.parent / "voc").rglob("*.xml")):
        (image,) = (root.parent / "painted").rglob(f"{labels.stem}.png")
        (root / image.name).write_bytes(image.read_bytes())
        (root / labels.name).write_bytes(labels.read_bytes())
    at = [root / f"{number}.xml" for number in range(1, 11, 2)]  # those with two objects
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:200])  # a torn file
    edit(at[1], {"name": "Disc"}, 0)
    edit(at[2], {"xmin": "40", "xmax": "39"}, 0)  # a slip of the mouse
    edit(at[3], {"xmax": str(SIDE + 20)}, 1)  # over the edge
    tree = ElementTree.parse(at[4])
    tree.getroot().append(tree.findall("object")[0])  # drawn twice
    tree.write(at[4])
    return root


def test_from_an_export_with_mistakes_to_an_exported_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export = labelimg_export(tmp_path / "photographs")
    monkeypatch.chdir(tmp_path)
    assert ended("data check photographs --fix mended --report check.html --json") == 1
    report = json.loads(capsys.readouterr().out)
    assert {"unreadable", "degenerate", "partly-outside", "duplicate"} <= set(report["counts"]), report["counts"]
    assert any("Disc" in json.dumps(finding) for finding in report["findings"])
    assert (tmp_path / "check.html").stat().st_size > 1000
    assert len(list(export.glob("*.png"))) == 36  # the original is only read

    assert ended("data check mended --json") == 0
    left = {finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert left <= {"near"}  # images of noise and one disc each look alike
    options = f"--backbone resnet18 --from-scratch --epochs 4 --average 0 --batch 8 --image-size {SIDE} --workers 0"
    assert ended(f"train mended --model ssd {options} --augment flip --precision float32 --json --out runs/shapes") == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["task"] == "detect" and trained["metrics"]["AP50"] > 0.1
    assert sorted(row["name"] for row in trained["per_class"]) == ["disc", "square"]
    page = (tmp_path / "runs" / "shapes" / "report.html").read_text()
    assert "AP" in page and "disc" in page

    assert ended("export runs/shapes --format onnx --out deploy --json") == 0
    exported = json.loads(capsys.readouterr().out)
    assert Path(exported["path"]).is_file() and exported["max_difference"] < 1e-3
    (objects,) = hubel.Predictor("runs/shapes", engine="torch", conf=0.05)(export / "2.png")
    assert len(objects.boxes)
