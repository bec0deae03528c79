"""A detector's report says the numbers it was given and draws what is right, wrong and missed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.drawing import BoxLabel, draw_boxes
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import DetectionScores, score_detection
from hubel.reports import TrainingReport, write_report
from hubel.tasks.detection.report import KINDS, REPORT, cost_of_errors, detection_mistakes, precision_recall
from report_pages import NASTY, Page

CLASSES = ("cat", "dog", NASTY[0])
WHITE, BLUE, ORANGE, YELLOW = (colour for colour, _, _ in KINDS)
BOXES = np.array([[50.0, 50, 150, 150], [250.0, 50, 350, 150], [450.0, 50, 550, 150], [50.0, 300, 150, 400]])
# A cat found, a little off; a dog taken for a cat; a cat missed; and besides a dog where nothing is.
LABELLED = GroundTruth(BOXES[:3], np.array([0, 1, 0]))
FOUND = PredictedObjects(BOXES[[0, 1, 3]] + [[10.0], [0], [0]], np.array([0.9, 0.8, 0.71]), np.array([0, 0, 1]))
CLEAN = PredictedObjects(LABELLED.boxes, np.ones(3), LABELLED.labels)
HISTORY = [
    {"epoch": 1, "train_loss": 3.5, "train_class_loss": 2.25, "train_box_loss": 1.25, "val_loss": 3, "val_AP50": 0.4},
    {"epoch": 2, "train_loss": 2.5, "train_class_loss": 1.5, "train_box_loss": 1.0, "val_loss": 2, "val_AP50": 0.5},
]


@pytest.fixture(scope="module")
def scores() -> DetectionScores:
    return score_detection([LABELLED, LABELLED], [CLEAN, FOUND], CLASSES)


@pytest.fixture(scope="module")
def page(scores: DetectionScores, tmp_path_factory) -> tuple[Path, Page]:
    folder = tmp_path_factory.mktemp("run")
    paths = [folder / "clean.png", folder / "faulty.png"]
    for path in paths:
        Image.new("RGB", (640, 480), (90, 90, 90)).save(path)
    mistakes = detection_mistakes(paths, [LABELLED, LABELLED], [CLEAN, FOUND], CLASSES)
    report = TrainingReport(
        "t", "detect", "ssd", "pets", {"val": scores}, history=HISTORY, best_epoch=2, mistakes=mistakes
    )
    return folder, Page(write_report(folder, report, REPORT))


def test_the_headline_counts_what_was_found(page: tuple[Path, Page]) -> None:
    text = page[1].text
    assert "Of the 6 objects in the 2 images of the validation set, 4 were detected with the right class, " in text
    assert "1 with a wrong one, and 1 were missed. False positives, including duplicate boxes of an object: 1 (" in text
    assert "classes with few objects are unreliable: cat (4), dog (2)." in text
    # From 0.81 to 0.90 the wrong boxes (0.8, 0.71) do not count: cat 2·3/(3+4), dog 2·1/(1+2); the middle is 0.86.
    assert "F1, the harmonic mean of precision and recall, is highest at a confidence of 0.86: 0.762" in text
    assert "hubel predict --conf 0.86" in text
    assert "slightly optimistic" in text
    assert "What costs most are boxes on objects of another class: without them, AP50 would be " in text


def test_all_figures_appear(page: tuple[Path, Page], scores: DetectionScores) -> None:
    text, figures = page[1].text, scores.coco.metrics
    # Precision 4/6, recall 4/6. A row: images, objects, precision, recall, AP, small, medium, large, AP50.
    total = f"all 2 6 0.667 0.667 {figures['AP']:.3f} – – {figures['AP_large']:.3f} {figures['AP50']:.3f}"
    assert total in text
    for index, (precision, recall) in enumerate((("0.750", "0.750"), ("0.500", "0.500"))):
        row = scores.coco.per_class[index]
        words = f"{row['name']} 2 {row['objects']} {precision} {recall} {row['AP']:.3f} – – {row['AP_large']:.3f}"
        assert words in text
    assert "script" not in {tag for tag, _ in page[1].tags}


def test_each_loss_has_its_curve_and_what_was_not_measured_none(page: tuple[Path, Page]) -> None:
    names = {path.stem for path in (page[0] / "figures").iterdir()}
    curves = {"curve_loss", "curve_class_loss", "curve_box_loss", "curve_AP50"}
    assert names == curves | {"precision_recall_val", "f1_val", "confidence_val", "confusion_val", "errors_val"}
    embedded = page[1].images()
    assert all((page[0] / "figures" / f"{name}.png").read_bytes() in embedded for name in names)


def test_the_worst_image_shows_what_is_right_wrong_and_missed(page: tuple[Path, Page]) -> None:
    text = page[1].text
    assert "faulty.png" in text and "clean.png" not in text
    assert "2 wrong: cat 80 % (truth: dog) · dog 71 % missed: cat faulty.png" in text
    for _, _, meaning in KINDS:
        assert meaning in text
    image = np.asarray(Image.open(io.BytesIO(page[1].images()[-1])).convert("RGB"), int)
    assert image.shape == (480, 640, 3)

    def drawn(rows: slice, columns: slice, colour: tuple[int, int, int]) -> int:
        return int((np.abs(image[rows, columns] - colour).max(-1) < 60).sum())

    upper = slice(0, 200)
    assert drawn(upper, slice(40, 170), BLUE) > 100 and drawn(upper, slice(40, 170), WHITE) > 100
    assert drawn(upper, slice(240, 360), ORANGE) > 300 and drawn(upper, slice(440, 560), YELLOW) > 200
    assert drawn(slice(280, 420), slice(40, 160), ORANGE) > 300
    assert drawn(upper, slice(440, 560), ORANGE) == drawn(upper, slice(40, 170), ORANGE) == 0


def test_a_broken_line_is_broken_and_the_other_is_not() -> None:
    ground = Image.new("RGB", (300, 300), (90, 90, 90))
    label = BoxLabel((50, 60, 250, 240), "", (240, 228, 66))
    whole, broken = (
        np.asarray(draw_boxes(ground, [BoxLabel(label.box, "", label.colour, dashed)]), int) for dashed in (False, True)
    )
    for edge in (np.s_[60, 51:250], np.s_[240, 51:250], np.s_[61:240, 50], np.s_[61:240, 250]):
        assert (whole[edge] == label.colour).all()
        yellow = (broken[edge] == label.colour).all(-1)
        assert 0.4 < yellow.mean() < 0.9
        assert (np.diff(yellow.astype(int)) != 0).sum() >= 20, "many dashes"


def test_curves_are_the_precision_and_their_mean() -> None:
    precision = np.linspace([1.0, 0.8, -1], [0.5, 0.2, -1], 101)
    axes = precision_recall(precision, [NASTY[2], "dog", "nowhere"]).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert set(lines) == {NASTY[2], "dog", "mean of the classes"}
    np.testing.assert_allclose(lines["dog"], np.linspace(0.8, 0.2, 101))
    np.testing.assert_allclose(lines["mean of the classes"], np.linspace(0.9, 0.35, 101))


def test_mistakes_have_their_costs(scores: DetectionScores) -> None:
    axes = cost_of_errors(scores.errors).axes[0]
    lengths = [bar.get_width() for bar in axes.patches]
    assert lengths == list(scores.errors.costs.values())
    assert [text.get_text().split() for text in axes.texts] == [
        [f"+{cost:.3f}", f"({count})"] for cost, count in zip(lengths, scores.errors.counts.values(), strict=True)
    ]
    assert list(scores.errors.counts.values()) == [1, 0, 0, 0, 1, 1]


def test_many_classes_list_what_is_taken_for_what(tmp_path: Path) -> None:
    names = [f"kind {index}" for index in range(40)]
    boxes = np.array([[20.0 * index, 0, 20 * index + 10, 10] for index in range(40)])
    called = np.arange(40)
    called[[7, 8]] = 31, 5
    found = PredictedObjects(boxes[:39], np.ones(39), called[:39])
    scores = score_detection([GroundTruth(boxes, np.arange(40))], [found], names)
    html = Page(write_report(tmp_path, TrainingReport("t", "detect", "m", "d", {"test": scores}), REPORT))
    assert "kind 7 kind 31 1 kind 8 kind 5 1 kind 39 background 1" in html.text
