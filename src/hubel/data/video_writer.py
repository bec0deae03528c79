"""Video files written frame by frame, each frame at its own time, playable however the writing ends."""

from __future__ import annotations

import errno
import queue
import threading
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hubel.errors import DataError, HubelError, UsageError
from hubel.fileio import rename_into_place, temporary_beside


@dataclass(frozen=True)
class Encoder:
    """One encoder of FFmpeg and how it is set.

    Attributes:
        name: FFmpeg's.
        options: its own, quality first; chosen so that two cores keep up with a camera.
        quantizer: constant quantizer 1..31 for the encoders that know no other constant quality; 0: they do.
    """

    name: str
    options: dict[str, str] = field(default_factory=dict)
    quantizer: int = 0


@dataclass(frozen=True)
class VideoFormat:
    """A kind of file.

    Attributes:
        container: FFmpeg's name.
        encoders: the first that is there is taken.
        fragmented: written in pieces that each stand for themselves, and put together at the end.
        constant_rate: the file has no times of its own: frame n is shown n periods after the first.
    """

    container: str
    encoders: tuple[Encoder, ...]
    fragmented: bool = False
    constant_rate: bool = False


_MPEG4 = Encoder("mpeg4", quantizer=4)
_H264 = (
    # x264's own "veryfast" is two thirds of the speed of "superfast" here, at three quarters of the size.
    Encoder("libx264", {"crf": "23", "preset": "veryfast"}),
    Encoder("libopenh264", {"rc_mode": "quality"}),
    _MPEG4,
)
_VP9 = (
    Encoder("libvpx-vp9", {"crf": "34", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"}),
    Encoder("libvpx", {"crf": "12", "b": "4M", "deadline": "realtime", "cpu-used": "8"}),
)
VIDEO_FORMATS = {
    ".mp4": VideoFormat("mp4", _H264, fragmented=True),
    ".m4v": VideoFormat("mp4", _H264, fragmented=True),
    ".mov": VideoFormat("mov", _H264, fragmented=True),
    ".mkv": VideoFormat("matroska", _H264),
    ".webm": VideoFormat("webm", _VP9),
    ".avi": VideoFormat("avi", (_MPEG4,), constant_rate=True),
}
"""By suffix. MP4 with H.264 is what every browser plays; AVI is there for old programs."""


def video_format(path: Path) -> VideoFormat:
    """What the suffix of ``path`` stands for.

    Raises:
        UsageError: no format that is written.
    """
    try:
        return VIDEO_FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(VIDEO_FORMATS)
        raise UsageError(f"{path}: no video is written as {path.suffix or 'a file without suffix'!r}", known) from None


def available_encoder(wanted: VideoFormat) -> Encoder:
    """The first of the format's encoders that the installed FFmpeg has.

    Raises:
        HubelError: it has none.
    """
    import av

    for encoder in wanted.encoders:
        if encoder.name in av.codecs_available:
            return encoder
    names = ", ".join(encoder.name for encoder in wanted.encoders)
    raise HubelError(f"The installed FFmpeg has no encoder for {wanted.container} ({names}).", "pip install -U av")


_TICKS = 90_000  # a second: whole numbers of them last the frames of 24, 25, 30, 50, 60 and 30,000/1,001 a second
_WAITING = 4  # frames: enough that neither side waits for the other's hiccups
_SECONDS_A_FRAGMENT = 2


class VideoWriter:
    """Writes RGB frames into a video file. Use it in a ``with`` statement.

    - The suffix decides on the kind (:data:`hubel.data.video_writer.VIDEO_FORMATS`). MP4 is H.264 in 4:2:0 with its
      index in front, which every browser plays while it loads.
    - Frames keep their times, so a variable frame rate stays one (AVI alone knows no times).
    - Encoding has a thread of its own: ``write`` returns at once, unless four frames are waiting.
    - The file is written beside its place, as ``NAME.partial-….mp4``, and renamed when the ``with`` block ends. If it
      ends by Ctrl-C or another error, the frames so far become the file, whole and playable. If the process is killed
      or the power fails, the partial file plays up to its last two seconds: an MP4 is first written in fragments.
    - Sides of odd length, which 4:2:0 cannot have, get one more pixel that repeats the last.

    Args:
        path: where to; the folder exists. An older file stays as it is until the first frame of the new one is safe.
        width: of the frames in pixels.
        height: of the frames in pixels.
        rate: frames a second, or about so many: for the last frame's duration and the distance of key frames.

    Raises:
        UsageError: the suffix is none that is written.
        DataError: the folder cannot be written.
    """

    def __init__(self, path: str | Path, width: int, height: int, rate: float | Fraction = 25) -> None:
        self.path = Path(path)
        self._format = video_format(self.path)
        self._encoder = available_encoder(self._format)
        self.size = (width, height)
        self._rate = Fraction(rate).limit_denominator(1001) or Fraction(25)
        self._frames: queue.Queue[tuple[np.ndarray, float] | None] = queue.Queue(_WAITING)
        self._fault: Exception | None = None
        self._time_base = 1 / self._rate if self._format.constant_rate else Fraction(1, _TICKS)
        self._last_tick = -1
        self._written = 0
        self._thread = threading.Thread(target=self._work, name=f"writes {self.path.name}", daemon=True)
        self._partial = self._beside()

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder: ``libx264`` where the installed FFmpeg has it."""
        return self._encoder.name

    def write(self, frame: np.ndarray, time: float) -> None:
        """Append a frame.

        Args:
            frame: RGB uint8 (height, width, 3); the writer keeps it, so it may not be changed afterwards.
            time: seconds since the first frame. One that is not after its predecessor's is put right behind it.

        Raises:
            DataError: an earlier frame could not be written: the disk is full, say.
        """
        if frame.shape != (self.size[1], self.size[0], 3) or frame.dtype != np.uint8:
            raise ValueError(f"frames are uint8 ({self.size[1]}, {self.size[0]}, 3), not {frame.dtype} {frame.shape}")
        if self._fault is not None:
            raise self._described(self._fault) from self._fault
        self._frames.put((frame, time))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # Signals reach the main thread alone: the encoder's thread is never interrupted between a frame's parts.
        self._frames.put(None)
        self._thread.join()
        if self._written == 0:
            self._partial.unlink(missing_ok=True)
        else:
            self._put_in_place()
        if self._fault is not None and error is None:
            raise self._described(self._fault) from self._fault

    def _beside(self) -> Path:
        try:
            return temporary_beside(self.path, f"{self.path.stem}.partial-", self.path.suffix)
        except OSError as error:
            raise self._described(error) from error

    def _put_in_place(self) -> None:
        try:
            if self._format.fragmented and self._fault is None:
                self._join_fragments()
            rename_into_place(self._partial, self.path)
        except OSError as error:
            self._fault = self._fault or error

    def _join_fragments(self) -> None:
        """Replace the partial file by one with a single index in front; without the space for it, leave it as it is."""
        import av

        joined = self._partial.with_name(f"{self._partial.stem}-joined{self._partial.suffix}")
        options = {"movflags": "faststart"}
        try:
            with (
                av.open(f"file:{self._partial}") as source,
                av.open(f"file:{joined}", "w", format=self._format.container, options=options) as target,
            ):
                stream = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        packet.stream = stream
                        target.mux(packet)
            joined.replace(self._partial)
        except (av.error.FFmpegError, OSError):
            joined.unlink(missing_ok=True)  # the fragments play as they are
        except BaseException:
            joined.unlink(missing_ok=True)
            raise

    def _work(self) -> None:
        """The encoder's thread: everything that is done to the partial file."""
        try:
            self._encode_all()
        except Exception as error:  # handed to whoever writes next, or to the end
            self._fault = error
            while self._frames.get() is not None:
                pass

    def _encode_all(self) -> None:
        import av

        # Fragments, whose index comes first: what is in the file plays, even if nothing follows.
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if self._format.fragmented else {}
        with av.open(f"file:{self._partial}", "w", format=self._format.container, options=options) as container:
            stream = self._stream(container)
            while (item := self._frames.get()) is not None:
                container.mux(stream.encode(self._converted(*item)))
                self._written += 1
            container.mux(stream.encode(None))

    def _stream(self, container: Any) -> Any:
        stream = container.add_stream(self._encoder.name, rate=self._rate, options=dict(self._encoder.options))
        stream.width, stream.height = (side + side % 2 for side in self.size)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.gop_size = max(1, round(_SECONDS_A_FRAGMENT * self._rate))
        context.thread_count = 0
        context.time_base = self._time_base
        if self._encoder.quantizer:
            context.qscale = True
            context.global_quality = 118 * self._encoder.quantizer  # FF_QP2LAMBDA
        return stream

    def _converted(self, pixels: np.ndarray, time: float) -> Any:
        """A frame as the encoder wants it, after the one before."""
        import av

        odd = [(0, side % 2) for side in pixels.shape[:2]]
        if any(after for _, after in odd):
            pixels = np.pad(pixels, [*odd, (0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
        tick = self._last_tick + 1 if self._format.constant_rate else round(time * _TICKS)
        frame.pts = self._last_tick = max(tick, self._last_tick + 1)
        frame.time_base = self._time_base
        return frame

    def _described(self, error: Exception) -> DataError:
        """A fault in a sentence, with the way out."""
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
        hint = "Free some space, or name another place." if full else "Name another folder, or another suffix."
        return DataError(f"{self.path} cannot be written: {reason}.", hint)
