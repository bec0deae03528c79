"""Evaluate tracks: read and check MOTChallenge files, score pairs of truth and result."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hubel.data.mot import MotBoxes, read_mot_text
from hubel.errors import DataError, UsageError
from hubel.metrics import tracking

Note = Callable[[str], None]


def score_files(paths: Sequence[Path], note: Note) -> tracking.TrackingScores:
    """Score results of a tracker against ground truth, as MOTChallenge does.

    Args:
        paths: ground truth and result alternately; or two folders, ``GT/SEQUENCE/gt/gt.txt`` and
            ``RESULTS/SEQUENCE.txt``.
        note: gets a sentence about each oddity of the files.

    Raises:
        UsageError: a file has no counterpart.
        DataError: a file is missing or invalid, an id is not above 0 or twice in a frame, or there are no true boxes.
    """
    if len(paths) == 2 and all(path.is_dir() for path in paths):
        pairs = _in_folders(*paths)
    elif len(paths) < 2 or len(paths) % 2:
        message = f"{len(paths)} files are not pairs of ground truth and result"
        raise UsageError(message, "use hubel evaluate --task track GT.txt RESULT.txt [GT2.txt RESULT2.txt …]")
    else:
        pairs = list(zip(paths[::2], paths[1::2], strict=True))
    names = _names([truth for truth, _ in pairs])
    return tracking.score_sequences(_sequence(name, *pair, note) for name, pair in zip(names, pairs, strict=True))


def _in_folders(truths: Path, results: Path) -> list[tuple[Path, Path]]:
    found = sorted(truths.glob("*/gt/gt.txt"))
    if not found:
        raise DataError(f"{truths} has no SEQUENCE/gt/gt.txt", "pass a folder of MOTChallenge sequences")
    pairs = [(truth, results / f"{truth.parent.parent.name}.txt") for truth in found]
    for truth, result in pairs:
        if not result.is_file():
            raise DataError(f"{result} is missing: the result of {truth}", "track that sequence too")
    return pairs


def _names(truths: Sequence[Path]) -> list[str]:
    """Names of sequences: the folder above ``gt/``, else the file's name; numbered if not unique."""
    names = [path.resolve().parent.parent.name if path.parent.name == "gt" else path.stem for path in truths]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def _sequence(name: str, truth_path: Path, result_path: Path, note: Note) -> tracking.Sequence:
    truth, result = read_mot_text(truth_path), read_mot_text(result_path)
    for boxes in (truth, result):
        for text in boxes.notes:
            note(text)
        _check_ids(boxes)
    if not len(truth):
        raise DataError(f"{truth_path} has no boxes", "pass the ground truth first")
    length = _length(truth_path) or truth.last_frame
    for text in _oddities(truth, result, length):
        note(text)
    true, found = tracking.apply_motchallenge_rules(
        tracking.Boxes(truth.frames, truth.ids, truth.boxes),
        truth.scores != 0,
        truth.classes,
        tracking.Boxes(result.frames, result.ids, result.boxes),
        tracking.MOT20_DISTRACTORS if name.startswith("MOT20") else tracking.DISTRACTORS,
    )
    if not len(true.ids):
        note(_nothing_counts(truth))
    return tracking.Sequence(name, true, found, length)


def _nothing_counts(truth: MotBoxes) -> str:
    """Why no true box is compared."""
    if not (truth.scores != 0).any():
        return f"{truth.path}: no box counts, as all have the flag 0 in the seventh column: every track is wrong"
    classes = ", ".join(map(str, np.unique(truth.classes[truth.scores != 0]).tolist()))
    return (
        f"{truth.path}: no box counts, as MOTChallenge compares only class 1 (pedestrian), and the eighth column has"
        f" {classes}: write 1 there, or only the first seven columns, to compare these objects"
    )


def _check_ids(boxes: MotBoxes) -> None:
    hint = "give every track an id above 0, and one box per frame"
    for row in (boxes.ids <= 0).nonzero()[0]:
        where = f"{boxes.path}, line {boxes.lines[row]}"
        raise DataError(f"{where}: the id is {boxes.ids[row]}, in frame {boxes.frames[row]}", hint)
    order = np.lexsort((boxes.ids, boxes.frames))
    for row in order[1:][(np.diff(boxes.frames[order]) == 0) & (np.diff(boxes.ids[order]) == 0)]:
        where = f"{boxes.path}, line {boxes.lines[row]}"
        raise DataError(f"{where}: id {boxes.ids[row]} occurs twice in frame {boxes.frames[row]}", hint)


def _length(truth: Path) -> int | None:
    """Number of frames in the ``seqinfo.ini`` next to ``gt/``."""
    file = truth.parent.parent / "seqinfo.ini"
    if not file.is_file():
        return None
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read(file, encoding="utf-8")
        return reader.getint("Sequence", "seqLength")
    except (configparser.Error, ValueError, OSError) as error:
        raise DataError(f"{file} has no valid seqLength: {error}", "correct it, or remove it") from error


def _oddities(truth: MotBoxes, result: MotBoxes, length: int) -> Iterator[str]:
    if not len(result):
        yield f"{result.path} has no boxes: everything counts as missed"
        return
    past = int((result.frames > length).sum())
    if past:
        yield f"{result.path}: {past} boxes after frame {length}, the last of {truth.path}, count as false positives"
    if not np.isin(result.frames, truth.frames).any():
        yield f"{result.path} and {truth.path} have no frame in common: are they of the same sequence?"
    if not np.isin(truth.scores, (0, 1)).all():
        yield (
            f"{truth.path} has confidences other than 0 and 1, unlike ground truth:"
            " are the files in the order GT.txt RESULT.txt?"
        )
