"""The kinds of video files that are written, each with the encoders that can make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hubel.errors import HubelError, UsageError


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
