"""Annotated copies that ``hubel predict --save`` writes: an image for an image, a video for a video."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hubel.console import count_of, printable
from hubel.inference.outputs import AnnotatedFiles, encodable
from hubel.inference.pipeline import FailedImage, ordered_parallel_map
from hubel.results import Prediction

if TYPE_CHECKING:
    from hubel.data.sources import ImageSource
    from hubel.data.video_writer import VideoWriter
    from hubel.inference.predictor import Predictor

_AHEAD = 4
Outcome = Prediction | FailedImage


class AnnotatedCopies:
    """Draws results in background threads, and writes them into a folder.

    Args:
        files: the folder.
        frames: write the frames of videos as images.
        every: step between the frames of a video that are predicted.
    """

    def __init__(self, files: AnnotatedFiles, frames: bool, every: int) -> None:
        self._files, self._frames, self._every = files, frames, every
        self._video: VideoWriter | None = None
        self._of: str | None = None  # the source that the open video is of
        self._written = 0
        self._last: Path | None = None

    def outcomes(self, predictor: Predictor, images: Iterable[ImageSource]) -> Generator[Outcome, None, None]:
        """The predictor's outcomes, each after its annotated copy has been written."""
        taken: deque[ImageSource] = deque()

        def remembered() -> Iterator[ImageSource]:
            for image in images:
                taken.append(image)
                yield image

        def jobs() -> Iterator[tuple[Outcome, ImageSource, Path | None]]:
            for outcome in predictor.stream_sources(remembered()):
                as_file = not isinstance(outcome, FailedImage) and (outcome.frame is None or self._frames)
                path = self._files.path_for(outcome) if as_file else None  # type: ignore[arg-type]
                yield outcome, taken.popleft(), path

        whole = False
        try:
            with closing(ordered_parallel_map(self._draw, jobs(), _AHEAD)) as drawn:
                for outcome, pixels in drawn:
                    if pixels is not None:
                        self._append(outcome, pixels)
                    yield outcome
            whole = True
        finally:
            self._close(whole)

    def _draw(self, job: tuple[Outcome, ImageSource, Path | None]) -> tuple[Outcome, np.ndarray | None]:
        """Write the copy of an image; of a frame return the annotated pixels, for the video."""
        outcome, image, path = job
        if isinstance(outcome, FailedImage):
            return outcome, None
        if path is None:
            return outcome, np.asarray(outcome.draw(image.read()))
        saved = self._files.save(path, image, outcome)
        self._count(path)
        return saved, None

    def _append(self, outcome: Outcome, pixels: np.ndarray) -> None:
        """Append a frame to the video of its source; where another source begins, or the size changes, to a new one."""
        height, width = pixels.shape[:2]
        if self._video is None or self._of != outcome.source or self._video.size != (width, height):
            self._close()
            self._open(outcome.source, width, height)
        assert self._video is not None and outcome.time is not None
        self._video.write(pixels, outcome.time)

    def _open(self, source: str | None, width: int, height: int) -> None:
        from hubel.data.video_reader import video_length
        from hubel.data.video_writer import VideoWriter
        from hubel.errors import ImageError

        rate = 25.0
        if source is not None and Path(source).is_file():
            with suppress(ImageError):  # frames have times: the rate is for the duration of the last one
                rate = video_length(Path(source), source)[1]
        path = self._files.video_path_for(source)
        self._video, self._of = VideoWriter(path, width, height, rate / self._every), source
        self._video.__enter__()
        self._count(path)

    def _close(self, whole: bool = True) -> None:
        """End the open video; the copy of a file that was not read to its end does not get the name of a whole one."""
        video, self._video = self._video, None
        if video is not None:
            video.interrupted = not whole and self._of is not None and Path(self._of).is_file()
            video.__exit__(None, None, None)

    def _count(self, path: Path) -> None:
        self._written, self._last = self._written + 1, path

    def describe(self) -> str:
        """``saved as out/a.jpg``, ``120 files saved in out``."""
        if self._written == 1:
            return f"saved as {printable(encodable(str(self._last)))}"
        return f"{count_of(self._written, 'file')} saved in {printable(encodable(str(self._files.folder)))}"
