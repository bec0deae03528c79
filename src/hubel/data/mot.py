"""MOTChallenge text: detections, ground truth and results of trackers, one box per line.

``frame, id, left, top, width, height, confidence, class, visibility`` in the ground truth of 2016 and later; with
``x, y, z`` after the confidence in detections, results, and the ground truth of 2015. Frames and ids count from 1, the
id of a detection is -1. https://motchallenge.net, and Dendorfer et al. 2021, arXiv 2010.07548, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from hubel.bounded import BoundError, read_bytes
from hubel.data.annotations.encodings import decode_text
from hubel.errors import DataError

_MIN_COLUMNS = 6
# Ground truth with classes has eight or nine columns; with ten, world coordinates follow the confidence.
_WITH_CLASSES = (8, 9)
_A_LINE = "write lines of: frame, id, left, top, width, height, and more numbers"
_EMPTY = re.compile(r"[^\S\n]*(?:#|$)")
_MAX_NUMBER = 2**31
_MAX_COORDINATE = 1e7  # pixels; no image is larger
# Frames without boxes cost time too: one number must not ask for hours.
_MAX_FRAMES, _MAX_FRAMES_PER_BOX = 100_000, 1_000
_MAX_BYTES = 1 << 30
_MAX_LINE = 10_000  # characters


@dataclass(frozen=True)
class MotBoxes:
    """Boxes of a file, sorted by frame; within a frame in the order of the lines.

    Attributes:
        frames: int64 (N,), from 1, ascending.
        ids: int64 (N,); -1 for detections.
        boxes: float64 (N, 4), x1, y1, x2, y2 in pixels.
        scores: float64 (N,); in ground truth, 0 for boxes that do not count; 1 if the file has none.
        classes: int64 (N,), -1 if the file has none.
        lines: int64 (N,), lines of the file, from 1.
        notes: sentences about what was corrected.
    """

    path: Path
    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    lines: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def last_frame(self) -> int:
        """Number of the last frame with a box; 0 if there is none."""
        return int(self.frames[-1]) if len(self) else 0

    def of_frame(self, number: int) -> slice:
        """Rows of a frame."""
        return slice(*self.frames.searchsorted((number, number + 1)).tolist())

    def by_frame(self) -> Iterator[tuple[int, slice]]:
        """Number and rows of each frame from 1 to the last, including frames without boxes."""
        numbers, starts = np.unique(self.frames, return_index=True)
        bounds = pairwise([*starts.tolist(), len(self)])
        before = 0
        for number, (first, end) in zip(numbers.tolist(), bounds, strict=True):
            yield from ((empty, slice(first, first)) for empty in range(before + 1, number))
            yield number, slice(first, end)
            before = number

    def only(self, kept: np.ndarray) -> MotBoxes:
        """A selection of the rows, bool (N,) or ascending indices."""
        columns = ("frames", "ids", "boxes", "scores", "classes", "lines")
        return replace(self, **{column: getattr(self, column)[kept] for column in columns})


def read_mot_text(path: Path) -> MotBoxes:
    """Read a file of boxes.

    Columns are separated as in the first line: by semicolons, bars, tabs, commas or spaces; a separator may end the
    lines, and where it is not a comma, a comma is a decimal point. A line of column names, and lines that begin with
    ``#``, are passed over. Boxes that are not finite, beyond ten million pixels, or have no area are
    left out, and unsorted lines are sorted; ``notes`` report it. Raises :class:`DataError` if the file does not exist,
    or a line is invalid.
    """
    try:
        text = decode_text(read_bytes(path, _MAX_BYTES)).removeprefix("\ufeff")
    except BoundError as error:
        raise DataError(f"{path} {error}", "pass a file of boxes") from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "check the spelling and the folder") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "pass a file of boxes") from error
    numbered = _numbered(text.replace("\r\n", "\n").replace("\r", "\n"))
    table = _parse_table(path, numbered)
    lines = np.array([number for number, _ in numbered], np.int64)
    for column, name in ((0, "frame"), (1, "id")):
        values = table[:, column]
        integer = np.isfinite(values) & (np.abs(values) < _MAX_NUMBER)
        integer &= values == np.floor(np.where(integer, values, 0))
        _check(path, lines, integer, f"the {name} is not an integer", values)
    _check(path, lines, table[:, 0] >= 1, "frames count from 1, this one is", table[:, 0])
    most = _MAX_FRAMES + _MAX_FRAMES_PER_BOX * len(table)
    message = f"the frame is beyond {most:,}, too far for a file of {len(table):,} boxes (a time stamp?)"
    _check(path, lines, table[:, 0] <= most, message, table[:, 0])
    return _sorted(path, table, lines)


def _numbered(text: str) -> list[tuple[int, str]]:
    """The lines of numbers with the numbers of the lines, separated by commas alone."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if not _EMPTY.match(line)]
    if lines and _is_header(lines[0][1]):
        del lines[0]
    if not lines:
        return []
    separator = _separator(lines[0][1])
    if separator == ",":
        return [(number, line.rstrip().removesuffix(",")) for number, line in lines]
    return [
        (number, ",".join(line.strip().removesuffix(separator or "").replace(",", ".").split(separator)))
        for number, line in lines
    ]


def _is_header(line: str) -> bool:
    """True for names of columns: nothing in the line is a number."""
    cells = [cell for cell in re.split(r"[\s,;|]+", line) if cell]
    return all(re.match(r"[^\W\d_]|_", cell.strip("\"'")) and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    """True for what NumPy reads as a number: Python also takes ``1_000``, and digits of other scripts."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _separator(line: str) -> str | None:
    """What separates the columns of a line; ``None``: spaces."""
    for separator in (";", "|", ","):
        if len(line.split(separator)) >= _MIN_COLUMNS:
            return separator
    if "\t" in line.strip():
        return "\t"
    if len(line.split()) >= _MIN_COLUMNS:
        return None
    return next((separator for separator in (",", ";", "|") if separator in line), None)


def _parse_table(path: Path, numbered: Sequence[tuple[int, str]]) -> np.ndarray:
    """The table (N, columns), at least (0, 6), of numbered lines that are not empty."""
    if not numbered:
        return np.empty((0, _MIN_COLUMNS))
    for number, line in numbered:
        if len(line) > _MAX_LINE:
            raise DataError(f"{path}, line {number}: has {len(line):,} characters", _A_LINE)
    try:
        table = np.loadtxt([line for _, line in numbered], delimiter=",", ndmin=2, comments=None)
    except ValueError as error:
        raise _broken_line(path, numbered) from error
    if table.shape[1] < _MIN_COLUMNS:
        raise _broken_line(path, numbered)
    return table


def _broken_line(path: Path, numbered: Sequence[tuple[int, str]]) -> DataError:
    """The error of the first invalid line."""
    columns = len(numbered[0][1].split(","))
    for number, line in numbered:
        cells = line.split(",")
        for cell in cells:
            if not _is_number(cell):
                return DataError(f"{path}, line {number}: {cell.strip()[:40]!r} is not a number", _A_LINE)
        if len(cells) < _MIN_COLUMNS:
            return DataError(f"{path}, line {number}: {len(cells)} numbers, expected at least 6", _A_LINE)
        if len(cells) != columns:
            return DataError(f"{path}, line {number}: {len(cells)} numbers, the lines before have {columns}", _A_LINE)
    return DataError(f"{path} is not a table of numbers", _A_LINE)


def _check(path: Path, lines: np.ndarray, valid: np.ndarray, message: str, values: np.ndarray) -> None:
    if not valid.all():
        row = int(valid.argmin())
        raise DataError(f"{path}, line {lines[row]}: {message}: {values[row]:.15g}", "correct the line, or remove it")


def _sorted(path: Path, table: np.ndarray, lines: np.ndarray) -> MotBoxes:
    """The boxes that have an area, sorted by frame, and notes about the others."""
    notes = []
    with np.errstate(invalid="ignore"):
        boxes = np.concatenate((table[:, 2:4], table[:, 2:4] + table[:, 4:6]), axis=1)
    finite = np.isfinite(boxes).all(axis=1)
    far = finite & (np.abs(boxes) > _MAX_COORDINATE).any(axis=1)
    empty = finite & (table[:, 4:6] <= 0).any(axis=1)
    for wrong, what in (
        (~finite, "not finite"),
        (far, "farther away than any image is wide"),
        (empty, "without an area"),
    ):
        if wrong.any():
            count, first = int(wrong.sum()), lines[wrong.argmax()]
            are = "1 box is" if count == 1 else f"{count} boxes are"
            notes.append(f"{path}: {are} {what} (first in line {first}) and left out")
    scores = table[:, 6] if table.shape[1] > 6 else np.ones(len(table))
    unknown = ~np.isfinite(scores)
    if unknown.any():
        first = lines[unknown.argmax()]
        notes.append(f"{path}: {int(unknown.sum())} confidences are not numbers (first in line {first}), taken as 1")
        scores = np.where(unknown, 1.0, scores)
    classes = np.full(len(table), -1)
    if table.shape[1] in _WITH_CLASSES:
        stated = np.where(np.abs(table[:, 7]) < _MAX_NUMBER, table[:, 7], -1)  # false for NaN, too
        classes = stated.astype(np.int64)
    frames = table[:, 0].astype(np.int64)
    falling = np.diff(frames) < 0
    if falling.any():
        notes.append(f"{path}: frames are not in order (first in line {lines[1:][falling.argmax()]}) and were sorted")
    order = frames.argsort(kind="stable")
    found = MotBoxes(path, frames, table[:, 1].astype(np.int64), boxes, scores, classes, lines, tuple(notes))
    return found.only(order[(finite & ~far & ~empty)[order]])


def mot_text(frame: int, ids: Iterable[int], boxes: np.ndarray, scores: np.ndarray) -> str:
    """The lines of the tracks of one frame, from 1; ``boxes`` (N, 4) are x1, y1, x2, y2 in pixels."""
    return "".join(
        f"{frame},{id_},{x1:.3f},{y1:.3f},{x2 - x1:.3f},{y2 - y1:.3f},{score:.4g},-1,-1,-1\n"
        for id_, (x1, y1, x2, y2), score in zip(ids, boxes.tolist(), scores.tolist(), strict=True)
    )
