"""Training a detector: its figures by pycocotools, a run on painted pictures, what it leaves."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import hubel
from hubel.cli.main import main
from hubel.tasks.detection.loss import Targets, multibox_loss
from hubel.training.distributed import SINGLE_PROCESS
from hubel.training.tasks import guess_task
from hubel.training.tasks.detection_learning import DetectionLearning, ObjectLabels
from synthetic_shapes import COLOURS, SIDE, painted


def ap50_by_pycocotools(true: list[Targets], found: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    def xywh(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    rows = [
        {"image_id": image, "category_id": int(label) + 1, "bbox": xywh(box), "iscrowd": 0, "area": 1.0}
        for image, each in enumerate(true)
        for box, label in zip(each.boxes.tolist(), each.labels.tolist(), strict=True)
    ]
    results = [
        {"image_id": image, "category_id": int(label) + 1, "bbox": xywh(box), "score": float(score)}
        for image, (boxes, scores, labels) in enumerate(found)
        for box, score, label in zip(boxes.tolist(), scores, labels, strict=True)
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(true))],
        "annotations": [{**row, "id": number + 1} for number, row in enumerate(rows)],
        "categories": [{"id": 1}, {"id": 2}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


def test_validation_is_pycocotools_average_precision_and_the_loss_of_all_images() -> None:
    torch.manual_seed(0)
    corners = [(x, y) for y in range(0, 60, 12) for x in range(0, 60, 12)]
    anchors = torch.tensor([[x, y, x + side, y + side] for side in (24.0, 40.0) for x, y in corners])
    learning = DetectionLearning(("disc", "square"), lambda height, width: anchors)
    validation = learning.validation()
    true, found, losses = [], [], []
    for _ in range(3):
        targets = []
        for _ in range(4):
            corner = torch.rand(3, 2) * 50
            targets.append(Targets(torch.cat((corner, corner + 20 + 20 * torch.rand(3, 2)), 1), torch.randint(2, (3,))))
        output = (torch.randn(4, len(anchors), 3) * 2, torch.randn(4, len(anchors), 4) * 0.3)
        labels = ObjectLabels(targets, (SIDE, SIDE))
        validation.add(output, labels)
        true += targets
        found += [(each.boxes, each.scores, each.labels) for each in learning.found(output, labels)]
        losses.append(float(sum(multibox_loss(*output, anchors, targets).values())))
    columns = validation.columns(SINGLE_PROCESS, 12)
    assert columns["AP50"] == pytest.approx(ap50_by_pycocotools(true, found), abs=1e-6) and columns["AP50"] > 0.01
    assert columns["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert columns["loss"] == pytest.approx(columns["class_loss"] + columns["box_loss"], rel=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data, and a finished run on it."""
    folder = tmp_path_factory.mktemp("detection")
    data = painted(folder / "shapes", {"train": 36, "val": 16})
    options = (
        f"--backbone resnet18 --from-scratch --epochs 8 --average 0 --batch 8 --image-size {SIDE} --augment flip "
        "--workers 0 --precision float32 --learning-rate 2e-3"
    )
    with contextlib.suppress(SystemExit):
        main(["train", str(data), *options.split(), "--out", str(folder / "run")])
    return data, folder / "run"


def test_a_detector_learns_painted_shapes(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = run
    result = json.loads((folder / "results.json").read_text())
    assert (result["task"], result["model"], result["split"], result["images"]) == ("detect", "ssd", "val", 16)
    assert result["metrics"]["AP50"] > 0.6
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    best = rows[result["best_epoch"] - 1]
    assert float(best["val_AP50"]) == max(float(row["val_AP50"]) for row in rows)
    # The last figures are of boxes in pixels of the pictures, those of an epoch of boxes in the input.
    assert result["metrics"]["AP50"] == pytest.approx(float(best["val_AP50"]), abs=0.02)
    for row in (rows[0], rows[-1]):
        terms = float(row["train_class_loss"]) + float(row["train_box_loss"])
        assert float(row["train_loss"]) == pytest.approx(terms, abs=1e-4)
    assert float(rows[-1]["train_loss"]) < 0.6 * float(rows[0]["train_loss"])
    with contextlib.suppress(SystemExit):
        main(["evaluate", str(folder), str(data), "--json"])
    scored = json.loads(capsys.readouterr().out)
    assert scored["metrics"]["AP"] == pytest.approx(result["metrics"]["AP"], abs=1e-6)


def test_what_it_is_surest_of_is_where_it_was_painted(run: tuple[Path, Path]) -> None:
    data, folder = run
    predict = hubel.Predictor(folder, engine="torch", conf=0.3)
    right = 0
    pictures = sorted((data.parent / "painted" / "val").glob("*.png"))
    for picture, objects in zip(pictures, predict(pictures), strict=True):
        x1, y1, x2, y2 = objects.boxes[0]
        colour = np.asarray(Image.open(picture).convert("RGB")).astype(int)[int((y1 + y2) / 2), int((x1 + x2) / 2)]
        right += bool(np.abs(colour - COLOURS[objects.names[0]]).max() < 5)
    assert right >= 13  # of 16


def test_the_task_is_told_by_the_labels(run: tuple[Path, Path], shapes: Path) -> None:
    assert guess_task(run[0]) == "detect" and guess_task(shapes) == "classify"
    assert guess_task(run[0], "resnet18") == "detect" and guess_task(shapes, "ssd300_vgg16") == "detect"


def test_options_of_other_tasks_are_refused(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for option, word in (
        (["--balance", "smote"], "--balance"),
        (["--augment", "mixup"], "mixup"),
        (["--model", "localizer"], "no detector"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["train", str(run[0]), "--task", "detect", *option])
        assert end.value.code in (1, 2) and word in capsys.readouterr().err
