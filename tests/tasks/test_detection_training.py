"""Training a detector: its figures by pycocotools, a run on painted images, what it leaves."""

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
from hubel.data.annotated_images import read_annotated_images
from hubel.data.loader import BatchDataset
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Target
from hubel.data.transforms.object_transform import ObjectTransform
from hubel.models import load_model
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.metadata import ModelMetadata
from hubel.tasks.registry import get_task, guess_task
from synthetic_shapes import COLOURS, SIDE, painted


def ap50_by_pycocotools(true: list[Target], found: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
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


def test_evaluation_is_pycocotools_average_precision() -> None:
    random = np.random.default_rng(0)
    ready = Preprocessing(SIDE, SIDE, resize="stretch", crop_fraction=1.0)
    metadata = ModelMetadata("detect", "ssd", 2, 3, SIDE, ["disc", "square"], ready)
    evaluator = get_task("detect").evaluator(metadata)
    true = []
    for _ in range(3):
        targets = []
        for _ in range(4):
            corner = random.random((3, 2)) * 50
            boxes = np.concatenate((corner, corner + 20 + 20 * random.random((3, 2))), 1).astype(np.float32)
            targets.append(Target(boxes=boxes, labels=random.integers(0, 2, 3)))
        corners = random.random((4, 50, 2)) * 60 - 10
        boxes = np.concatenate((corners, corners + 15 + 30 * random.random((4, 50, 2))), 2).astype(np.float32)
        evaluator.update({"boxes": boxes, "scores": random.random((4, 50, 2)).astype(np.float32)}, targets)
        true += targets
    found = [(each.found.boxes, each.found.scores, each.found.labels) for each in evaluator.images]
    metrics = evaluator.compute().to_json()["metrics"]
    assert metrics["AP50"] == pytest.approx(ap50_by_pycocotools(true, found), abs=1e-6) and metrics["AP50"] > 0.01


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data, and a finished run on it."""
    folder = tmp_path_factory.mktemp("detection")
    data = painted(folder / "shapes", {"train": 36, "val": 16})
    options = (
        f"--model ssd --backbone resnet18 --from-scratch --epochs 8 --average 0 --batch 8 --image-size {SIDE} "
        "--augment flip --workers 0 --precision float32 --learning-rate 2e-3"
    )
    with contextlib.suppress(SystemExit):
        main(["train", str(data), *options.split(), "--out", str(folder / "run")])
    return data, folder / "run"


def validation_terms(data: Path, saved: Path, batch: int) -> dict[str, float]:
    """Means over the validation images of the loss's terms, which are means over a batch's matched anchors."""
    model, metadata = load_model(saved)
    images = BatchDataset(read_annotated_images(data).splits["val"], ObjectTransform(metadata.preprocessing), 0)
    totals: dict[str, float] = {"class": 0.0, "box": 0.0}
    for start in range(0, len(images), batch):
        loaded = images.__getitems__([(0, index) for index in range(start, min(start + batch, len(images)))])
        with torch.inference_mode():
            outputs = model.eval()(metadata.preprocessing.normalize(loaded.pixels))
            objects = [ObjectTargets(*map(torch.from_numpy, (each.boxes, each.labels))) for each in loaded.targets]
            for name, term in model.losses(outputs, DetectionTargets(objects, (SIDE, SIDE))).items():
                totals[name] += float(term) * len(loaded.targets) / len(images)
    return totals


def test_a_detector_learns_painted_shapes(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = run
    result = json.loads((folder / "results.json").read_text())
    assert (result["task"], result["model"], result["split"], result["images"]) == ("detect", "ssd", "val", 16)
    assert result["metrics"]["AP50"] > 0.6
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    best = rows[result["best_epoch"] - 1]
    assert float(best["val_AP50"]) == max(float(row["val_AP50"]) for row in rows)
    # The last figures are of boxes in pixels of the images, those of an epoch of boxes in the input.
    assert result["metrics"]["AP50"] == pytest.approx(float(best["val_AP50"]), abs=0.02)
    for row in (rows[0], rows[-1]):
        terms = float(row["train_class_loss"]) + float(row["train_box_loss"])
        assert float(row["train_loss"]) == pytest.approx(terms, abs=1e-4)
    assert float(rows[-1]["train_loss"]) < 0.6 * float(rows[0]["train_loss"])
    terms = validation_terms(data, folder / "last", batch=8)
    assert float(rows[-1]["val_class_loss"]) == pytest.approx(terms["class"], rel=1e-4)
    assert float(rows[-1]["val_box_loss"]) == pytest.approx(terms["box"], rel=1e-4)
    assert float(rows[-1]["val_loss"]) == pytest.approx(terms["class"] + terms["box"], rel=1e-4)
    with contextlib.suppress(SystemExit):
        main(["evaluate", str(folder), str(data), "--json"])
    scored = json.loads(capsys.readouterr().out)
    assert scored["metrics"]["AP"] == pytest.approx(result["metrics"]["AP"], abs=1e-6)


def test_a_detector_without_anchors_learns_them_too(run: tuple[Path, Path], tmp_path: Path) -> None:
    """With mosaics in its first epochs; ``metrics.csv`` has its own terms."""
    result = hubel.train(
        run[0],
        out=tmp_path / "run",
        task="detect",
        model="one_stage",
        backbone="resnet18",
        options={"pyramid_channels": 48},
        weights=None,
        epochs=8,
        average=0.0,
        batch=8,
        image_size=SIDE,
        augmentation="mosaic,flip",
        close_mosaic=5,
        workers=0,
        precision="float32",
    )
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    terms = [float(rows[-1][f"train_{name}_loss"]) for name in ("class", "box", "distribution")]
    assert float(rows[-1]["train_loss"]) == pytest.approx(sum(terms), abs=1e-4)
    assert result.scores["val"].to_json()["metrics"]["AP50"] > 0.6


def test_a_detector_of_two_stages_learns_them_too(run: tuple[Path, Path], tmp_path: Path) -> None:
    """With the loss of both stages in training and in validation."""
    small = {"pyramid_channels": 48, "features": 64, "proposals": 60, "training_proposals": 120, "regions": 32}
    result = hubel.train(
        run[0],
        out=tmp_path / "run",
        task="detect",
        model="faster_rcnn",
        backbone="resnet18",
        options=small,
        weights=None,
        epochs=11,
        average=0.0,
        batch=8,
        image_size=SIDE,
        augmentation="flip",
        workers=0,
        precision="float32",
    )
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    for split in ("train", "val"):
        terms = [float(rows[-1][f"{split}_{name}_loss"]) for name in ("objectness", "proposal_box", "class", "box")]
        assert float(rows[-1][f"{split}_loss"]) == pytest.approx(sum(terms), abs=1e-4)
    assert result.scores["val"].to_json()["metrics"]["AP50"] > 0.6


def test_what_it_is_surest_of_is_where_it_was_painted(run: tuple[Path, Path]) -> None:
    data, folder = run
    predict = hubel.Predictor(folder, engine="torch", conf=0.3)
    right = 0
    images = sorted((data.parent / "painted" / "val").glob("*.png"))
    for image, objects in zip(images, predict(images), strict=True):
        x1, y1, x2, y2 = objects.boxes[0]
        colour = np.asarray(Image.open(image).convert("RGB")).astype(int)[int((y1 + y2) / 2), int((x1 + x2) / 2)]
        right += bool(np.abs(colour - COLOURS[objects.names[0]]).max() < 5)
    assert right >= 13  # of 16


def test_the_task_is_guessed_from_the_labels(run: tuple[Path, Path], shapes: Path) -> None:
    assert guess_task(run[0]) == "detect" and guess_task(shapes) == "classify"
    assert guess_task(run[0], "resnet18") == "detect" and guess_task(shapes, "ssd300_vgg16") == "detect"


def test_options_of_other_tasks_are_refused(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for option, word in (
        (["--balance", "smote"], "--balance"),
        (["--augment", "mixup"], "mixup"),
        (["--model", "localizer"], "localizer is for --task localize, not for detect"),
        (["--loss-weights", "giou=1"], "giou: the loss has no term of that name"),
        (["--loss-weights", "class=0"], "every term has weight 0"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["train", str(run[0]), "--task", "detect", *option])
        assert end.value.code in (1, 2) and word in capsys.readouterr().err
