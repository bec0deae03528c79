"""Numbers and times of a video's frames, and which of them are missing.

A damaged file loses frames without an error: the reader finds the next whole packet and goes on. What is left of them
is a gap in the timestamps of a video that is constant otherwise. Of a video whose rate varies, nothing can be said by
time, and its frames are counted one by one, with those that the decoder refused.
"""

from __future__ import annotations

from dataclasses import dataclass

_TOLERANCE = 0.3
"""Part of a frame period by which timestamps, often whole milliseconds, may deviate from a multiple of it."""

_SETTLED = 12
"""Number of equal intervals after which a gap tells of missing frames by itself."""
_REGULAR = 0.85
"""Least part of the intervals that are of one period in a video of a constant rate."""
_GAP = 3
"""Least number of frames whose absence tells by itself: cameras skip single ones."""
_LONGEST_GAP = 60.0
"""Seconds beyond which a gap without a sign of damage is one between two recordings that were joined."""
_NEAR = 30
"""Number of frames by which a sign of damage may come before the gap: decoders return frames late."""


@dataclass
class FrameNumbers:
    """Numbers frames from 1, by their timestamps while these are at a constant rate.

    Attributes:
        period: seconds from frame to frame by the file's header.
        counted: True if the file lists its frames, so that a gap between two is meant.
        rough: True if timestamps may be off by a frame for a while, as in MPEG program streams.
        end: seconds from the first frame to the end that the header promises; ``None`` if it does not.
        number: of the last frame; 0 before the first.
        time: of the last frame, in seconds since the first.
        longest: the longest time between two frames, in seconds.
        unplaced: number of refused frames that no gap was found for.
    """

    period: float
    counted: bool = False
    rough: bool = False
    end: float | None = None
    number: int = 0
    time: float = 0.0
    longest: float = 0.0
    unplaced: int = 0

    def __post_init__(self) -> None:
        self._first: float | None = None
        self._started = False
        self._constant = True
        self._intervals = 0
        self._single = 0  # intervals of one period
        self._skipped = 0  # frames by which timestamps are ahead, as MPEG's sometimes are for a while
        self._refused = 0
        self._last_sign = -_NEAR

    @property
    def started(self) -> bool:
        """True after the first frame."""
        return self._started

    def refuse(self) -> None:
        """Count a frame that the decoder refused; its place is known when the next one comes."""
        self._refused += 1
        self.note_damage()

    def note_damage(self) -> None:
        """Remember that there was a sign of damage here."""
        self._last_sign = self.number

    def take(self, timestamp: float | None) -> range:
        """Number the next frame, by its timestamp in seconds; returns the numbers of the frames missing before it."""
        if self._refused and self._constant and self.number - self._last_sign > _NEAR:
            self.unplaced += self._take_refused()
        before = self.number
        if not self._started:
            self._started, self._first = True, timestamp
            self.number = 1 + self._refused
            self._refused = 0
            return range(1, self.number)
        at = None if timestamp is None or self._first is None else timestamp - self._first
        interval = None if at is None else at - self.time
        missing = self._missing(interval)
        self.number = before + 1 + missing
        step = self.period * (1 + missing)
        if at is None or interval is None or interval < 0 or self._is_beyond_end(at):
            at = self.time + step  # without timestamps; or they jump, as where videos were joined
        self.longest = max(self.longest, at - self.time)
        self.time = at
        return range(before + 1, self.number)

    def _is_beyond_end(self, at: float) -> bool:
        return self.end is not None and at > self.end + 1.0 and at - self.time > 1.0

    def _missing(self, interval: float | None) -> int:
        """The number of frames missing before the next, which comes ``interval`` seconds after the last."""
        if interval is None or not self._constant:
            return self._take_refused()
        if self._intervals == 0 and interval > 0 and self._refused == 0:
            self.period = self._settled_period(interval)
        periods = interval / self.period
        whole = round(periods)
        self._intervals += 1
        if abs(periods - whole) > _TOLERANCE or whole < 0 or (whole == 0 and self._skipped == 0 and not self.rough):
            self._constant = False
            return self._take_refused()
        if whole <= 1:
            self._single += whole
            self._skipped -= whole == 0
            return 0
        if self._tells(whole - 1, interval):
            missing, self._skipped = whole - 1 + self._skipped, 0
            self._refused = max(0, self._refused - missing)
            return missing
        self._skipped += whole - 1
        return 0

    def _settled_period(self, interval: float) -> float:
        """The header's period, unless the first interval is clearly another one."""
        return self.period if abs(interval / self.period - 1) < _TOLERANCE else interval

    def _tells(self, missing: int, interval: float) -> bool:
        """True if a gap of so many frames is damage."""
        if self._refused or (self.number - self._last_sign < _NEAR and not (self.rough and missing < _GAP)):
            return True
        if self.counted or missing < _GAP or self._intervals <= _SETTLED or interval > _LONGEST_GAP:
            return False
        if self._single < _REGULAR * self._intervals:  # frames that change nothing are left out of some recordings
            return False
        return self.end is None or self.time + interval <= self.end + 1.0

    def _take_refused(self) -> int:
        refused, self._refused = self._refused, 0
        return refused

    def finish(self, last: float | None = None) -> range:
        """The numbers of frames that were refused or lost after the last one.

        ``last`` is the timestamp of the last packet: decoders that work ahead may drop its frame without a word.
        """
        first = self.number + 1
        refused = self._take_refused()
        if last is not None and self._first is not None and self._constant:
            behind = (last - self._first - self.time) / self.period
            refused = max(refused, round(behind)) if _TOLERANCE < behind - 0.5 < _NEAR else refused
        self.number += refused
        return range(first, self.number + 1)
