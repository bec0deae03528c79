"""Reports: one file that holds everything, says the numbers it was given, and trusts no name."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.metrics.classification import CalibrationBin, score_classification
from hubel.models.metadata import ModelMetadata
from hubel.reports import AugmentationSample, TrainingReport, write_report
from hubel.reports.figures import confusion_matrix, learning_curve, reliability_diagram, to_png
from hubel.reports.format import duration
from hubel.tasks.classification.report import REPORT, confused_pairs
from hubel.tasks.classification.task import ClassificationEvaluator
from report_pages import NASTY, Page

HISTORY = [
    {"epoch": 1, "phase": "head", "train_loss": 1.2345, "val_loss": 0.9871, "train_top1": 0.61,
     "val_top1": 0.7512, "learning_rate": 1e-3, "seconds": 12.25},
    {"epoch": 2, "phase": "fine-tuning", "train_loss": 0.8123, "val_loss": 0.6542, "train_top1": None,
     "val_top1": 0.8234, "learning_rate": 1e-4, "seconds": 23.75},
    {"epoch": "3", "phase": "fine-tuning", "train_loss": "0.7001", "val_loss": "0.6666", "train_top1": "",
     "val_top1": "0.8111", "learning_rate": "5e-05", "seconds": "22.5"},
]  # fmt: skip


def noisy_scores(images: int, names: list[str], seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(names), images)
    logits = random.normal(size=(images, len(names)))
    logits[np.arange(images), labels] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return score_classification(probabilities, labels, names), probabilities, labels


def most_confident_mistakes(paths, labels, probabilities, names, count):
    evaluator = ClassificationEvaluator(ModelMetadata("classify", "m", len(names), 3, 8, names, Preprocessing(8, 8)))
    samples = [Sample(Path(path), label) for path, label in zip(paths, labels, strict=True)]
    evaluator.update({"probabilities": probabilities}, samples)
    return evaluator.worst_predictions(count)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> TrainingReport:
    folder = tmp_path_factory.mktemp("pictures")
    validation, probabilities, labels = noisy_scores(60, NASTY)
    paths = [folder / f"{index} <b>é.png" for index in range(60)]
    for index, path in enumerate(paths):
        Image.new("RGB", (400, 300), (4 * index, 10, 250 - 4 * index)).save(path)
    mistakes = most_confident_mistakes(paths, labels, probabilities, NASTY, count=6)
    mistakes[2].path.write_bytes(b"")
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    pixels = [np.full((50, 80, 3), colour, dtype=np.uint8) for colour in colours]
    return TrainingReport(
        title="run <1>",
        task="classify",
        model="lenet5",
        data="flowers & co",
        scores={"val": validation, "test": noisy_scores(45, NASTY, seed=1)[0]},
        split_sizes={"train": 1234, "val": 60, "test": 45},
        history=HISTORY,
        best_epoch=2,
        mistakes=mistakes,
        augmentation=[AugmentationSample(pixels[0], pixels[1:]), AugmentationSample(pixels[0][:, :, :1], [])],
        transforms=["rotation: up to ±10°"],
        configuration={"epochs": 3, "optimizer": {"name": "AdamW", "betas": [0.9, 0.999]}, "limit": None},
        environment={"torch": "9.9.9"},
        timing={"training": 185.2, "data check": 0.5},
        decisions=["precision: float32, 3 measured"],
        warnings=["roses <b> has 2 images"],
    )


@pytest.fixture(scope="module")
def page(report, tmp_path_factory) -> tuple[Path, Page]:
    folder = tmp_path_factory.mktemp("run")
    return folder, Page(write_report(folder / "new", report, REPORT))


def test_nothing_comes_from_elsewhere(page):
    _, html = page
    assert all(source.startswith("data:image/") for source in html.attributes("src"))
    targets = html.attributes("href")
    assert targets
    assert all(target.startswith("#") and target[1:] in html.attributes("id") for target in targets)
    assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe", html.source)


def test_every_figure_is_embedded_and_saved_too(page):
    folder, html = page
    files = {path.name: path.read_bytes() for path in (folder / "new" / "figures").iterdir()}
    assert set(files) == {
        "curve_loss.png", "curve_top1.png", "confusion_val.png", "calibration_val.png",
        "confusion_test.png", "calibration_test.png", "augmentation.png",
    }  # fmt: skip
    embedded = html.images()
    for name, content in files.items():
        if name != "augmentation.png":
            assert content in embedded, name
        Image.open(io.BytesIO(content)).verify()
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["figures", "report.html"]


def test_all_numbers_appear(page, report):
    text = page[1].text
    for scores in report.scores.values():
        for share in (scores.top1, scores.top1_low, scores.top1_high):
            assert f"{100 * share:.1f} %" in text
        for value, digits in ((scores.macro_f1, 3), (scores.ece, 3), (scores.loss, 4)):
            assert f"{value:.{digits}f}" in text
        for row in scores.per_class:
            words = f"{row.images} {row.predicted} {row.precision:.3f} {row.recall:.3f} {row.f1:.3f}"
            assert words in text
    for words in ("1,234", "9.9.9", "3 min 5 s", "0.50 s", "AdamW", "0.9, 0.999", "optimizer.betas"):
        assert words in text, words
    for words in ("1.234", "0.6542", "0.7512", "0.8111", "5e-05", "23.75", "fine-tuning", "epoch 2 were kept"):
        assert words in text, words
    for words in ("rotation: up to ±10°", "3 measured", "roses <b> has 2 images", "run <1>", "flowers & co"):
        assert words in text, words


def test_the_headline_is_the_test_set_s(page, report):
    text = page[1].text
    scores = report.scores["test"]
    right = round(scores.top1 * 45)
    assert f"Of the 45 images of the test set, {right} were classified correctly" in text
    assert "45 images are few" in text
    assert "optimistic" not in text


def test_validation_alone_is_reported_to_be_optimistic(report, tmp_path):
    scores = {"val": report.scores["val"]}
    html = Page(write_report(tmp_path, TrainingReport("t", "classify", "m", "d", scores, history=HISTORY), REPORT))
    assert "metrics are slightly optimistic" in html.text


def test_names_are_text_and_nothing_else(page):
    _, html = page
    assert "script" not in {tag for tag, _ in html.tags}
    assert not any(name.startswith("on") for _, attributes in html.tags for name in attributes)
    for name in NASTY:
        assert name in html.text


def test_mistakes_are_shown_as_images(page, report):
    _, html = page
    figures = {attributes["title"]: attributes["src"] for tag, attributes in html.tags if "title" in attributes}
    assert len(figures) == 5
    for number, mistake in enumerate(report.mistakes):
        if number == 2:
            assert str(mistake.path) not in figures
            continue
        source = figures[str(mistake.path)]
        image = Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))
        assert image.size == (320, 240)
        index = int(mistake.path.name.split()[0])
        middle = np.array(image.getpixel((160, 120)), dtype=int)
        assert np.abs(middle - (4 * index, 10, 250 - 4 * index)).max() <= 4
        assert f"{100 * mistake.probability:.1f}" in html.text
    assert f"Could not be read again: {report.mistakes[2].path.name}" in html.text


def test_augmented_samples_are_shown(page):
    folder, html = page
    shown = [
        np.array(Image.open(io.BytesIO(content)).convert("RGB").resize((1, 1)).getpixel((0, 0)), dtype=int)
        for (_, attributes), content in zip(
            [pair for pair in html.tags if "src" in pair[1]], html.images(), strict=True
        )
        if attributes.get("alt") in {"original", "augmented"}
    ]
    expected = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 200)]
    assert np.abs(np.array(shown) - expected).max() <= 4
    sheet = np.asarray(Image.open(folder / "new" / "figures" / "augmentation.png"))
    for colour in expected:
        assert (sheet == colour).all(axis=2).sum() == 160 * 100


def test_an_evaluation_needs_no_history(tmp_path):
    scores, _, _ = noisy_scores(30, ["a", "b", "c"])
    html = Page(write_report(tmp_path, TrainingReport("t", "classify", "m", "d", {"test": scores}), REPORT))
    headings = re.findall(r"<h2>(.*?)</h2>", html.source)
    assert headings == ["Test set: 30 images, 3 classes"]
    assert len(html.attributes("src")) == 2


def test_many_classes_list_the_most_confused_pairs(tmp_path):
    names = [f"kind {index}" for index in range(40)]
    labels = np.repeat(np.arange(40), 10)
    predicted = labels.copy()
    predicted[70:77] = 31
    predicted[0] = 5
    probabilities = np.eye(40)[predicted]
    scores = score_classification(probabilities, labels, names)
    assert confused_pairs(scores.confusion, names) == [("kind 7", "kind 31", 7, 0.7), ("kind 0", "kind 5", 1, 0.1)]
    html = Page(write_report(tmp_path, TrainingReport("t", "classify", "m", "d", {"test": scores}), REPORT))
    assert "kind 7 kind 31 7 70.0 % kind 0 kind 5 1 10.0 %" in html.text


def test_writing_again_replaces_the_page(tmp_path):
    scores, _, _ = noisy_scores(30, ["a", "b"])
    for title in ("first", "second"):
        path = write_report(tmp_path, TrainingReport(title, "classify", "m", "d", {"test": scores}), REPORT)
    assert "second" in path.read_text()
    assert "first" not in Page(path).text.replace("lowest F1 first", "")


def test_most_confident_mistakes_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    found = most_confident_mistakes(list("vwxyz"), [0, 0, 1, 0, 1], probabilities, ["cat", "dog"], count=3)
    assert [(str(m.path), m.truth, m.predicted, m.probability) for m in found] == [
        ("z", "dog", "cat", 0.9), ("y", "cat", "dog", 0.8), ("w", "cat", "dog", 0.7),
    ]  # fmt: skip


def test_learning_curves_plot_the_values():
    axes = learning_curve(HISTORY, "loss", best_epoch=2).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["training"].get_ydata()) == [1.2345, 0.8123, 0.7001]
    assert list(lines["validation"].get_ydata()) == [0.9871, 0.6542, 0.6666]
    assert (list(lines["kept"].get_xdata()), list(lines["kept"].get_ydata())) == ([2], [0.6542])
    assert [text.get_text() for text in axes.texts] == ["head", "fine-tuning"]
    accuracy = learning_curve(HISTORY, "top1", best_epoch=None).axes[0]
    assert accuracy.lines[0].get_ydata() == pytest.approx([0.61, np.nan, np.nan], nan_ok=True)
    only = learning_curve([{"epoch": 1, "val_loss": 0.5}], "loss", best_epoch=1).axes[0]
    assert [line.get_label() for line in only.lines] == ["validation", "kept"]


def test_confusion_matrix_writes_the_counts_where_they_belong():
    counts = np.array([[5, 2, 0], [0, 7, 0], [1, 0, 9]])
    axes = confusion_matrix(counts, ["a", "b", "c"]).axes[0]
    written = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    assert written == {(0, 0): 5, (0, 1): 2, (1, 1): 7, (2, 0): 1, (2, 2): 9}
    colours = np.asarray(axes.images[0].get_array())[:, :, :3]
    assert colours[0, 0, 2] > colours[0, 0, 0], "what is right is blue"
    assert colours[0, 1, 0] > colours[0, 1, 2], "what is wrong is orange"
    assert colours[1, 0] == pytest.approx([1, 1, 1], abs=0.03), "what did not happen is blank"


def test_long_names_keep_both_ends_in_the_matrix():
    names = ["a rather long class name, number 1", "a rather long class name, number 2"]
    axes = confusion_matrix(np.eye(2, dtype=int), names).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "a rather lon… number 1", "a rather lon… number 2",
    ]  # fmt: skip


def test_reliability_diagram_shows_the_bins():
    scores, _, _ = noisy_scores(300, list("abcd"))
    upper, lower = reliability_diagram(scores.calibration).axes
    filled = [row for row in scores.calibration if row.images]
    heights = [bar.get_height() for bar in upper.patches]
    assert heights[: len(filled)] == pytest.approx([row.accuracy for row in filled])
    gaps = [row.confidence - row.accuracy for row in filled]
    over, under = [gap for gap in gaps if gap > 0], [gap for gap in gaps if gap < 0]
    assert heights[len(filled) :] == pytest.approx(over + under)
    assert [bar.get_height() for bar in lower.patches] == [row.images for row in filled]


def test_a_gap_of_underconfidence_is_seen_through():
    row = CalibrationBin(0.4, 0.5, 10, confidence=0.45, accuracy=0.9)
    upper = reliability_diagram([row]).axes[0]
    accuracy, gap = upper.patches
    assert (gap.get_y(), gap.get_y() + gap.get_height()) == (0.9, pytest.approx(0.45))
    assert gap.get_hatch() and gap.get_facecolor()[3] == 0, "the accuracy shows behind the hatching"
    assert accuracy.get_height() == 0.9
    assert "underconfident" in upper.get_legend_handles_labels()[1]


def test_figures_bear_any_name(recwarn):
    to_png(confusion_matrix(np.eye(5, dtype=int), NASTY))
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.424, "0.42 s"), (9.999, "10.00 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185.2, "3 min 5 s"),
     (3599.9, "1 h 0 min"), (7800, "2 h 10 min")],
)  # fmt: skip
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_reports_import_neither_torch_nor_pyplot():
    code = "import sys, hubel.reports; sys.exit(any(n in sys.modules for n in ('torch', 'matplotlib.pyplot')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
