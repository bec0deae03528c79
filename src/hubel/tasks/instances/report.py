"""Instance segmentation in a report: detection's charts, of masks, and truth beside what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hubel.drawing import BoxLabel
from hubel.masks import RunLengthMask
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import WorstImage, worst_images
from hubel.metrics.instances import InstanceScores
from hubel.reports.report_data import InstanceMistake, TaskReport
from hubel.tasks.detection.report import REPORT as DETECTION
from hubel.tasks.detection.report import counted, wrong_objects

# Of Okabe and Ito's palette: distinct with any colour vision.
_FOUND, _MISSED, _CORRECT, _WRONG = (255, 255, 255), (240, 228, 66), (86, 180, 233), (230, 80, 0)
KINDS = (
    (_FOUND, "left: true object, found"),
    (_MISSED, "left: missed"),
    (_CORRECT, "right: correct"),
    (_WRONG, "right: wrong, with its confidence"),
)
"""Kinds of objects on the images: red, green, blue; meaning."""


def _charts(scores: InstanceScores) -> Iterator[tuple[str, Figure]]:
    yield from DETECTION.charts(replace(scores.objects, coco=scores.masks))


def _sentences(scores: InstanceScores, split: str) -> Iterator[str]:
    """Detection's, which hold for masks, and what boundary AP means."""
    yield from DETECTION.sentences(scores.objects, split)
    yield "Here an object is correct if the pixels of its mask are, and not only its box."
    if scores.boundaries is not None:
        yield (
            f"Boundary AP, {scores.boundaries.metrics['AP']:.3f}, also looks at outlines alone: two masks overlap by "
            "the smaller of their IoU and that of what lies along their outlines, within 2\u202f% of the image's "
            "diagonal. It falls where outlines are coarse, in large objects above all."
        )


def _of_split(scores: InstanceScores) -> dict[str, Any]:
    given, split = scores.to_json(), DETECTION.of_split(scores.objects)
    classes = [row for row in given["per_class"] if row["objects"]]
    return split | {
        "total": split["total"] | given["metrics"],
        "classes": sorted(classes, key=lambda row: row["mask_AP50"]),
    }


def instance_mistakes(
    paths: Sequence[str | Path],
    labelled: Sequence[GroundTruth],
    found: Sequence[PredictedObjects],
    classes: Sequence[str],
    count: int = 12,
) -> list[InstanceMistake]:
    """The images with the worst mistakes, see :func:`hubel.metrics.detection.worst_images`."""
    return [
        _mistake(Path(paths[image.index]), image, labelled[image.index], found[image.index], classes)
        for image in worst_images(labelled, found, count)
    ]


def _mistake(
    path: Path, image: WorstImage, labelled: GroundTruth, found: PredictedObjects, classes: Sequence[str]
) -> InstanceMistake:
    matches, truth = image.matches, [classes[label] for label in labelled.labels]
    matched = [index for index in matches.objects.tolist() if index >= 0]
    words = {
        index: f"{classes[found.labels[index]]} {100 * found.scores[index]:.0f}\u202f%"
        for index in (*matches.right.tolist(), *matches.wrong.tolist())
    }
    of_truth = {**dict.fromkeys(matched, _FOUND), **dict.fromkeys(matches.missed.tolist(), _MISSED)}
    of_found = {**dict.fromkeys(matches.right.tolist(), _CORRECT), **dict.fromkeys(matches.wrong.tolist(), _WRONG)}
    return InstanceMistake(
        path,
        _drawn(labelled, of_truth, dict(enumerate(truth))),
        _drawn(found, of_found, words),
        tuple(wrong_objects(image, labelled, found, classes).values()),
        counted(truth[index] for index in matches.missed),
    )


def _drawn(
    side: GroundTruth | PredictedObjects, colours: dict[int, tuple[int, int, int]], words: dict[int, str]
) -> list[tuple[BoxLabel, RunLengthMask]]:
    drawn = []
    for index, colour in colours.items():
        x1, y1, x2, y2 = side.boxes[index].tolist()
        mask = (side.masks or ())[index]
        label = BoxLabel((x1, y1, x2, y2), words[index], colour)
        height, width = mask["size"]
        drawn.append((label, RunLengthMask(height, width, mask["counts"])))
    return drawn


@dataclass(frozen=True)
class InstanceReport(TaskReport):
    """With the key of the objects on images with mistakes, as in :data:`KINDS`."""

    mistakes_colours: Iterable[tuple[tuple[int, int, int], str]] = KINDS


REPORT = InstanceReport(
    package="hubel.tasks.instances",
    curves={
        **{name: words for name, words in DETECTION.curves.items() if name.endswith("loss")},
        "mask_loss": ("Mask loss per epoch", "The part of the loss that is about masks."),
        "mask_AP50": ("Mask AP50 per epoch", "AP50 of masks: higher is better."),
        "mask_AP": ("Mask AP per epoch", "AP of masks: higher is better; it rewards accurate outlines."),
    },
    charts=_charts,
    sentences=_sentences,
    of_split=_of_split,
    mistakes="Images with the worst mistakes: truth and what was found",
    mistakes_side=1280,
)
