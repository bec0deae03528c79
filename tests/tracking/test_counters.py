"""Counting at lines and in zones: against supervision on walks, and by hand where the two differ."""

from __future__ import annotations

import numpy as np
import pytest
import supervision

from hubel.tracking.trajectories import LineCounter, TrackTable, ZoneCounter


def box(x: float, y: float) -> np.ndarray:
    """A box whose feet are there."""
    return np.array([[x - 10, y - 40, x + 10, y]], float)


def count(counter: LineCounter | ZoneCounter, way: list[tuple[float, float]], id_: int = 1) -> None:
    for x, y in way:
        counter.update(np.array([id_]), box(x, y))


def test_lines_count_as_supervisions() -> None:
    """Long straight walks in all directions; supervision decides by the feet, too."""
    rng = np.random.default_rng(0)
    start, end = (80.0, 300.0), (520.0, 180.0)
    ours = LineCounter("gate", start, end)
    theirs = supervision.LineZone(
        supervision.Point(*start), supervision.Point(*end), [supervision.Position.BOTTOM_CENTER]
    )
    for id_ in range(1, 60):
        begin, finish = rng.uniform([150, 60], [450, 120]), rng.uniform([150, 380], [450, 440])
        if rng.random() < 0.5:
            begin, finish = finish, begin
        for share in np.linspace(0, 1, 25):
            boxes = box(*(begin + share * (finish - begin)))
            ours.update(np.array([id_]), boxes)
            theirs.trigger(supervision.Detections(boxes, tracker_id=np.array([id_]), class_id=np.array([0])))
    assert (ours.into, ours.out) == (theirs.in_count, theirs.out_count)
    assert ours.into + ours.out == 59


def test_who_trembles_on_the_line_counts_once() -> None:
    counter = LineCounter("gate", (0, 100), (200, 100))
    count(counter, [(100, y) for y in (80, 99, 101, 99.5, 100.5, 99, 101, 120)])
    assert counter.to_json() == {"name": "gate", "in": 0, "out": 1}
    count(counter, [(100, y) for y in (101, 99, 100.5, 80)])
    assert counter.to_json() == {"name": "gate", "in": 1, "out": 1}


def test_who_walks_past_the_end_does_not_count() -> None:
    counter = LineCounter("gate", (0, 100), (200, 100))
    count(counter, [(210, y) for y in range(60, 150, 10)])
    count(counter, [(50, 60), (150, 140)], id_=2)  # the way between two frames crosses it
    assert (counter.into, counter.out) == (0, 1)


def test_a_line_forgets_who_is_gone() -> None:
    counter = LineCounter("gate", (0, 100), (200, 100))
    for id_ in range(1, 5001):
        counter.update(np.array([id_]), box(50, 50))
    assert len(counter._last) <= 2000


def test_zones_contain_what_supervisions_do() -> None:
    corners = [(100, 80), (420, 60), (380, 300), (250, 180), (120, 320)]
    ours = ZoneCounter("yard", corners)
    theirs = supervision.PolygonZone(np.array(corners), [supervision.Position.BOTTOM_CENTER])
    rng = np.random.default_rng(1)
    feet = rng.uniform([60, 100], [460, 340], (500, 2)).round()
    boxes = np.concatenate([box(x, y) for x, y in feet])
    inside = ours.contains(feet[:, 0], feet[:, 1])
    found = theirs.trigger(supervision.Detections(boxes))
    # supervision draws its polygon in whole pixels: at the very border the two may differ.
    assert (inside != found).mean() < 0.02
    assert 0.2 < inside.mean() < 0.8


def test_zones_count_visits_and_people() -> None:
    zone = ZoneCounter("yard", [(0, 0), (100, 0), (100, 100), (0, 100)])
    zone.update(np.array([1, 2]), np.concatenate((box(50, 50), box(150, 50))))
    zone.update(np.array([1, 2]), np.concatenate((box(50, 50), box(60, 50))))
    zone.update(np.array([2]), box(150, 50))
    zone.update(np.array([1, 2]), np.concatenate((box(50, 60), box(90, 90))))  # 1 was unseen, not away
    assert zone.to_json() == {"name": "yard", "inside": 2, "most": 2, "entered": 3, "tracks": 2}


def test_nobody_is_nowhere() -> None:
    zone, line = ZoneCounter("yard", [(0, 0), (9, 0), (9, 9)]), LineCounter("gate", (0, 0), (9, 0))
    for counter in (zone, line):
        counter.update(np.empty(0, np.int64), np.empty((0, 4)))
    assert zone.inside == line.into == line.out == 0


def test_a_path_is_as_long_as_the_way_and_takes_little_memory() -> None:
    """Two thousand steps of three and four pixels."""
    table = TrackTable()
    for frame in range(1, 2001):
        table.update(frame, frame / 10, np.array([7]), ("car",), box(3 * frame, 4 * frame))
    (path,) = table.rows()
    row = path.to_json()
    assert (row["id"], row["name"], row["first"], row["last"], row["frames"]) == (7, "car", 1, 2000, 2000)
    assert (row["first_time"], row["last_time"]) == (0.1, 200.0)
    assert row["length"] == pytest.approx(5 * 1999)
    assert row["path"][0] == [1, 3.0, 4.0] and row["path"][-1] == [2000, 6000.0, 8000.0]
    assert 30 <= len(row["path"]) <= 65
    assert all(x == 3 * frame and y == 4 * frame for frame, x, y in row["path"])
