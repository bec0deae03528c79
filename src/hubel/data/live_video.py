"""Videos and cameras by address: RTSP, RTMP, HLS, video over HTTP.

A camera does not wait: a thread reads it, and frames that nobody has taken when newer ones come are dropped, the oldest
first. Where the connection breaks, it is made again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from hubel.data.addresses import redacted
from hubel.data.video_reader import VideoFrame, url_frames
from hubel.errors import ImageError

QUEUE_LENGTH = 8
"""Number of decoded frames that wait for the consumer of a live video."""

RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt to reach a server that was reached before; then the video ends."""

_SECONDS_TO_ANSWER = 15.0
_CHECK = "check the address, the network and the camera"


def address_frames(address: str) -> Iterator[VideoFrame]:
    """Frames of a video or a camera by its address, numbered from 1; dropped ones count.

    A video with a duration, such as a file on a web server, is read like a file: every frame, as fast as the consumer.
    Iterating raises :class:`ImageError` if the server cannot be reached, or not again.
    """
    name = redacted(address)
    first = url_frames(address, name, _SECONDS_TO_ANSWER)
    is_live, frames = next(first), first
    with closing(frames):
        if not is_live:
            yield from frames
            return
        yield from _latest(address, name, frames)


def _latest(address: str, name: str, frames: Generator[Any, None, None]) -> Iterator[VideoFrame]:
    """The newest frames of a live video, read by a thread."""
    waiting: deque[VideoFrame] = deque(maxlen=QUEUE_LENGTH)
    changed, stopped = threading.Condition(), threading.Event()
    ended: list[ImageError] = []

    def read() -> None:
        try:
            for frame in _reconnected(address, name, frames, stopped):
                if stopped.is_set():
                    return
                with changed:
                    waiting.append(frame)
                    changed.notify()
        except ImageError as error:
            ended.append(error)
        except Exception as error:  # the consumer has to hear of it
            ended.append(ImageError(f"{name} cannot be read any more: {error}", _CHECK))
        finally:
            with changed:
                ended.append(ImageError(f"{name} has ended", _CHECK))
                changed.notify()

    thread = threading.Thread(target=read, name="hubel-stream", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended)
                if not waiting:
                    raise ended[0]
                frame = waiting.popleft()
            yield frame
    finally:
        stopped.set()
        thread.join(_SECONDS_TO_ANSWER)


def _reconnected(
    address: str, name: str, frames: Generator[Any, None, None], stopped: threading.Event
) -> Iterator[VideoFrame]:
    """The frames of one connection after the other, as one video."""
    start, number, last = time.monotonic(), 0, 0.0
    attempt = 0
    reason = "the server ended it"
    while True:
        offset, elapsed = number, 0.0 if number == 0 else time.monotonic() - start
        try:
            with closing(frames):
                for frame in frames:
                    attempt = 0
                    number, last = offset + frame.number, max(last, elapsed + frame.time)
                    yield frame.at(number, last)
        except ImageError as error:
            reason = error.message.removeprefix(name).strip(" :.")
        while True:
            if attempt == len(RETRY_DELAYS) or stopped.wait(RETRY_DELAYS[attempt]):
                message = f"{name} ended after frame {number}, and cannot be reached again: {reason}"
                raise ImageError(message, _CHECK)
            attempt += 1
            try:
                frames = url_frames(address, name, _SECONDS_TO_ANSWER)
                next(frames)
                break
            except ImageError as error:
                reason = error.message.removeprefix(name).strip(" :.")
