"""Rows of YOLO's label files: boxes, outlines, poses, and what trackers append.

==================================  ==========================================================
numbers after the class              meaning
==================================  ==========================================================
``X Y WIDTH HEIGHT``                 a box by its centre
``X Y WIDTH HEIGHT SCORE``           a prediction; instead of a score above 1, the id of a track
``X Y WIDTH HEIGHT SCORE ID``        a prediction of a tracker
``X1 Y1 X2 Y2 X3 Y3 …``              an outline; of four points, also a rotated box
``X Y WIDTH HEIGHT`` and key points  a pose, of ``kpt_shape: [COUNT, 2 or 3]`` in ``data.yaml``
==================================  ==========================================================

Outlines and poses may have equally many numbers. Without ``kpt_shape``, rows are poses where all have the same length
and nothing else fits: every third number is a visibility (0, 1, 2), or the points lie in the box and make no outline,
because its sides would cross.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import Annotation
from hubel.data.file_listing import composed
from hubel.masks import bounding_box

_DECIMAL = re.compile(r"[+-]?\d{0,20},?\d{1,20}")
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
_MAX_KEYPOINTS = 1_000
_TRACKED = 6  # numbers of a tracker's row
_MAX_CROSSINGS = 50  # points of an outline whose sides are compared


@dataclass(frozen=True)
class RowLayout:
    """What the rows of a data set are.

    Attributes:
        keypoints: their number in a pose, and 2, or 3 with their visibility; ``None`` for boxes and outlines.
        tracked: a track's id follows the score.
        is_certain: false where outlines may be poses.
    """

    keypoints: tuple[int, int] | None = None
    tracked: bool = False
    is_certain: bool = True

    def is_pose(self, numbers: int) -> bool:
        """True if that many numbers after the class are a pose."""
        return self.keypoints is not None and numbers == 4 + self.keypoints[0] * self.keypoints[1]


def parse_kpt_shape(value: Any) -> RowLayout:
    """The layout that ``kpt_shape`` declares: ``[17, 3]``; raises :class:`InvalidAnnotation`."""
    pair = [parse.integer(number, "kpt_shape") for number in parse.items(value, "kpt_shape")]
    if len(pair) != 2 or not 1 <= pair[0] <= _MAX_KEYPOINTS or pair[1] not in (2, 3):
        raise parse.InvalidAnnotation(f"kpt_shape is {pair}, not the number of key points, and 2 or 3")
    return RowLayout((pair[0], pair[1]))


def detect_layout(rows: Iterable[Sequence[float]]) -> RowLayout:
    """The layout of a data set that does not declare one, from the numbers after the class of many rows."""
    found = list(rows)
    lengths = {len(row) for row in found}
    if len(lengths) != 1 or (length := lengths.pop()) < _TRACKED:
        return RowLayout()
    if length == _TRACKED:
        is_id = all(row[5] >= 0 and row[5] == int(row[5]) and max(row[:5]) <= 1 for row in found)
        return RowLayout(tracked=is_id)
    extra = length - 4
    if extra % 3 == 0 and all(set(row[6::3]) <= {0, 1, 2} and _inside(row, 3) for row in found):
        return RowLayout((extra // 3, 3))
    if extra % 2 == 0 and all(_inside(row, 2) for row in found):
        crossing = any(_crosses_itself(row[: 2 * _MAX_CROSSINGS]) for row in found)
        return RowLayout((extra // 2, 2)) if crossing else RowLayout(is_certain=False)
    return RowLayout()


def _inside(row: Sequence[float], step: int) -> bool:
    """True if the points after the first four numbers lie in the box that these describe, or are absent (0, 0)."""
    x, y, w, h = row[:4]
    points = zip(row[4::step], row[5::step], strict=True)
    return all(
        (px, py) == (0, 0) or (abs(px - x) <= 0.55 * w + 1e-6 and abs(py - y) <= 0.55 * h + 1e-6) for px, py in points
    )


def _crosses_itself(row: Sequence[float]) -> bool:
    """True if two sides of a closed outline cross, at a point that is an end of neither."""
    points = list(zip(row[::2], row[1::2], strict=True))
    sides = list(zip(points, [*points[1:], points[0]], strict=True))

    def turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    return any(
        turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0
        for index, (a, b) in enumerate(sides)
        for c, d in sides[index + 2 :]
    )


def row_cells(line: str) -> list[str]:
    """The class of a row and its numbers as text.

    They are separated by white space, commas or semicolons; a comma between digits is a decimal point if white space
    separates them. The class is a number, or a name, which may have spaces.
    """
    words = line.split()
    if "," in line or ";" in line:
        if len(words) >= 5 and all(map(_DECIMAL.fullmatch, words[1:])):
            words = [words[0], *(word.replace(",", ".") for word in words[1:])]
        else:
            words = [cell.strip() for cell in _SEPARATOR.split(line.strip().rstrip(",;"))]
    start = next((index for index, word in enumerate(words[1:], 1) if _starts_number(word)), 1)
    return [" ".join(words[:start]), *words[start:]]


def _starts_number(word: str) -> bool:
    return word[:1] in "+-.0123456789" or word.casefold() in ("nan", "inf")


def row_numbers(line: str) -> list[float] | None:
    """The numbers after the class; ``None`` if they are not numbers."""
    try:
        return [parse.number(value) for value in row_cells(line)[1:]]
    except parse.InvalidAnnotation:
        return None


def _label(reader: AnnotationReader, text: str) -> int:
    """The index of a class, which is written in a row, or is that of the name in it."""
    is_name = any(map(str.isalpha, text)) and text.casefold() not in ("nan", "inf")
    if is_name and (label := reader.classes.get(composed(text))) is not None:
        return label
    if is_name and reader.classes:
        raise parse.UnknownClass(f"class {text[:100]!r} is not one of the {len(reader.classes)} classes")
    label = parse.integer(text, "the class")
    if not 0 <= label < len(reader.classes):
        raise parse.UnknownClass(f"class {label} is not one of the {len(reader.classes)} classes")
    return label


def parse_row(reader: AnnotationReader, line: str, layout: RowLayout, width: int, height: int) -> Annotation:
    """The object of a row, in pixels of an image of that size; raises :class:`InvalidAnnotation`."""
    values = row_cells(line)
    label = _label(reader, values[0])
    numbers = [parse.number(value) for value in values[1:]]
    count = len(numbers)
    is_tracked = layout.tracked and count == _TRACKED
    if layout.is_pose(count) or is_tracked or count in (4, 5):
        x, y, w, h = numbers[0] * width, numbers[1] * height, numbers[2] * width, numbers[3] * height
        if layout.is_pose(count):
            reader.count_warning("objects have key points: left out")
        score = numbers[4] if is_tracked or count == 5 else None
        if score is not None and not 0 <= score <= 1:
            if score < 0 or score != int(score):
                raise parse.InvalidAnnotation(f"the fifth number is {values[5]}, not a score from 0 to 1")
            score = None
        if is_tracked or (count == 5 and score is None):
            reader.count_warning("rows end with the id of a track: left out")
        return Annotation(label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), score=score)
    if layout.keypoints is not None and count >= _TRACKED:
        points, each = layout.keypoints
        raise parse.InvalidAnnotation(
            f"has {count} numbers after the class; a pose of {points} × {each} has {4 + points * each}"
        )
    if count < 6 or count % 2:
        raise parse.InvalidAnnotation(f"has {count} numbers after the class: neither a box (4) nor a polygon (6, 8, …)")
    polygon = tuple(value * (height if index % 2 else width) for index, value in enumerate(numbers))
    return Annotation(label, bounding_box([polygon]), (polygon,))
