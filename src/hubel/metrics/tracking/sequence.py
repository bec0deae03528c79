"""True and tracked boxes of a sequence, with their IoU, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.boxes import iou

_EPSILON = np.finfo(float).eps
_PEDESTRIAN = 1
DISTRACTORS = (2, 7, 8, 12)
"""Person on a vehicle, static person, distractor, reflection: detecting them is neither right nor wrong."""
MOT20_DISTRACTORS = (*DISTRACTORS, 6)
"""MOT20 adds vehicles without a motor."""


@dataclass(frozen=True)
class Boxes:
    """All boxes of a file.

    Attributes:
        frames: int64 (N,), from 1, ascending.
        ids: int64 (N,), unique within a frame.
        boxes: float64 (N, 4), x1, y1, x2, y2.
    """

    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray

    def only(self, kept: np.ndarray) -> Boxes:
        """A selection, bool (N,)."""
        return Boxes(self.frames[kept], self.ids[kept], self.boxes[kept])


class Sequence:
    """A sequence, ready for the metrics.

    Args:
        name: of the sequence.
        truth: true boxes.
        tracked: boxes of the tracker.
        frames: number of frames; by default that of the last box.

    Attributes:
        truth_ids: number of objects.
        tracked_ids: number of tracks.
        per_frame: for each frame, indices of its objects (G,) and tracks (T,), and their IoU (G, T).
    """

    def __init__(self, name: str, truth: Boxes, tracked: Boxes, frames: int | None = None) -> None:
        self.name = name
        last = max((int(side.frames[-1]) for side in (truth, tracked) if len(side.frames)), default=0)
        self.frames = max(frames or 0, last)
        names, true_numbers = np.unique(truth.ids, return_inverse=True)
        tracks, track_numbers = np.unique(tracked.ids, return_inverse=True)
        self.truth_ids, self.tracked_ids = len(names), len(tracks)
        self.true_boxes, self.tracked_boxes = len(truth.ids), len(tracked.ids)
        self.per_frame = []
        for first, last_, start, end in _bounds(truth, tracked, self.frames):
            overlap = iou(truth.boxes[first:last_], tracked.boxes[start:end])
            self.per_frame.append((true_numbers[first:last_], track_numbers[start:end], overlap))


def _bounds(truth: Boxes, tracked: Boxes, frames: int) -> np.ndarray:
    """First and last row of each frame in both sets of boxes: (frames, 4)."""
    numbers = np.arange(1, frames + 2)
    true, track = truth.frames.searchsorted(numbers), tracked.frames.searchsorted(numbers)
    bounds: np.ndarray = np.stack((true[:-1], true[1:], track[:-1], track[1:]), axis=1)
    return bounds


def apply_motchallenge_rules(
    truth: Boxes, counted: np.ndarray, classes: np.ndarray, tracked: Boxes, distractors: tuple[int, ...] = DISTRACTORS
) -> tuple[Boxes, Boxes]:
    """Select the true and the tracked boxes that MOTChallenge compares.

    Tracked boxes whose best match (one to one, IoU of at least 0.5) is a distractor are left out, as are true boxes
    that are not counted or are not pedestrians. Ground truth without classes, as in 2015, only has the flag.

    Args:
        truth: all true boxes.
        counted: bool (N,), the flag of the ground truth.
        classes: int64 (N,), -1 where there are none.
        tracked: boxes of the tracker.
        distractors: classes to ignore.
    """
    if not (classes > 0).any():
        return truth.only(counted), tracked
    wanted = np.ones(len(tracked.ids), bool)
    distracting = np.isin(classes, distractors)
    last = int(truth.frames[-1]) if len(truth.frames) else 0
    for first, end, start, stop in _bounds(truth, tracked, last):
        if not distracting[first:end].any() or start == stop:
            continue
        overlap = iou(truth.boxes[first:end], tracked.boxes[start:stop])
        overlap[overlap < 0.5 - _EPSILON] = 0
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        found = (overlap[rows, columns] > _EPSILON) & distracting[first:end][rows]
        wanted[start + columns[found]] = False
    return truth.only(counted & (classes == _PEDESTRIAN)), tracked.only(wanted)
