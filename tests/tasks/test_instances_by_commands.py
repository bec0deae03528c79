"""Instance segmentation from painted shapes to JSON, annotated images and a report."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from hubel.cli.main import main
from hubel.errors import ModelError
from hubel.tasks.registry import guess_task
from hubel.training.train import complete_config

PAINTED = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "painted_shapes.py"))
SIDE = 64


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painted")
    return PAINTED["paint"](root / "shapes", {"train": 8, "val": 4, "test": 4}, SIDE, most=2)


def test_the_task_is_named_by_the_model_and_not_by_outlines(shapes: Path) -> None:
    assert guess_task(shapes) == "detect"
    assert guess_task(shapes, "mask_rcnn") == "instances"


@pytest.mark.parametrize(
    ("task", "model"), [("instances", "faster_rcnn"), ("detect", "mask_rcnn"), ("segment", "mask_rcnn")]
)
def test_a_network_of_another_task_is_refused_before_data_is_read(task: str, model: str, tmp_path: Path) -> None:
    """Here there is none that could be read."""
    own = "detect" if model == "faster_rcnn" else "instances"
    with pytest.raises(ModelError, match=f"^{model} is for --task {own}, not for {task}\n"):
        complete_config(tmp_path, {"task": task, "model": model})


def ended(command: str, *arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), *map(str, arguments)])
    return int(end.value.code or 0)


def test_from_painted_shapes_to_masks_by_commands(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = f"--backbone resnet18 --from-scratch --epochs 1 --average 0 --batch 4 --image-size {SIDE} --workers 0"
    options += " --precision float32 --head-epochs 0"
    small = ("pyramid_channels=16", "features=32", "mask_features=16", "regions=16", "proposals=50")
    options += "".join(f" --set {each}" for each in (*small, "training_proposals=50"))
    assert ended(f"train {shapes} --task instances {options} --json --out run") == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["task"] == "instances" and "mask_AP" in trained["metrics"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "mask AP50" in page and "truth and what was found" in page and "Recall over the number of proposals" in page
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val_mask_AP", "val_mask_AP50", "val_AP", "train_mask_loss", "val_mask_loss"} <= set(header)
    assert ended(f"evaluate run {shapes} --json") == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["metrics"]["mask_AP50"] == pytest.approx(trained["metrics"]["mask_AP50"], abs=1e-6)
    image = shapes / "test" / "0001.png"
    assert ended(f"predict {image} --model run --conf 0.02 --save out --json --engine torch") == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["task"] == "instances" and row["objects"], "one epoch finds something at so low a confidence"
    for found in row["objects"]:
        assert found.keys() == {"index", "name", "score", "box", "mask"}
        x, y, width, height = coco_masks.toBbox(found["mask"])
        x1, y1, x2, y2 = found["box"]
        assert found["mask"]["size"] == [SIDE, SIDE]
        assert not width or (x >= x1 - 2 and y >= y1 - 2 and x + width <= x2 + 2 and y + height <= y2 + 2)
    assert Image.open(tmp_path / "out" / "0001.jpg").size == (240, 240)
    assert ended(f"predict {image} --model run --cutout disc --save cut --json --engine torch") == 0
    assert Image.open(tmp_path / "cut" / "0001.png").mode == "RGBA"
    assert json.loads(capsys.readouterr().out)["task"] == "instances"
    assert ended(f"predict {image} --model run --tta --engine torch") == 2
    assert "which --tta cannot join" in capsys.readouterr().err
