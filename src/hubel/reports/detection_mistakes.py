"""The pictures in which a detector errs most, with what is right, wrong and missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hubel.drawing import BoxLabel
from hubel.metrics.coco import FoundObjects, GroundTruth
from hubel.metrics.detection import WorstPicture, worst_pictures
from hubel.reports.report_data import DetectionMistake

# Of Okabe and Ito's palette: told apart with any colour vision, and by line and chip besides.
_LABELLED, _RIGHT, _WRONG, _MISSED = (255, 255, 255), (86, 180, 233), (230, 80, 0), (240, 228, 66)
KINDS = (
    (_LABELLED, False, "labelled, and found"),
    (_RIGHT, False, "found and right"),
    (_WRONG, False, "found and wrong, with confidence"),
    (_MISSED, True, "labelled, but missed"),
)
"""What is drawn: red, green, blue; whether the line is broken; what it means."""


def detection_mistakes(
    paths: Sequence[str | Path],
    labelled: Sequence[GroundTruth],
    found: Sequence[FoundObjects],
    classes: Sequence[str],
    count: int = 12,
) -> list[DetectionMistake]:
    """The worst pictures, see :func:`hubel.metrics.detection.worst_pictures`.

    Args:
        paths: the image files.
        labelled: of each, boxes in pixels of the upright picture.
        found: of each, likewise.
        classes: names, in the order of the labels.
        count: how many at most.
    """
    return [
        _mistake(Path(paths[picture.place]), picture, labelled[picture.place], found[picture.place], classes)
        for picture in worst_pictures(labelled, found, count)
    ]


def _mistake(
    path: Path, picture: WorstPicture, labelled: GroundTruth, found: FoundObjects, classes: Sequence[str]
) -> DetectionMistake:
    matches = picture.matches
    wrong = {place: _words(place, picture, labelled, found, classes) for place in matches.wrong.tolist()}
    missed = Counter(classes[labelled.labels[place]] for place in matches.missed)
    return DetectionMistake(
        path,
        tuple(_boxes(picture, labelled, found, wrong, classes)),
        tuple(wrong.values()),
        tuple(f"{number} × {name}" if number > 1 else name for name, number in missed.most_common()),
    )


def _words(
    place: int, picture: WorstPicture, labelled: GroundTruth, found: FoundObjects, classes: Sequence[str]
) -> str:
    answer = picture.matches.answers[place]
    said = f"{classes[found.labels[place]]} {100 * found.scores[place]:.0f}\u202f%"
    return said if answer < 0 else f"{said} (is {classes[labelled.labels[answer]]})"


def _boxes(
    picture: WorstPicture, labelled: GroundTruth, found: FoundObjects, wrong: dict[int, str], classes: Sequence[str]
) -> Iterator[BoxLabel]:
    matches = picture.matches
    for place in matches.answers[matches.answers >= 0]:
        yield _label(labelled.boxes[place], "", _LABELLED)
    for place in matches.right:
        yield _label(found.boxes[place], "", _RIGHT)
    for place in matches.missed:
        yield _label(labelled.boxes[place], classes[labelled.labels[place]], _MISSED, True)
    for place, words in wrong.items():
        yield _label(found.boxes[place], words, _WRONG)


def _label(box: np.ndarray, text: str, colour: tuple[int, int, int], dashed: bool = False) -> BoxLabel:
    x1, y1, x2, y2 = (float(side) for side in box)
    return BoxLabel((x1, y1, x2, y2), text, colour, dashed)
