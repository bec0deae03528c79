"""Localization: loss, decoding and scores against torchvision's and arithmetic; whole runs on images made here."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from torch import nn
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from drawn_shapes import draw_shape
from hubel.boxes import paired_iou
from hubel.cli.main import main
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.errors import DataError, UsageError
from hubel.inference import Predictor
from hubel.metrics.localization import score_localization
from hubel.models import create_model, load_model
from hubel.models.localization import NO_OBJECT, LocalizationTargets, Localizer, SpatialSoftArgmax
from hubel.training.evaluate import evaluate
from hubel.training.train import train

CLASSES = ("disc", "frame")
QUICK = {
    "task": "localize",
    "model": "lenet5_modern",
    "image_size": 32,
    "weights": None,
    "epochs": 2,
    "batch": 16,
    "augmentation": "flip",
    "precision": "float32",
    "workers": 0,
    "average": 0.0,
}


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(1).values
    return corners.flatten(1).clamp(0.01, 0.99) + torch.tensor([0.0, 0.0, 0.005, 0.005])


def localizer(roots: bool, **weights: float) -> Localizer:
    sizes = "root" if roots else "plain"
    model = create_model("localizer", num_classes=3, backbone="lenet5_modern", image_size=32, sizes=sizes)
    assert isinstance(model, Localizer)
    model.loss_weights = weights or model.loss_weights
    return model


def raw_outputs(output: torch.Tensor) -> dict[str, torch.Tensor]:
    """Class scores and box of rows that have both."""
    return {"scores": output[:, :-4], "box": output[:, -4:]}


@pytest.mark.parametrize("roots", [True, False])
def test_boxes_are_sigmoid_centres_and_unbounded_sizes(roots: bool) -> None:
    raw = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    height, width = (raw[:, 2:] ** 2 if roots else raw[:, 2:].clamp(min=0)).unbind(1)
    centre = torch.special.expit(raw[:, :2])
    expected = box_convert(torch.stack((centre[:, 0], centre[:, 1], width, height), 1), "cxcywh", "xyxy")
    torch.testing.assert_close(localizer(roots).decode(raw), expected)
    predicted = localizer(roots).predictions({"scores": torch.zeros(20, 3), "box": raw}, (40, 60))
    torch.testing.assert_close(predicted["boxes"][:, 0] / torch.tensor([60, 40, 60, 40]), expected)


@pytest.mark.parametrize("roots", [True, False])
def test_terms_are_torchvisions_giou_and_arithmetic(roots: bool) -> None:
    boxes, labels = random_boxes(6), torch.tensor([0, 2, 1, NO_OBJECT, 1, 0])
    output = torch.randn(6, 7, generator=torch.Generator().manual_seed(2))
    model = localizer(roots, **{"class": 1.0, "giou": 2.0, "smooth_l1": 5.0, "mse": 3.0})
    targets = LocalizationTargets(labels, boxes)
    terms = model.losses(raw_outputs(output), targets)
    kept = [0, 1, 2, 4, 5]
    giou = generalized_box_iou(model.decode(output[:, 3:]), boxes).diag()[kept]
    assert float(terms["giou"]) == pytest.approx(2 * float((1 - giou).mean()), rel=1e-5)
    assert float(terms["class"]) == pytest.approx(
        float(nn.CrossEntropyLoss()(output[kept, :3], labels[kept])), rel=1e-5
    )
    x1, y1, x2, y2 = boxes.double().numpy()[kept].T
    power = 0.5 if roots else 1.0
    true = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, (y2 - y1) ** power, (x2 - x1) ** power), 1)
    raw = output.double().numpy()[kept][:, 3:]
    error = np.abs(np.concatenate((1 / (1 + np.exp(-raw[:, :2])), raw[:, 2:]), 1) - true)
    assert float(terms["mse"]) == pytest.approx(3 * (error**2).mean(), rel=1e-5)
    # Girshick 2015, equation 3, turning at 1/9: a parabola that meets the line there.
    smooth = np.where(error < 1 / 9, 0.5 * 9 * error**2, error - 0.5 / 9)
    assert float(terms["smooth_l1"]) == pytest.approx(5 * smooth.mean(), rel=1e-5)
    assert set(localizer(roots, mse=1.0).losses(raw_outputs(output), targets)) == {"mse"}


def test_an_image_of_which_nothing_is_left_teaches_nothing() -> None:
    output = torch.randn(2, 7, requires_grad=True)
    nothing = LocalizationTargets(torch.tensor([NO_OBJECT, NO_OBJECT]), torch.zeros(2, 4))
    sum(localizer(True).losses(raw_outputs(output), nothing).values()).backward()
    assert output.grad is not None and not output.grad.any()


def test_scores_are_torchvisions_overlaps() -> None:
    found, true = random_boxes(40, 1).numpy() * 100, random_boxes(40, 2).numpy() * 100
    found[:10] = true[:10] + 1
    overlap = box_iou(torch.from_numpy(found), torch.from_numpy(true)).diag().numpy()
    assert paired_iou(found, true) == pytest.approx(overlap, abs=1e-6)
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 2, 40), random.dirichlet((1, 1), 40)
    scores = score_localization(probabilities, labels, found, true, CLASSES)
    right = probabilities.argmax(1) == labels
    metrics = scores.to_json()["metrics"]
    assert metrics["mean_iou"] == pytest.approx(overlap.mean()) and metrics["iou50"] == (overlap >= 0.5).mean()
    assert metrics["both"] == (right & (overlap >= 0.5)).mean() and metrics["top1"] == right.mean()
    assert [row["mean_iou"] for row in scores.to_json()["per_class"]] == pytest.approx(
        [overlap[labels == label].mean() for label in (0, 1)]
    )
    with pytest.raises(DataError, match="not finite"):
        score_localization(probabilities, labels, np.full((40, 4), np.nan), true, CLASSES)


def test_positions_are_means_and_deviations_of_a_distribution() -> None:
    """Levine et al. 2016: expected pixel positions under a softmax; against NumPy's weighted averages."""
    maps = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(3)) * 3
    read = SpatialSoftArgmax()(maps).view(2, 4, 3).numpy()
    x, y = (np.arange(7) + 0.5) / 7 * 2 - 1, (np.arange(5) + 0.5) / 5 * 2 - 1
    for image in range(2):
        for channel in range(3):
            share = np.exp(maps[image, channel].double().numpy())
            for axis, positions, row in ((0, x, 0), (1, y, 1)):
                along = share.sum(axis)
                mean = np.average(positions, weights=along)
                deviation = np.sqrt(np.average((positions - mean) ** 2, weights=along) + 1e-4)
                assert read[image, row, channel] == pytest.approx(mean, abs=1e-5)
                assert read[image, row + 2, channel] == pytest.approx(deviation, abs=1e-5)


def test_what_raw_sizes_are_is_listed_by_the_options() -> None:
    for options in ({}, {"sizes": "plain"}, {"sizes": "root"}):
        model = create_model("localizer", num_classes=2, backbone="lenet5_modern", image_size=32, **options)
        model.eval()
        with torch.no_grad():
            for parameter in model.head.box.parameters():
                if parameter.ndim == 2:
                    parameter.zero_()
            predicted = model.predictions(model(torch.rand(1, 3, 32, 32)), (1, 1))["boxes"].numpy()
        # A new head says: the middle half, whatever it sees.
        assert predicted[0, 0] == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=1e-6)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of 48 × 32 pixels with a disc or a frame at any position; two of them have a smaller object too."""
    root, random = tmp_path_factory.mktemp("boxes"), np.random.default_rng(0)
    (root / "made").mkdir()
    images = []
    for number in range(60):
        label = number % 2
        image = Image.fromarray(random.integers(0, 40, (32, 48, 3), dtype=np.uint8))
        shape = draw_shape(CLASSES[label], 18, random)
        x, y = int(random.integers(0, 30)), int(random.integers(0, 14))
        image.paste(shape, (x, y))
        pixels = np.argwhere(np.asarray(shape).max(2) > 100)
        (top, left), (bottom, right) = pixels.min(0), pixels.max(0) + 1
        box = (float(x + left), float(y + top), float(x + right), float(y + bottom))
        others = (Annotation(1 - label, (0, 0, 2, 3)),) if number < 2 else ()
        image.save(root / "made" / f"{number}.png")
        objects = (*others, Annotation(label, box))
        images.append(AnnotatedImage(root / "made" / f"{number}.png", 48, 32, objects))
    write_annotations(AnnotatedDataset(root / "made", CLASSES, {"all": tuple(images)}), "voc", root / "data")
    return root / "data"


@pytest.fixture(scope="module")
def run(boxes: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run."""
    settings = {**QUICK, "epochs": 24, "batch": 8, "learning_rate": 4e-3, "patience": 24}
    return train(boxes, out=tmp_path_factory.mktemp("runs") / "boxes", **settings)


def truth_and_found(folder: Path) -> tuple[list[dict], torch.Tensor, torch.Tensor]:
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    true, found = ([each[key] for each in side] for side, key in ((map(lambda r: r["truth"], rows), "box"),
                   (map(lambda r: r["objects"][0], rows), "box")))  # fmt: skip
    return rows, torch.tensor(true), torch.tensor(found)


def test_it_learns_where_objects_are(run, boxes: Path) -> None:
    """Far better than the box that is right on average, which a network that sees nothing would give."""
    _, true, _ = truth_and_found(run.folder)
    guess = true.mean(0, keepdim=True).expand_as(true)
    blind = float(box_iou(guess, true).diag().mean())
    assert run.scores["val"].mean_iou > blind + 0.15


def test_scores_are_those_of_the_predictions(run) -> None:
    """The printed figures, recomputed by torchvision and scikit-learn from predictions.jsonl."""
    rows, true, found = truth_and_found(run.folder)
    overlap = box_iou(true, found).diag()
    metrics = run.to_json()["validation"]
    assert metrics["mean_iou"] == pytest.approx(float(overlap.mean()), abs=1e-3)
    names = [[row["truth"]["name"] for row in rows], [row["objects"][0]["name"] for row in rows]]
    assert metrics["top1"] == pytest.approx(accuracy_score(*names))
    last = list(csv.DictReader((run.folder / "metrics.csv").open()))[run.best_epoch - 1]
    assert float(last["val_mean_iou"]) == pytest.approx(metrics["mean_iou"], abs=2e-3)
    parts = sum(float(last[f"train_{term}_loss"]) for term in ("class", "giou", "smooth_l1"))
    assert parts == pytest.approx(float(last["train_loss"]), abs=1e-5)
    best = max(csv.DictReader((run.folder / "metrics.csv").open()), key=lambda row: float(row["val_mean_iou"]))
    assert int(best["epoch"]) == run.best_epoch


def test_what_a_run_leaves_and_prints(run) -> None:
    row = run.to_json()
    assert row["task"] == "localize" and row["model"] == "localizer"
    assert {"top1", "top5", "loss", "macro_f1", "ece", "mean_iou", "iou50", "both"} <= set(row["metrics"])
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Worst boxes" in page and "2 images have several boxes: the largest is used" in page
    figures = {path.name for path in (run.folder / "figures").iterdir()}
    assert {"curve_loss.png", "curve_mean_iou.png", "overlap_val.png", "augmentation.png"} <= figures
    metadata = load_model(run.folder / "best")[1]
    assert (
        metadata.task == "localize" and metadata.classes == list(CLASSES) and metadata.preprocessing.resize == "stretch"
    )


def test_evaluate_repeats_the_runs_own_split(run, boxes: Path) -> None:
    again = evaluate(run.folder, boxes, report=run.folder / "again")
    assert again.split == "test" and (run.folder / "again" / "report.html").is_file()
    assert again.to_json()["metrics"] == pytest.approx(run.to_json()["metrics"], abs=1e-5)


def test_prediction_gives_the_same_box(run, capsys: pytest.CaptureFixture[str]) -> None:
    rows, _, found = truth_and_found(run.folder)
    predict = Predictor(run.folder, engine="torch", precision="fp32", device="cpu")
    for row, box, result in zip(rows, found, predict([row["source"] for row in rows]), strict=True):
        assert result.to_json()["objects"][0]["box"] == pytest.approx(box.tolist(), abs=0.02)
        assert result.names == (row["objects"][0]["name"],) and result.task == "localize"
    with pytest.raises(SystemExit):
        main(["predict", rows[0]["source"], "--model", str(run.folder), "--json"])
    line = json.loads(capsys.readouterr().out)
    assert line["task"] == "localize" and [*line["objects"][0]] == ["index", "name", "score", "box"]


def test_interrupted_and_resumed_it_ends_as_if_nothing_had_happened(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no reports
    settings = {**QUICK, "augmentation": "scale,crop,flip,color", "average": 0.5}
    train(boxes, out=tmp_path / "whole", **settings)

    def interrupt(self: object, row: dict, *rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hubel.training.progress.TrainingDisplay.end_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(boxes, out=tmp_path / "broken", **settings)
    train(boxes, out=tmp_path / "broken", resume=True)
    whole, broken = (load_model(tmp_path / name / "last")[0].state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(broken[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"balance": "smote"}, "--balance"),
        ({"label_smoothing": 0.1}, "--label-smoothing"),
        ({"cache_features": True}, "--cache-features"),
        ({"augmentation": "mixup"}, "mixup"),
        ({"augmentation": "mosaic"}, "mosaic cannot be used with --task localize"),
        ({"augmentation": "multiscale"}, "multiscale cannot be used with --task localize"),
        ({"augmentation": "copy-paste"}, "copy-paste cannot be used with --task localize"),
        ({"task": "detect", "augmentation": "copy-paste"}, "copy-paste cannot be used with --task detect"),
        ({"loss_weights": "iou=1"}, "--loss-weights iou.*\n.*giou"),
        ({"model": "resnet18", "backbone": "resnet34"}, "--model resnet18.*--backbone resnet34"),
        ({"task": "classify", "backbone": "resnet34"}, "--backbone"),
    ],
)
def test_options_of_other_tasks_are_refused(settings: dict, message: str, boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train(boxes, out=tmp_path / "run", **{**QUICK, **settings})
    assert not (tmp_path / "run").exists()


def test_class_folders_are_no_boxes(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        train(shapes, out=tmp_path / "run", **QUICK)


@pytest.mark.data
@pytest.mark.slow
def test_raccoons_are_found(data_folder: Path, tmp_path: Path) -> None:
    """All defaults: minutes on two cores."""
    result = train(data_folder / "raccoon", task="localize", out=tmp_path / "run")
    assert result.scores["val"].mean_iou >= 0.70
