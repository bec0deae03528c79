"""Frames of video files, folders and webcams, one at a time, upright."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hubel.data import file_kinds, image_repairs
from hubel.data.file_listing import IMAGE_SUFFIXES, natural_order
from hubel.data.image_io import open_file, read_image
from hubel.data.video_numbering import FrameNumbers
from hubel.errors import ImageError

if TYPE_CHECKING:
    import av

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("vfwcap", "{}")}
_DEFAULT_RATE = 25
_MAX_PIXELS = 1 << 26  # of a frame: 8192 × 8192
_FILE = "file:"
_PLAYLISTS = ("hls", "hls,applehttp", "dash")
_BARE = ("h264", "hevc")  # FFmpeg's names of streams without a container
_ZEROS = bytes(64)
_LAST_SHOWN = -1
# Frames that a header may count although they are not shown.
_UNSHOWN = 2
_UNSHOWN_SECONDS = 0.5

OnError = Callable[[ImageError], None]
"""Called with the error of a frame that could not be decoded; the other frames follow."""


@dataclass(frozen=True)
class VideoFrame:
    """A decoded frame, not yet converted to RGB.

    Attributes:
        number: from 1; frames that cannot be decoded count too.
        time: seconds since the first frame; never decreases.
    """

    number: int
    time: float
    _decoded: av.VideoFrame

    def array(self) -> np.ndarray:
        """The frame as uint8 (H, W, 3), RGB, rotated and mirrored as the video's metadata say; thread-safe."""
        pixels: np.ndarray = self._decoded.to_ndarray(format="rgb24")
        matrix = _display_matrix(self._decoded)
        return pixels if matrix is None else np.ascontiguousarray(_upright(pixels, *matrix))

    def image(self) -> Image.Image:
        """The frame as an RGB image."""
        return Image.fromarray(self.array())

    def at(self, number: int, time: float) -> VideoFrame:
        """The frame with another number and time, as part of a longer video."""
        return replace(self, number=number, time=time)


@dataclass(frozen=True)
class StillFrame:
    """An image of a folder of frames: frame ``number``, from 1, at ``time`` in seconds since frame 1."""

    number: int
    time: float
    path: Path

    def array(self) -> np.ndarray:
        """The image as uint8 (H, W, 3), RGB, upright; raises :class:`ImageError` if it cannot be read."""
        return np.asarray(read_image(str(self.path)))


def video_length(path: Path, name: str) -> tuple[int | None, float]:
    """Number of frames of a video, if its header gives it, and their mean number per second.

    Raises :class:`ImageError` if the file does not exist, is not a video, or has no images.
    """
    with _file(path, name) as container:
        stream = _video_stream(container)
        rate = float(stream.average_rate or _DEFAULT_RATE)
        frames = stream.frames or None
        if frames is None and container.duration:
            frames = round(container.duration / 1e6 * rate)
        return frames, rate


def video_frames(path: Path, name: str, on_error: OnError | None = None) -> Iterator[VideoFrame]:
    """Decode a video file, which errors call ``name``; memory does not grow with its length.

    ``on_error`` is called for frames that cannot be decoded and for a truncated file; without it these raise. Iterating
    raises :class:`ImageError` too if the file does not exist, is not a video, or has no images.
    """
    told: list[ImageError] = []

    def tell(error: ImageError) -> None:
        told.append(error)
        (on_error or _raise)(error)

    last = 0
    for frame in _frames(_file(path, name), name, tell):
        yield frame
        last = frame.number
    if not told and file_kinds.is_cut_off(path):
        message = f"{name} ends after frame {last}: it is cut off"
        tell(ImageError(message, "copy or record it again, or leave it out"))


def folder_frames(folder: Path, rate: float) -> Iterator[StillFrame]:
    """The images of a folder as frames, in natural order, such as MOTChallenge's ``img1/``.

    If all names are numbers, these are the numbers of the frames (plus one if they start with 0), so that a missing
    image is a missing frame; otherwise frames are numbered in order. ``rate`` is in frames per second. Raises
    :class:`ImageError` if the folder does not exist, or has no images.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} does not exist", "check the spelling")
    paths = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."),
        key=lambda path: natural_order(path.name),
    )
    if not paths:
        raise ImageError(f"{folder} has no images", "pass a video, or a folder of its frames")
    numbers = [int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1 for path in paths]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(paths) + 1))
    elif numbers[0] == 0:
        numbers = [number + 1 for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        yield StillFrame(number, (number - 1) / rate, path)


def camera_frames(number: int) -> Iterator[VideoFrame]:
    """Frames of a webcam, numbered from 0, until it cannot be opened or stops, which raises :class:`ImageError`."""
    kind, pattern = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    name = f"webcam {number}"
    hint = "connect it, close other programs that use it, or try another number"
    yield from _frames(_opened(name, pattern.format(number), "cannot be opened", hint, format=kind), name, _raise)


_NETWORK = "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtmp,rtmps,rtmpt,srt,crypto,mmsh,mmst"


def url_frames(address: str, name: str, seconds: float) -> Generator[Any, None, None]:
    """Whether a video by its address is live, then its frames; ``seconds`` are those that a server may be silent.

    Iterating raises :class:`ImageError` if it cannot be reached, or is not a video.
    """
    options = {"protocol_whitelist": _NETWORK}  # no files: a playlist names what it likes
    if address.startswith(("rtsp:", "rtsps:")):
        options["rtsp_transport"] = "tcp"
    elif address.startswith(("http:", "https:")):
        options |= {"reconnect": "1", "reconnect_delay_max": "4"}
    hint = "check the address, the network and the camera"
    opened = _opened(name, address, "cannot be reached or read", hint, options=options, timeout=(seconds, seconds))
    with opened as container:
        # Of a playlist, the size is not the video's.
        ends = bool(container.duration) or (container.size > 0 and container.format.name not in _PLAYLISTS)
        is_file = address.lower().startswith(("http:", "https:")) and ends
        yield not is_file
        yield from _frames(nullcontext(container), name, _raise if is_file else _pass_over)


def _pass_over(error: ImageError) -> None:
    """Damage in a live video is in the past."""


def _raise(error: ImageError) -> None:
    raise error


def _file(path: Path, name: str) -> AbstractContextManager[Any]:
    with open_file(path, name):
        pass  # only for its errors: FFmpeg reads faster by itself
    # The prefix keeps FFmpeg from taking a colon in the name for a protocol; the whitelist keeps a disguised playlist
    # from using the network.
    options = {"protocol_whitelist": "file"}
    hint = "convert it to MP4 (H.264), or leave it out"
    # FFmpeg does not recognize a transport stream of a few packets by itself.
    format = "mpegts" if file_kinds.is_transport_stream(file_kinds.prefix_of(path)) else None
    return _opened(name, f"{_FILE}{path}", "is not a video that can be read", hint, options=options, format=format)


@contextmanager
def _opened(name: str, url: str, unreadable: str, hint: str, **arguments: Any) -> Iterator[Any]:
    import av

    try:
        container = av.open(url, **arguments)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if url.startswith(_FILE) and file_kinds.lacks_index(Path(url.removeprefix(_FILE))):
            message = (
                f"{name} is cut off: an MP4 or QuickTime file has an index, and this one has not, or not all of it"
            )
            raise ImageError(message, "copy or record it again, or leave it out") from error
        prefix = file_kinds.prefix_of(Path(url.removeprefix(_FILE))) if url.startswith(_FILE) else b""
        if (other := file_kinds.other_kind(prefix)) is not None:
            raise ImageError(f"{name} is {other[0]}, not a video", other[1]) from error
        raise ImageError(f"{name} {unreadable}: {_reason(error)}", hint) from error
    with container:
        if (stream := _video_stream(container)) is None:
            raise ImageError(f"{name} has no images, only sound or text", "leave it out")
        if (context := stream.codec_context) is not None:  # of a codec that FFmpeg knows
            if context.width * context.height > _MAX_PIXELS:
                limit = f"more than the limit of {_MAX_PIXELS / 1e6:.0f} megapixels"
                size = f"{context.width}×{context.height}"
                raise ImageError(f"{name} has frames of {size} pixels, {limit}", "scale it down")
            # Where the size changes half-way; FFmpeg counts the margins that it gives a frame.
            context.options = {"max_pixels": str(2 * _MAX_PIXELS)}
        yield container


def _video_stream(container: Any) -> Any:
    """The first stream of images that is not the cover of a piece of music; ``None`` if there is none."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    return next((stream for stream in container.streams.video if not stream.disposition & covers), None)


def _frames(opened: AbstractContextManager[Any], name: str, on_error: OnError) -> Iterator[VideoFrame]:
    hint = "copy or record it again, or leave it out"
    with opened as container:
        stream = _video_stream(container)
        stream.thread_type = "AUTO"
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        ends: dict[int, float] = {}
        numbers = FrameNumbers(
            1 / float(stream.guessed_rate or stream.average_rate or _DEFAULT_RATE),
            counted=bool(stream.frames),
            rough=container.format.name == "mpeg",
            end=container.duration / 1e6 if container.duration else None,
        )
        reason, clean = "", False
        for decoded in _decoded(container, stream, numbers, ends):
            if isinstance(decoded, Exception):
                reason = reason or _reason(decoded)
                numbers.refuse()
                continue
            if decoded.is_corrupt:
                numbers.note_damage()
            if lost := numbers.take(None if decoded.time is None else float(decoded.time)):
                on_error(ImageError(_lost(name, lost, reason), hint))
                reason = ""
            if decoded.is_corrupt and clean:
                message = f"{name}: frame {numbers.number} is damaged: a part of it cannot be decoded"
                on_error(ImageError(message, hint))
                continue
            clean = clean or not decoded.is_corrupt
            yield VideoFrame(numbers.number, numbers.time, decoded)
        if not numbers.started:
            raise ImageError(f"{name} has no frames", hint)
        if lost := numbers.finish(ends.get(_LAST_SHOWN)):
            reason = reason or "they cannot be decoded"
            on_error(ImageError(_lost(name, lost, reason), hint))
        elif numbers.unplaced:
            reason = reason or "nothing in the file tells which"
            on_error(ImageError(f"{name}: {numbers.unplaced} frames cannot be decoded: {reason}", hint))
        if missing := _missing(container, stream, numbers, max(ends.values(), default=0.0), start):
            message = f"{name} ends after frame {numbers.number}, {missing}: it is cut off or damaged"
            on_error(ImageError(message, hint))


def _lost(name: str, lost: range, reason: str) -> str:
    """The sentence that names frames that are not in a file, or could not be decoded."""
    which = f"frame {lost[0]} is" if len(lost) == 1 else f"frames {lost[0]} to {lost[-1]} are"
    return f"{name}: {which} damaged: {reason}" if reason else f"{name}: {which} missing: the file is damaged there"


def _missing(container: Any, stream: Any, numbers: FrameNumbers, end: float, start: float) -> str:
    """The end of a sentence about what the header promises but the file lacks; empty if it is complete.

    ``end`` is that of the last packet of any stream, ``start`` that of the images, in seconds.
    """
    shown = numbers.time + numbers.longest
    if stream.frames:
        # An edit list, which MP4 and QuickTime have, may leave out frames, and AVI counts those that repeat the last;
        # the duration is that of what is shown.
        by_time = "mov" in container.format.name or container.format.name == "avi"
        seconds = float((stream.duration or 0) * stream.time_base) if by_time else 0
        short = not seconds or shown + (_UNSHOWN + 1) * numbers.period < seconds
        return f"but should have {stream.frames}" if numbers.number + _UNSHOWN < stream.frames and short else ""
    seconds = (container.duration or 0) / 1e6
    # Some durations count from zero although the first frame comes later, as in a segment of a recording.
    end = max(end, start + shown)
    return f"but should last {seconds:.1f} s" if end + _UNSHOWN_SECONDS < seconds else ""


def _decoded(container: Any, stream: Any, numbers: FrameNumbers, ends: dict[int, float]) -> Iterator[Any]:
    """The frames, with an exception in place of each one that cannot be decoded.

    ``ends`` gets the end in seconds of each stream, by its index, as far as it was read, and the beginning of the last
    of the packets that are shown.
    """
    import av

    faults = (av.error.FFmpegError, OSError, ValueError)
    positions = _indexed(container, stream)
    bare = container.format.name
    size = container.size if bare == "yuv4mpegpipe" else 0
    end_of_frames = hidden = 0  # packets without frames
    interlaced = False
    try:
        for packet in _packets(container):
            if size and packet.pos is not None and packet.size:
                end_of_frames = packet.pos + packet.size
            if packet.pts is not None and packet.time_base is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream.index] = max(ends.get(packet.stream.index, 0.0), end)
            if packet.stream.index != stream.index:  # the packets that end each stream have no index of their own
                continue
            if packet.pts is not None and not packet.is_discard:
                ends[_LAST_SHOWN] = max(ends.get(_LAST_SHOWN, 0.0), float(packet.pts * packet.time_base))
            place = positions.get(packet.pos)
            if place is not None and packet.dts is not None and packet.dts != place:
                packet.pts, packet.dts = place, place
                numbers.note_damage()
            if packet.is_corrupt:
                numbers.note_damage()
            if packet.stream.type == "data":  # the end of a stream that has no decoder, found late in a damaged FLV
                continue
            hidden += packet.size > 0
            if bare in _BARE and _ZEROS in bytes(packet):  # which neither of them has within a frame
                yield ValueError("zeros stand in place of frames")
            if bare == "mjpeg" and packet.size and not image_repairs.is_whole(bytes(packet)):
                yield ValueError("its coded pixels are broken")
                continue
            try:
                frames = packet.decode()
            except faults as error:
                hidden -= 1
                yield error
            else:
                hidden -= len(frames)
                interlaced = interlaced or any(frame.interlaced_frame for frame in frames)
                yield from frames
    except faults as error:
        yield error  # the rest of the file cannot be read
    else:
        if 0 < end_of_frames < size:
            yield ValueError("the file ends within it")
    if bare in _BARE and not interlaced:  # of which a packet is half a frame
        numbers.unplaced += max(hidden, 0)


def _packets(container: Any) -> Iterator[Any]:
    """All packets, and at the end one for each stream, which empties its decoder."""
    try:
        yield from container.demux()
    except IndexError:
        # A damaged file has added a stream that PyAV does not know of; those that it knows are empty by now.
        return


_CHUNK_HEADER = 8


def _indexed(container: Any, stream: Any) -> dict[int, int]:
    """Position in the file → timestamp of each frame of an AVI, which has times in its index alone.

    Where frames are lost, the ones behind would get their times.
    """
    if container.format.name != "avi" or not hasattr(stream, "index_entries"):
        return {}
    return {entry.pos + _CHUNK_HEADER: entry.timestamp for entry in stream.index_entries}


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """The part of the display matrix that rotates and mirrors, if there is one: a, b, c, d of FFmpeg's display.h."""
    try:
        data = bytes(frame.side_data["DISPLAYMATRIX"])
    except (KeyError, TypeError, ValueError):
        return None
    a, b, _, c, d = struct.unpack_from("=5i", data)
    return a, b, c, d


def _upright(pixels: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The image (H, W, 3) as it is shown: pixel x, y goes to a·x + c·y, b·x + d·y, but for a shift.

    Cameras write multiples of 90 degrees, mirrored or not; other angles are rounded to them.
    """
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return pixels.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
