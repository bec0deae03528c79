"""Frames of video files and webcams, one at a time, upright."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from hubel.data.decoding import open_file
from hubel.errors import ImageError

if TYPE_CHECKING:
    import av

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("vfwcap", "{}")}
_TURNS = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame, not yet turned into RGB.

    Attributes:
        number: position in the video, from 1.
        time: seconds since the first frame.
    """

    number: int
    time: float
    _decoded: av.VideoFrame

    def image(self) -> Image.Image:
        """The frame as an image of mode RGB, turned as the video's metadata say; any thread may call it."""
        image = Image.fromarray(self._decoded.to_ndarray(format="rgb24"))
        # The angle is anticlockwise, like Pillow's turns; cameras write multiples of 90 degrees.
        turn = _TURNS.get(round(getattr(self._decoded, "rotation", 0) / 90) % 4)
        return image.transpose(turn) if turn is not None else image


def video_frames(path: Path, name: str) -> Iterator[VideoFrame]:
    """Decode a video file; a few frames are in memory, however long it is.

    Args:
        path: the file.
        name: what errors call it.

    Raises:
        ImageError: while iterating: the file is not there, is no video, has no pictures, or is damaged.
    """
    with open_file(path, name):
        pass  # only for its errors: FFmpeg reads faster by itself
    # The prefix keeps FFmpeg from taking a colon in the name for a protocol; the list keeps a playlist in
    # disguise from reaching into the network.
    location, options = f"file:{path}", {"protocol_whitelist": "file"}
    remedy = "Convert it to MP4 (H.264), or leave it out."
    yield from _frames(location, None, options, f"{name} is not a video that can be read", name, remedy)


def camera_frames(number: int) -> Iterator[VideoFrame]:
    """Frames of a webcam, without end.

    Args:
        number: of the camera, from 0.

    Raises:
        ImageError: while iterating: the camera cannot be opened, or it stops.
    """
    kind, pattern = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    name = f"webcam {number}"
    remedy = "Connect it, close other programs that use it, or try another number."
    yield from _frames(pattern.format(number), kind, {}, f"{name} cannot be opened", name, remedy)


def _frames(
    location: str, kind: str | None, options: dict[str, str], unreadable: str, name: str, remedy: str
) -> Iterator[VideoFrame]:
    import av

    try:
        container = av.open(location, format=kind, options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"{unreadable}: {_reason(error)}.", remedy) from error
    with container:
        if not container.streams.video:
            raise ImageError(f"{name} has no pictures, only sound or text.", "Leave it out.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        number, start = 0, None
        decoded = container.decode(stream)
        while True:
            try:
                frame = next(decoded, None)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                fault = f"{name} is damaged after frame {number}: {_reason(error)}."
                raise ImageError(fault, "Copy or record it again, or leave it out.") from error
            if frame is None:
                break
            number += 1
            if start is None:
                start = frame.time
            yield VideoFrame(number, _seconds(frame, start, number, stream.average_rate), frame)
        if number == 0:
            raise ImageError(f"{name} has no frames.", "Copy or record it again, or leave it out.")


def _seconds(frame: av.VideoFrame, start: float | None, number: int, rate: Any) -> float:
    """Seconds since the first frame, by the frame's stamp, or by the frame rate where there is none."""
    if frame.time is not None and start is not None:
        return float(frame.time - start)
    return (number - 1) / float(rate or 25)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
