"""Outputs of ``hubel track``: MOTChallenge text, video, table, JSON Lines, and the counts of lines and zones."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hubel.console import count_of, log, print_json, show
from hubel.data.mot import mot_text
from hubel.errors import UsageError
from hubel.fileio import StreamingFile, atomic_write, is_special, partial_path, write_json
from hubel.inference.outputs import encodable
from hubel.inference.video_tracking import NAMELESS, FrameState, StageTimer
from hubel.results import Tracks
from hubel.timing import per_second
from hubel.tracking.trajectories import LineCounter, TrackPath, TrackTable, ZoneCounter

if TYPE_CHECKING:
    from hubel.data.video_writer import VideoWriter

Counter = LineCounter | ZoneCounter

_SHOWN = 40
_COLUMNS = ("id", "name", "first", "last", "first_time", "last_time", "frames", "length")


def parse_counters(lines: Sequence[str], zones: Sequence[str]) -> list[Counter]:
    """Parse the values of ``--line``, two different points, and ``--zone``, three or more, or raise ``UsageError``."""
    counters: list[Counter] = []
    for number, text in enumerate(lines, 1):
        name, points = _points("--line", text, f"line {number}")
        if len(points) != 2 or points[0] == points[1]:
            raise UsageError(f"--line {text} is not a line", "use X1,Y1,X2,Y2: two different points in pixels")
        counters.append(LineCounter(name, *points))
    for number, text in enumerate(zones, 1):
        name, points = _points("--zone", text, f"zone {number}")
        if len(points) < 3:
            raise UsageError(f"--zone {text} has {len(points)} corners", "use X,Y,X,Y,X,Y…: three or more, in pixels")
        counters.append(ZoneCounter(name, points))
    return counters


def _points(option: str, text: str, default: str) -> tuple[str, list[tuple[float, float]]]:
    name, equals, numbers = text.rpartition("=")
    try:
        values = [float(word) for word in numbers.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} {text}: {numbers!r} is not a list of numbers", "use X,Y,X,Y, in pixels") from error
    if len(values) % 2 or not all(abs(value) < 1e9 for value in values):
        raise UsageError(f"{option} {text}: {len(values)} values are not pairs of x and y", "use X,Y,X,Y, in pixels")
    return (name if equals else default), list(zip(values[::2], values[1::2], strict=True))


@dataclass
class TrackOutputs:
    """Writes the tracks of every frame. Use it in a ``with`` statement.

    The fields are the command's options. ``inputs`` must not be overwritten; the first one has the images.

    Raises:
        UsageError: a file cannot be written, or is an input.
    """

    mot: Path | None
    save: Path | None
    table: Path | None
    counters: Sequence[Counter]
    json: bool
    inputs: Sequence[str | Path | None]
    model: str | None
    tracker: str
    timer: StageTimer
    rate: float = 25.0

    def __post_init__(self) -> None:
        save, table = self.save, self.table
        for option, path in (("--mot", self.mot), ("--save", save), ("--table", table)):
            if path is not None:
                _refuse(option, path, self.inputs)
        if save is not None:
            from hubel.data.video_writer import video_format

            video_format(save)
            if self.inputs[0] is None:
                raise UsageError(f"--save {save} requires images", "pass the VIDEO or its FRAMES, or omit --save")
        if table is not None and table.suffix.lower() not in (".csv", ".json"):
            raise UsageError(f"--table {table}: unknown format", "use a name that ends in .csv or .json")
        self.shows_lines = self.json and sys.stdout.isatty()
        self._frames = 0
        self._paths = TrackTable()
        self._interrupted = False
        self._stack = ExitStack()
        self._text: StreamingFile | None = None
        self._video: VideoWriter | None = None

    def __enter__(self) -> Self:
        if self.mot is not None:
            self._text = self._stack.enter_context(StreamingFile(self.mot, _say_partial))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def interrupt(self) -> None:
        """Tell the files that they end early; what was written of them is kept beside older ones."""
        self._interrupted = True
        for file in (self._text, self._video):
            if file is not None:
                file.interrupted = True

    def take(self, state: FrameState, tracks: Tracks) -> None:
        """Write the tracks of the next frame."""
        self._frames += 1
        self._paths.update(state.number, state.time, tracks.ids, tracks.names, tracks.boxes)
        for counter in self.counters:
            counter.update(tracks.ids, tracks.boxes)
        if self._frames == 1 and state.image is not None:
            self._warn_of_counters_outside(tracks.width, tracks.height)
        if self._text is not None:
            self._text.write(mot_text(state.number, tracks.ids.tolist(), tracks.boxes, tracks.scores))
        if self.json:
            print_json(self._row(state, tracks))
        if self.save is not None and state.image is not None:
            with self.timer.measure("draw"):
                self._draw(state, tracks)

    def _row(self, state: FrameState, tracks: Tracks) -> dict[str, Any]:
        source = None if tracks.source is None else encodable(tracks.source)
        row: dict[str, Any] = {"source": source, "frame": state.number}
        if state.time is not None:
            row["time"] = state.time
        if state.image is not None:
            row |= {"width": tracks.width, "height": tracks.height}
        row |= {"model": self.model, "tracker": self.tracker, "task": "track", **tracks.to_json()}
        lines = [counter.to_json() for counter in self.counters if isinstance(counter, LineCounter)]
        zones = [counter.to_json() for counter in self.counters if isinstance(counter, ZoneCounter)]
        return row | ({"lines": lines} if lines else {}) | ({"zones": zones} if zones else {})

    def _draw(self, state: FrameState, tracks: Tracks) -> None:
        from hubel.drawing.tracks import Mark, TrackAnnotator

        assert self.save is not None and state.image is not None and state.time is not None
        height, width = state.image.shape[:2]
        if self._video is None:
            from hubel.data.video_writer import VideoWriter

            self._video = self._stack.enter_context(VideoWriter(self.save, width, height, self.rate, _say_partial))
            self._annotator = TrackAnnotator(names=self.model is not None)
        marks = [Mark(_corners(counter), _caption(counter)) for counter in self.counters]
        drawn = self._annotator.annotate(state.image, tracks, marks)
        if drawn.shape[:2] != self._video.size[::-1]:  # the source changed its size, a film cannot
            from PIL import Image, ImageOps

            drawn = np.asarray(ImageOps.pad(Image.fromarray(drawn), self._video.size))
        self._video.write(drawn, state.time)

    def _warn_of_counters_outside(self, width: int, height: int) -> None:
        for counter in self.counters:
            if not any(0 <= x <= width and 0 <= y <= height for x, y in _corners(counter)):
                log(f"note:  {counter.name} is outside the image, which has {width} × {height} pixels")

    def finish(self) -> None:
        """Write the table and the counts after the last frame."""
        rows = self._paths.rows()
        if self.table is not None:
            kept_beside = self._interrupted and self.table.exists()
            _write_table(partial_path(self.table) if kept_beside else self.table, rows)
            if kept_beside:
                _say_partial(partial_path(self.table))
        if self.json:
            return
        show(_table(rows))
        for counter in self.counters:
            show(f"{counter.name}: {_counts(counter)}")

    def summary(self, seconds: float) -> str:
        """A line with counts, speed, the time of each stage, and the files that were written."""
        speed = per_second(self._frames, seconds)
        counts = f"{count_of(self._frames, 'frame')}, {count_of(len(self._paths), 'track')}"
        line = f"{self.tracker}: {counts} in {seconds:.1f} s, {speed:.1f} frames/s"
        total = sum(self.timer.seconds.values())
        if total:
            parts = sorted(self.timer.seconds.items(), key=lambda item: -item[1])
            line += " (" + ", ".join(f"{name} {used / total:.0%}" for name, used in parts) + ")"
        written = [str(path) for path in (self.mot, self.save, self.table) if path is not None]
        return line + (f"; written: {', '.join(written)}" if written else "")


def _say_partial(path: Path) -> None:
    log(f"note:  {path} has what was found up to the end")


def _refuse(option: str, path: Path, inputs: Sequence[str | Path | None]) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: the folder {path.parent} does not exist", "create it, or choose another")
    written = path if is_special(path) else path.parent
    if not os.access(written, os.W_OK) or path.is_dir():
        raise UsageError(f"{option} {path} cannot be written", "choose a file in a writable folder")
    for source in inputs:
        if source is not None and Path(source).exists() and path.exists() and path.samefile(source):
            raise UsageError(f"{option} {path} is also the input", "choose another file")


def _corners(counter: Counter) -> list[tuple[float, float]]:
    return [counter.start, counter.end] if isinstance(counter, LineCounter) else list(counter.corners)


def _counts(counter: Counter) -> str:
    if isinstance(counter, LineCounter):
        return f"in {counter.into}, out {counter.out}"
    return f"inside {counter.inside}, most {counter.most}, entered {counter.entered}, tracks {counter.tracks}"


def _caption(counter: Counter) -> str:
    return f"{counter.name}: {_counts(counter) if isinstance(counter, LineCounter) else counter.inside}"


def _write_table(path: Path, rows: Sequence[TrackPath]) -> None:
    if path.suffix.lower() == ".json":
        write_json(path, [row.to_json() for row in rows])
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row.to_json() for row in rows)


def _table(rows: Sequence[TrackPath]) -> str:
    """A line per track."""
    if not rows:
        return "no tracks"
    nameless = all(row.name == NAMELESS for row in rows)
    width = max(5, *(len(row.name) for row in rows))
    head = "" if nameless else f"{'class':{width}}  "
    lines = [f"{'id':>6}  {head}{'first':>7} {'last':>7} {'frames':>7} {'length':>8}  from → to"]
    for row in rows[:_SHOWN]:
        (_, x1, y1), (_, x2, y2) = row.ends()
        name = "" if nameless else f"{row.name:{width}}  "
        path = f"{x1:.0f},{y1:.0f} → {x2:.0f},{y2:.0f}"
        lines.append(f"{row.id:>6}  {name}{row.first:>7} {row.last:>7} {row.frames:>7} {row.length:>8.0f}  {path}")
    if len(rows) > _SHOWN:
        lines.append(f"… and {len(rows) - _SHOWN} more: --table OUT.csv has all")
    return "\n".join(lines)
