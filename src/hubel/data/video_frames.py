"""Frames of a video file by number, for results that open their image later."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from PIL import Image

from hubel.data.image_io import read_image
from hubel.data.video_reader import VideoFrame, video_frames
from hubel.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class StillFrames:
    """The images of a folder of frames, by the frames' numbers."""

    paths: Mapping[int, Path]

    def read(self, number: int) -> Image.Image:
        """Frame ``number`` as an upright RGB image; raises :class:`ImageError` if it cannot be read any more."""
        return read_image(str(self.paths[number]))


class VideoFrames:
    """A video file whose frames are read by their numbers; usable by several threads, and pickled as its name.

    Decoding continues behind the frame that was read last: frames in their order cost one pass through the video
    altogether. For an earlier frame it starts again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = Lock()
        self._frames: Iterator[VideoFrame] | None = None
        self._last: VideoFrame | None = None

    def read(self, number: int) -> Image.Image:
        """Frame ``number``, from 1, as an upright RGB image.

        Raises:
            ImageError: the file cannot be read any more, or the frame is damaged or not in it.
        """
        with self._lock:
            if self._frames is None or self._last is None or number < self._last.number:
                self._restart()
            assert self._frames is not None
            while self._last is None or self._last.number < number:
                self._last = next(self._frames, None)
                if self._last is None:
                    self._frames = None
                    raise ImageError(f"{self.path} has no frame {number}", "predict again if the file has changed")
            if self._last.number != number:
                raise ImageError(f"{self.path}: frame {number} is damaged", "choose another frame")
            return self._last.image()

    def _restart(self) -> None:
        if isinstance(self._frames, Generator):
            self._frames.close()
        self._last = None
        self._frames = video_frames(Path(self.path), self.path, lambda _: None)

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoFrames, (self.path,)
