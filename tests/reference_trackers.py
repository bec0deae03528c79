"""The papers' trackers as plain loops over tracks with filterpy's filters and SciPy's assignment on whole matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from filterpy.kalman import KalmanFilter as MatrixFilter
from scipy.optimize import linear_sum_assignment

from filterpy_motion import correct, deepsort_matrices, predict, sort_matrices

Reported = list[tuple[int, int, np.ndarray]]
"""Of one frame: a number for the track, which detection, the box."""


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def area_and_aspect(box: np.ndarray) -> np.ndarray:
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width * height, width / height])


def aspect_and_height(box: np.ndarray) -> np.ndarray:
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width / height, height])


def sort_box(matrix: MatrixFilter) -> np.ndarray:
    x, y, area, aspect = matrix.x[:4, 0]
    width = np.sqrt(area * aspect)
    return np.array([x - width / 2, y - area / width / 2, x + width / 2, y + area / width / 2])


def height_box(matrix: MatrixFilter) -> np.ndarray:
    x, y, aspect, height = matrix.x[:4, 0]
    return np.array([x - aspect * height / 2, y - height / 2, x + aspect * height / 2, y + height / 2])


@dataclass
class Track:
    number: int
    matrix: MatrixFilter
    hits: int = 1
    streak: int = 0
    missed: int = 0
    confirmed: bool = False
    began: int = 0
    seen: list[np.ndarray] = field(default_factory=list)


def pairs(cost: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(*(part.tolist() for part in linear_sum_assignment(cost)), strict=True))


def sort(frames: list[np.ndarray], max_age: int = 1, min_hits: int = 3, least: float = 0.3) -> Iterator[Reported]:
    tracks: list[Track] = []
    count = 0
    for number, boxes in enumerate(frames, 1):
        for track in tracks:
            predict("sort", track.matrix)
            track.streak = 0 if track.missed else track.streak
            track.missed += 1
        overlap = np.array([[iou(sort_box(t.matrix), box) for box in boxes] for t in tracks]).reshape(
            len(tracks), len(boxes)
        )
        matches = {d: t for t, d in pairs(-overlap) if overlap[t, d] >= least}
        reported: Reported = []
        for place, box in enumerate(boxes):
            if place in matches:
                track = tracks[matches[place]]
                correct("sort", track.matrix, area_and_aspect(box))
                track.missed, track.streak = 0, track.streak + 1
            else:
                count += 1
                track = Track(count, sort_matrices(area_and_aspect(box)))
                tracks.append(track)
            if track.streak >= min_hits or number <= min_hits:
                reported.append((track.number, place, sort_box(track.matrix)))
        tracks = [track for track in tracks if track.missed <= max_age]
        yield reported


def deepsort(frames: list[np.ndarray], features: list[np.ndarray], nearest_only: bool) -> Iterator[Reported]:
    """Listing 1 and section 2 of the paper, with its parameters; and with the rule that is not in it, if wanted."""
    tracks: list[Track] = []
    count = 0
    for boxes, vectors in zip(frames, features, strict=True):
        for track in tracks:
            predict("deepsort", track.matrix)
            track.missed += 1
        free, matches = list(range(len(boxes))), {}
        may_have = [t for t in tracks if t.confirmed and t.missed <= 30]
        nearest = [
            min((cascade_cost(t, b, v) for t in may_have), default=9) for b, v in zip(boxes, vectors, strict=True)
        ]
        for age in range(1, 31):
            group = [t for t in tracks if t.confirmed and t.missed == age]
            cost = np.array([[cascade_cost(t, boxes[d], vectors[d]) for d in free] for t in group])
            cost = cost.reshape(len(group), len(free))
            if nearest_only:
                cost = np.where(cost > np.array([nearest[d] for d in free]), 0.2 + 1e-5, cost)
            for row, column in pairs(cost):
                if cost[row, column] <= 0.2:
                    matches[free[column]] = group[row]
            free = [d for d in free if d not in matches]
        taken = {id(track) for track in matches.values()}
        group = [t for t in tracks if id(t) not in taken and (not t.confirmed or t.missed == 1)]
        cost = np.array([[1 - iou(height_box(t.matrix), boxes[d]) for d in free] for t in group])
        cost = np.where(cost > 0.7, 0.7 + 1e-5, cost).reshape(len(group), len(free))
        for row, column in pairs(cost):
            if cost[row, column] <= 0.7:
                matches[free[column]] = group[row]
        reported: Reported = []
        for place, box in enumerate(boxes):
            if place in matches:
                track = matches[place]
                correct("deepsort", track.matrix, aspect_and_height(box))
                track.missed, track.hits = 0, track.hits + 1
            else:
                count += 1
                track = Track(count, deepsort_matrices(aspect_and_height(box)))
                tracks.append(track)
            track.confirmed |= track.hits >= 3
            track.seen = [*track.seen, vectors[place]][-100:]
            if track.confirmed:
                reported.append((track.number, place, height_box(track.matrix)))
        tracks = [t for t in tracks if t.missed <= 30 and (t.confirmed or t.missed == 0)]
        yield reported


def cascade_cost(track: Track, box: np.ndarray, vector: np.ndarray) -> float:
    height = track.matrix.x[3, 0]
    spread = track.matrix.P[:4, :4] + np.diag([height / 20, height / 20, 0.1, height / 20]) ** 2
    apart = aspect_and_height(box) - track.matrix.x[:4, 0]
    distance = min(1 - float(vector @ kept) for kept in track.seen)
    closed = apart @ np.linalg.inv(spread) @ apart > 9.487729036781154 or distance > 0.2
    return 0.2 + 1e-5 if closed else distance


def bytetrack(frames: list[np.ndarray], scores: list[np.ndarray]) -> Iterator[Reported]:
    """Algorithm 1, with the parameters of section 4.1 and the birth and lost rules of the published code."""
    tracks: list[Track] = []
    count = 0
    for number, (boxes, sure) in enumerate(zip(frames, scores, strict=True), 1):
        for track in tracks:
            if track.missed:
                track.matrix.x[7, 0] = 0
            predict("deepsort", track.matrix)
            track.missed += 1
        high = [d for d in range(len(boxes)) if sure[d] >= 0.6]
        low = [d for d in range(len(boxes)) if 0.1 < sure[d] < 0.6]
        matches: dict[int, Track] = {}

        def associate(group: list[Track], candidates: list[int], limit: float, fuse: bool) -> None:
            taken = {id(track) for track in matches.values()}  # noqa: B023
            group = [t for t in group if id(t) not in taken]
            candidates = [d for d in candidates if d not in matches]  # noqa: B023
            cost = np.full((len(group) + len(candidates),) * 2, limit / 2)
            cost[len(group) :, len(candidates) :] = 0  # each may stay alone, for half the limit
            for row, track in enumerate(group):
                for column, d in enumerate(candidates):
                    weight = sure[d] if fuse else 1.0  # noqa: B023
                    cost[row, column] = 1 - iou(height_box(track.matrix), boxes[d]) * weight  # noqa: B023
            for row, column in pairs(cost):
                if row < len(group) and column < len(candidates):
                    matches[candidates[column]] = group[row]  # noqa: B023

        associate([t for t in tracks if t.confirmed], high, 0.8, True)
        associate([t for t in tracks if t.confirmed and t.missed == 1], low, 0.5, False)
        associate([t for t in tracks if not t.confirmed], high, 0.7, True)
        reported: Reported = []
        for place, box in enumerate(boxes):
            track = matches.get(place)
            if track is not None:
                correct("deepsort", track.matrix, aspect_and_height(box))
                track.missed, track.confirmed = 0, True
            elif sure[place] >= 0.7:
                count += 1
                track = Track(count, deepsort_matrices(aspect_and_height(box)), confirmed=number == 1, began=number)
                tracks.append(track)
            if track is not None and track.confirmed:
                reported.append((track.number, place, box))
        tracks = [t for t in tracks if t.missed <= 30 and (t.confirmed or t.missed == 0)]
        tracks, gone = without_doubles(tracks, number)
        yield [row for row in reported if row[0] not in gone]


def without_doubles(tracks: list[Track], number: int) -> tuple[list[Track], set[int]]:
    gone = set()
    for seen in (t for t in tracks if t.confirmed and not t.missed):
        for lost in (t for t in tracks if t.missed):
            if iou(height_box(seen.matrix), height_box(lost.matrix)) > 0.85:
                longer = number - seen.began > number - lost.missed - lost.began
                gone.add((lost if longer else seen).number)
    return [t for t in tracks if t.number not in gone], gone
