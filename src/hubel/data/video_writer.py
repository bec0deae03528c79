"""Write video files frame by frame, with timestamps; the file is playable even if writing is interrupted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hubel.errors import DataError, HubelError, UsageError
from hubel.fileio import NO_SPACE, keep_partial, rename_into_place, temporary_beside


@dataclass(frozen=True)
class Encoder:
    """An encoder of FFmpeg and its settings, with which two cores keep up with a camera.

    ``quantizer`` is a constant one, 1..31, for encoders without another constant quality; 0: not used.
    """

    name: str
    options: dict[str, str] = field(default_factory=dict)
    quantizer: int = 0


@dataclass(frozen=True)
class VideoFormat:
    """A file format; the first available encoder is used.

    Attributes:
        fragmented: written in fragments that are playable on their own, and joined at the end.
        constant_rate: without timestamps: frame n is shown n periods after the first.
    """

    container: str
    encoders: tuple[Encoder, ...]
    fragmented: bool = False
    constant_rate: bool = False


_MPEG4 = Encoder("mpeg4", quantizer=4)
_H264 = (
    # x264's "veryfast" has two thirds of the speed of "superfast", and three quarters of the size.
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
"""By suffix. Every browser plays MP4 with H.264; AVI is for old programs."""


def video_format(path: Path) -> VideoFormat:
    """The format of a suffix; raises :class:`UsageError` if it is not supported."""
    if path.suffix.lower() not in VIDEO_FORMATS:
        message = f"{path}: {path.suffix or 'no suffix'!r} is not a supported video format"
        raise UsageError(message, f"use {', '.join(VIDEO_FORMATS)}")
    return VIDEO_FORMATS[path.suffix.lower()]


def _available_encoder(kind: VideoFormat) -> Encoder:
    import av

    for encoder in kind.encoders:
        if encoder.name in av.codecs_available:
            return encoder
    names = ", ".join(encoder.name for encoder in kind.encoders)
    raise HubelError(f"the installed FFmpeg has no encoder for {kind.container} ({names})", "pip install -U av")


_TICKS = 90_000  # per second: a multiple of 24, 25, 30, 50, 60 and 30,000/1,001 frames per second
_QUEUE_LENGTH = 4  # frames
_FRAGMENT_SECONDS = 2


class _OutputFile:
    """A file that FFmpeg writes to, which keeps the error of a failed write: FFmpeg itself forgets a full disk."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.fault: OSError | None = None
        self._file = path.open("wb", buffering=0)
        self.seek, self.tell, self.seekable = self._file.seek, self._file.tell, self._file.seekable

    def write(self, data: bytes) -> int:
        """Write all of the data."""
        try:
            written = 0
            while written < len(data):
                written += self._file.write(memoryview(data)[written:]) or 0
        except OSError as error:
            self.fault = error
            raise
        return written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self.fault is not None:
            raise self.fault


class VideoWriter:
    """Writes RGB frames into a video file. Use it in a ``with`` statement.

    - The suffix determines the format (:data:`hubel.data.video_writer.VIDEO_FORMATS`). MP4 is H.264 in 4:2:0 with its
      index first, so that browsers can play it while loading.
    - Frames keep their times, so the frame rate may vary (except in AVI, which has no timestamps).
    - Frames are encoded in a thread: ``write`` returns at once, unless four frames are queued.
    - The file is written as ``NAME.partial-….mp4`` and renamed when the ``with`` block ends. If it ends by an interrupt
      (see :attr:`interrupted`) or an error, the frames so far are kept, playable, as in
      :func:`~hubel.fileio.keep_partial`, and ``on_partial`` is called with the path; not if the file itself could not
      be written. If the process is killed, the partial file is playable except for its last two seconds, as an MP4 is
      first written in fragments.
    - Odd widths and heights, which 4:2:0 does not allow, are padded by repeating the last pixel.

    The folder of ``path`` exists; an older file is replaced at the end. ``rate``, the approximate number of frames per
    second, is for the duration of the last frame and the key frame interval. Raises :class:`UsageError` if the format
    is not supported, :class:`HubelError` if the installed FFmpeg has none of its encoders, and :class:`DataError` if
    the folder cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        rate: float | Fraction = 25,
        on_partial: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self.path = Path(path)
        self._format = video_format(self.path)
        self._encoder = _available_encoder(self._format)
        self.size = (width, height)
        self._rate = Fraction(rate).limit_denominator(1001) or Fraction(25)
        self.interrupted = False
        self._on_partial = on_partial
        self._frames: queue.Queue[tuple[np.ndarray, float] | None] = queue.Queue(_QUEUE_LENGTH)
        self._fault: Exception | None = None
        self._time_base = 1 / self._rate if self._format.constant_rate else Fraction(1, _TICKS)
        self._last_tick = -1
        self._written = 0
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=f"writes {self.path.name}", daemon=True)
        try:
            self._partial = temporary_beside(self.path, f"{self.path.stem}.partial-", self.path.suffix)
        except OSError as error:
            raise self._error(error) from error

    def write(self, frame: np.ndarray, time: float) -> None:
        """Append a frame, RGB uint8 (height, width, 3), which must not be modified afterwards.

        ``time`` is in seconds since the first frame; it is corrected if it is not after that of the previous frame.
        Raises :class:`DataError` if an earlier frame could not be written, for instance because the disk is full.
        """
        if frame.shape != (self.size[1], self.size[0], 3) or frame.dtype != np.uint8:
            raise ValueError(f"frames are uint8 ({self.size[1]}, {self.size[0]}, 3), not {frame.dtype} {frame.shape}")
        if self._fault is not None:
            raise self._error(self._fault) from self._fault
        self._frames.put((frame, time))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # Signals only reach the main thread, so encoding is never interrupted within a frame.
        self._frames.put(None)
        self._thread.join()
        try:
            if self._fault is None and self._written:
                self._place(kind)
        except OSError as failed:
            self._fault = failed
        finally:
            self._partial.unlink(missing_ok=True)
        if self._fault is not None and error is None:
            raise self._error(self._fault) from self._fault

    def _place(self, kind: type[BaseException] | None) -> None:
        if self._format.fragmented:
            self._join_fragments()
        if kind is None and not self.interrupted:
            rename_into_place(self._partial, self.path)
        else:
            interrupted = self.interrupted or (kind is not None and issubclass(kind, KeyboardInterrupt))
            self._on_partial(keep_partial(self._partial, self.path, interrupted))

    def _join_fragments(self) -> None:
        """Replace the partial file by one with a single index at the start, if there is space for both."""
        import av

        joined = self._partial.with_name(f"{self._partial.stem}-joined{self._partial.suffix}")
        options = {"movflags": "faststart"}
        try:
            with (
                _OutputFile(joined) as file,
                av.open(f"file:{self._partial}") as source,
                av.open(file, "w", format=self._format.container, options=options) as target,
            ):
                stream = target.add_stream_from_template(source.streams.video[0])
                # Fragments cannot say that decoding begins before the first frame is shown; an index can.
                start = source.streams.video[0].start_time or 0
                for packet in source.demux(video=0):
                    if packet.dts is not None and packet.pts is not None:
                        packet.dts, packet.pts = packet.dts - start, packet.pts - start
                        packet.stream = stream
                        target.mux(packet)
            joined.replace(self._partial)
        except (av.error.FFmpegError, OSError):
            pass  # the fragments are playable
        finally:
            joined.unlink(missing_ok=True)

    def _work(self) -> None:
        """Target of the encoder's thread, which alone accesses the partial file."""
        try:
            self._encode_all()
        except Exception as error:  # raised by the next write() or at the end
            self._fault = error
            while self._next() is not None:
                pass

    def _next(self) -> tuple[np.ndarray, float] | None:
        """The next frame; ``None`` at the end, and ever after."""
        item = None if self._ended else self._frames.get()
        self._ended = item is None
        return item

    def _encode_all(self) -> None:
        import av

        # The index of each fragment comes first, so that a truncated file is playable.
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if self._format.fragmented else {}
        with (
            _OutputFile(self._partial) as file,
            av.open(file, "w", format=self._format.container, options=options) as container,
        ):
            stream = self._stream(container)
            while (item := self._next()) is not None:
                container.mux(stream.encode(self._converted(*item)))
                self._written += 1
            container.mux(stream.encode(None))

    def _stream(self, container: Any) -> Any:
        stream = container.add_stream(self._encoder.name, rate=self._rate, options=dict(self._encoder.options))
        stream.width, stream.height = (length + length % 2 for length in self.size)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.gop_size = max(1, round(_FRAGMENT_SECONDS * self._rate))
        context.thread_count = 0
        context.time_base = self._time_base
        if self._encoder.quantizer:
            context.qscale = True
            context.global_quality = 118 * self._encoder.quantizer  # FF_QP2LAMBDA
        return stream

    def _converted(self, pixels: np.ndarray, time: float) -> Any:
        """A frame in the encoder's pixel format, with a timestamp after that of the previous one."""
        import av

        odd = [(0, length % 2) for length in pixels.shape[:2]]
        if any(after for _, after in odd):
            pixels = np.pad(pixels, [*odd, (0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
        tick = self._last_tick + 1 if self._format.constant_rate else round(time * _TICKS)
        frame.pts = self._last_tick = max(tick, self._last_tick + 1)
        frame.time_base = self._time_base
        return frame

    def _error(self, error: Exception) -> DataError:
        full = getattr(error, "errno", None) in NO_SPACE
        reason = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
        hint = "free some space, or choose another disk" if full else "choose another folder, or another suffix"
        return DataError(f"{self.path} cannot be written: {reason}", hint)
